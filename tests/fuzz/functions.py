"""Calls of public functions that are sound but for one argument."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from helpers.small import tokenizer, tokens_of
from helpers.zoo import ZOO

import ntk_lpft
from fuzz import mutators
from ntk_lpft import calibration, classifier, kernel, pictures, runs, statistics, tasks

ROWS = [tokens_of("w1 w2 w3"), tokens_of("w4 w5"), tokens_of("w6")]
Call = tuple[Callable[..., Any], Mapping[str, Any]]


@cache
def _model() -> torch.nn.Module:
    return ZOO["bert"].build(dtype=torch.float32).eval()


def _odd(rng: random.Random) -> Any:
    """Return something that few arguments can be."""
    tensors = (
        torch.zeros(0), torch.zeros(()), torch.full((2, 2), float("nan")), torch.zeros(2, 3, dtype=torch.int64),
        torch.zeros(3, 3, device="meta"), torch.zeros(3, 3).to_sparse(), torch.full((3, 3), float("inf")),
        torch.ones(3, 3, dtype=torch.bool), torch.ones(3, 2, 3, 2) * 1e38, torch.ones(2, 2, requires_grad=True),
    )  # fmt: skip
    others: tuple[Any, ...] = (
        None, b"x", object(), 5, (x for x in [1]), {"input_ids": [1]}, [{"input_ids": 5}], [{"input_ids": [10**9]}],
        [{"input_ids": []}], [{}], [[1, 2]], np.zeros((2, 2)), np.array(["x"]), pd.DataFrame({"a": [1]}), {1: 2}, len,
        Path("/proc/x"), Path("/dev/zero"), torch.nn.Linear(2, 2), {"P": None}, ["x"], [float("nan")], (), -1, 2**70,
    )  # fmt: skip
    return rng.choice((rng.choice(tensors), rng.choice(others), rng.choice(mutators.VALUES)))


def _calls(place: Path) -> dict[str, Call]:
    inside = place / "in"
    y, p = torch.tensor([0, 1, 2]), torch.eye(3)
    f = torch.eye(9).reshape(3, 3, 3, 3)
    logits, labels = np.eye(3) * 2.0, np.array([0, 1, 2])
    csv = inside / "train.csv"
    log = pd.DataFrame({"step": [0], "epoch": [0.0], "split": ["train"], "measure": ["head_norm"], "value": [1.0]})
    return {
        "load_task": (ntk_lpft.load_task, {"name": "amazon-snippets", "data_dir": None}),
        "load_files": (ntk_lpft.load_files, {"train": csv, "test": csv, "text_columns": ("text",),
                                             "label_column": "label"}),
        "load_classifier": (ntk_lpft.load_classifier, {"name": inside / "bert", "num_labels": 3, "head": "linear",
                                                       "pooling": "first", "device": "cpu"}),
        "load_tokenizer": (ntk_lpft.load_tokenizer, {"name": inside / "bert"}),
        "encode": (lambda **k: tasks.load_files(csv).split("train").encode(**k), {"tokenizer": tokenizer(),
                                                                                 "max_length": 8}),
        "subsample": (lambda **k: tasks.load_files(csv).split("train").subsample(**k), {"n": 3, "seed": 0}),
        "compute_ntk": (ntk_lpft.compute_ntk, {"model": _model(), "inputs": ROWS}),
        "NTKDecomposition.load": (kernel.NTKDecomposition.load, {"path": inside / "kernel" / "kernel.safetensors"}),
        "summarise": (statistics.summarise, {"feature_kernel": p, "ft_effective": f, "labels": y}),
        "kernel_spectrum": (statistics.kernel_spectrum, {"kernel": f}),
        "as_matrix": (statistics.as_matrix, {"kernel": f}),
        "trace_shares": (statistics.trace_shares, {"groups": {"a": f}}),
        "block_trace_norms": (statistics.block_trace_norms, {"kernel": f}),
        "load_head": (classifier.load_head, {"path": inside / "run" / "model" / "head.safetensors"}),
        "fit_temperature": (calibration.fit_temperature, {"logits": logits, "labels": labels}),
        "fit_isotonic": (calibration.fit_isotonic, {"logits": logits, "labels": labels}),
        "Predictions": (calibration.Predictions.from_logits, {"logits": logits, "labels": labels}),
        "read_predictions": (calibration.read_predictions, {"logits": inside / "logits.npy",
                                                            "labels": inside / "labels.csv", "name": "x"}),
        "load_temperature": (calibration.load_temperature, {"folder": inside / "cal"}),
        "read_tracking": (runs.read_tracking, {"path": inside / "run" / "tracking.csv"}),
        "singular_values": (pictures.singular_values, {"spectra": {"P": np.array([2.0, 1.0])}}),
        "group_shares": (pictures.group_shares, {"shares": {"a": 1.0}}),
        "training_curves": (pictures.training_curves, {"tracking": log}),
    }  # fmt: skip


def _kind(value: Any) -> str:
    """Say what kind of argument a value is; an annotation takes one or two of them."""
    kinds: dict[str, tuple[type, ...]] = {
        "numbers": (torch.Tensor, np.ndarray), "path": (str, Path), "number": (int, float), "rows": (list, tuple),
        "mapping": (dict,), "table": (pd.DataFrame,), "model": (torch.nn.Module,),
    }  # fmt: skip
    return next((name for name, types in kinds.items() if isinstance(value, types)), "other")


def spoilt_call(rng: random.Random, place: Path) -> tuple[str, Callable[[], int]]:
    """Choose a function and spoil one of its arguments."""
    calls = _calls(place)
    name = rng.choice(sorted(calls))
    function, arguments = calls[name]
    spoilt = rng.choice(sorted(arguments))
    odd = _odd(rng)

    def call() -> int:
        try:
            function(**{**arguments, spoilt: odd})
        except (TypeError, AttributeError, RuntimeError):
            # Python's own answer to an argument of a kind that the annotation rules out.
            if _kind(odd) == _kind(arguments[spoilt]):
                raise
        return 0

    return f"{name}({spoilt}={type(odd).__name__} {str(odd)[:60]!r})", call
