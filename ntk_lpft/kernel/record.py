"""What is recorded of a kernel's computation: what it depends on, how it was computed, what was found on the way."""

import platform
from dataclasses import asdict
from typing import Any

import torch

from ntk_lpft.byte_sizes import parse_bytes
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.rows import Row, fingerprint_rows
from ntk_lpft.classifier.stored_weights import StoredWeights
from ntk_lpft.kernel.resumption import Start
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.kernel.setup import KernelSetup
from ntk_lpft.provenance import structure_digest, versions
from ntk_lpft.storage import tensor_digest


def identity_of(
    classifier: Classifier, columns: list[Row], extra: list[Row], symmetric: bool, settings: KernelSettings
) -> dict[str, Any]:
    """Collect all that a kernel depends on, by which it is told from others.

    Args:
        classifier: The classifier.
        columns: Samples that are columns.
        extra: Samples that are rows only.
        symmetric: Whether the columns are rows as well.
        settings: How.

    Returns:
        Settings, versions, and digests of weights, structure and rows.
    """
    named = dict(classifier.module.named_parameters())
    return {
        **asdict(settings),
        "memory_budget": None if settings.memory_budget is None else parse_bytes(settings.memory_budget),
        "device": classifier.device.type,  # processes that share a kernel have a device each
        "weights_sha256": tensor_digest(StoredWeights(classifier.module)),
        "model_sha256": structure_digest(classifier.module),
        "columns_sha256": fingerprint_rows(columns),
        "extra_sha256": fingerprint_rows(extra),
        "symmetric": symmetric,
        "trainable": sorted(name for name, p in named.items() if p.requires_grad),
        "versions": versions(),
    }


def described(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what a kernel's metadata say of it; the parameters are named by group beside them."""
    return {name: value for name, value in identity.items() if name != "trainable"}


def metadata_of(
    setup: KernelSetup, identity: dict[str, Any], check: dict[str, Any], start: Start, processes: int, seconds: float
) -> dict[str, Any]:
    """Collect all that is stored with a kernel.

    Args:
        setup: What was computed.
        identity: See `identity_of`.
        check: What the self-check found.
        start: The plan, and what an interrupted run had done.
        processes: How many processes shared the work.
        seconds: How long this took.

    Returns:
        Plain data; all in which one way to the same kernel differs from another is in ``plan`` and ``this_run``.
    """
    plan, precision, device = start.plan, setup.precision, setup.classifier.device
    cuda = device.type == "cuda"
    return {
        **described(identity),
        "frozen_weights": setup.frozen_weights,
        "head": setup.classifier.head.name,
        "head_error": setup.head_error,
        "head_rank": _head_rank(setup),
        "rounding": {"P": _rounding(precision.feature_rounding, setup), "F": _rounding(precision.rounding, setup)},
        "self_check": check,
        "plan": {
            "processes": processes,
            "passes": len(plan.passes),
            "max_cells": plan.max_cells,
            "chunk_bytes": plan.chunk_bytes,
            "budget": plan.budget,
            "predicted_peak": plan.predicted_peak,
            **plan.largest_tile,
        },
        "device_name": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "this_run": {"seconds": round(seconds, 3), **start.resumed},
    }


def _head_rank(setup: KernelSetup) -> dict[str, Any]:
    """Say what was found of V's rank, and how many combinations of the logits were differentiated for it."""
    found = setup.head_rank
    known = {} if found is None else {"rank": found.rank, "cut": found.cut, "largest": found.largest}
    return {**known, "rank_form": setup.basis is not None, "differentiated": len(setup.seeds)}


def _rounding(dtype: torch.dtype, setup: KernelSetup) -> str:
    """Name the dtype to which a part is rounded, by the precision or by the model itself."""
    return str(max(dtype, setup.inside, key=lambda kind: torch.finfo(kind).eps)).removeprefix("torch.")
