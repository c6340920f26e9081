"""Kernels of a moment, against the referee's sums over every parameter."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.referee import referee, referee_logits
from helpers.tracking_cases import CLASSES, classifier, classifier_of, probe_set, split_of
from torch import Tensor, nn

from ntk_lpft.classifier import apply_lora
from ntk_lpft.errors import InputError
from ntk_lpft.tasks import EncodedSplit
from ntk_lpft.tracking.kernels import MEASURES, KernelTracker

SPLIT = probe_set().splits["train"]


def tracker(model: nn.Module, folder: Path, split: EncodedSplit = SPLIT, **options: bool) -> KernelTracker:
    return KernelTracker(classifier_of(model), split, folder / "tracked_kernel.safetensors", **options)


def values(kernels: KernelTracker) -> dict[str, float]:
    rows = kernels.measure()
    assert [row.measure for row in rows] == list(MEASURES)
    assert {row.split for row in rows} == {"train"}
    return {row.measure: row.value for row in rows}


def changed(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.requires_grad)


def components(model: nn.Module) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P and F as NC×NC matrices, and the logits."""
    judged = model.eval()
    parts = referee(judged, SPLIT.rows, attention="sdpa")
    size = len(SPLIT) * CLASSES

    def total(of_head: bool) -> np.ndarray:
        chosen = [part for name, part in parts.items() if ("classifier" in name) == of_head]
        return sum(chosen, torch.zeros(1, dtype=torch.float64)).expand(len(SPLIT), CLASSES, -1, -1).reshape(size, size)

    return total(True).numpy(), total(False).numpy(), referee_logits(judged, SPLIT.rows, "sdpa").numpy()


def expected(model: nn.Module, first: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    p, f, logits = components(model)
    exponentials = np.exp(logits)
    delta = np.eye(CLASSES)[SPLIT.labels] - exponentials / exponentials.sum(axis=1, keepdims=True)
    moved = [(kernel @ delta.reshape(-1)).reshape(delta.shape) for kernel in (f, p + f)]
    target = np.eye(CLASSES)[SPLIT.labels].reshape(-1)

    def alignment(kernel: np.ndarray) -> float:
        return float(target @ kernel @ target / (np.linalg.norm(kernel) * len(SPLIT)))

    norms = [np.linalg.norm(of_part, axis=1) for of_part in moved]
    return {
        "kernel.P.frobenius_norm": float(np.linalg.norm(p)),
        "kernel.F.frobenius_norm": float(np.linalg.norm(f)),
        "kernel.ft_ratio": float(np.mean(norms[0] / norms[1])),
        "kernel.P.distance": float(np.linalg.norm(p - first[0]) / np.linalg.norm(first[0])),
        "kernel.F.distance": float(np.linalg.norm(f - first[1]) / np.linalg.norm(first[1])),
        "kernel.P.alignment": alignment(p),
        "kernel.F.alignment": alignment(f),
        "kernel.total.alignment": alignment(p + f),
    }


@pytest.mark.parametrize("adapted", [False, True], ids=["all parameters", "lora"])
def test_both_moments_by_the_referee(adapted: bool, tmp_path: Path) -> None:
    model: nn.Module = classifier().train()
    if adapted:
        model = apply_lora(model, classifier_of(model).head, rank=2)
    first = components(model)[:2]
    model.train()
    kernels = tracker(model, tmp_path)
    at_start = values(kernels)
    assert model.training
    assert at_start == pytest.approx(expected(model, first), rel=1e-7)
    assert at_start["kernel.P.distance"] == at_start["kernel.F.distance"] == 0
    changed(model)
    later = values(kernels)
    assert later == pytest.approx(expected(model, first), rel=1e-7)
    assert later["kernel.F.distance"] > 0.01


def test_the_first_kernels_survive(tmp_path: Path) -> None:
    model = classifier(dtype=torch.float32)
    kernels = tracker(model, tmp_path)
    kernels.measure()
    changed(model)
    again = tracker(model, tmp_path, resume=True)
    assert values(again) == values(kernels)
    # A run from the start takes its own.
    assert values(tracker(model, tmp_path))["kernel.F.distance"] == 0


def test_a_frozen_body_has_no_kernel(tmp_path: Path) -> None:
    model = classifier()
    model.body.requires_grad_(False)
    measured = values(tracker(model, tmp_path))
    assert measured["kernel.P.frobenius_norm"] > 0
    for measure in ("kernel.F.frobenius_norm", "kernel.ft_ratio", "kernel.F.alignment", "kernel.P.distance"):
        assert measured[measure] == 0
    assert math.isnan(measured["kernel.F.distance"])
    assert measured["kernel.total.alignment"] == pytest.approx(measured["kernel.P.alignment"])


@pytest.mark.parametrize("broken", ["weights", "logits", "kernel"])
def test_a_diverged_model_has_none_either(broken: str, tmp_path: Path) -> None:
    model = classifier(dtype=torch.float32)
    kernels = tracker(model, tmp_path)
    with torch.no_grad():
        if broken == "weights":
            model.body.encoder.layer[0].output.dense.bias[0] = math.nan
        else:  # the kernel's entries are of the size of squared weights
            model.classifier.weight.fill_(3e38 if broken == "logits" else 1e30)
    assert all(math.isnan(value) for value in values(kernels).values())
    assert not kernels.file.exists()


def test_nothing_is_touched(tmp_path: Path) -> None:
    model = classifier(dtype=torch.float32).train()
    before: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    tracker(model, tmp_path).measure()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_what_is_refused(tmp_path: Path) -> None:
    model = classifier()
    with pytest.raises(InputError, match="to track kernels on are 1; give 2 or more"):
        tracker(model, tmp_path, split_of(SPLIT.rows[:1], "train"))
    with pytest.raises(InputError, match=r"tracked_kernel\.safetensors: no such file"):
        tracker(model, tmp_path, resume=True)
    tracker(model, tmp_path).measure()
    with pytest.raises(InputError, match="no kernels of this run's samples"):
        tracker(model, tmp_path, split_of(SPLIT.rows[:5], "train"), resume=True)
    file = tmp_path / "tracked_kernel.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated"):
        tracker(model, tmp_path, resume=True)
