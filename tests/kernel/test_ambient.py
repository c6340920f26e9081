"""What a process has switched on around a computation does not count for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from helpers.agreement import assert_identical, error
from helpers.referee import referee
from helpers.zoo import ZOO, ragged_rows

from ntk_lpft.classifier import extract_features
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk
from ntk_lpft.probing.path import LabelledFeatures, PathSettings, gradient_path


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def newer_precision() -> Iterator[None]:
    """Set TF32 by torch's newer interface, after which questions for the older raise."""
    matmul: Any = torch.backends.cuda.matmul
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has no such interface")
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError):
            torch.backends.cuda.matmul.allow_tf32  # noqa: B018
        yield
    finally:
        matmul.fp32_precision = before


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default float64": lambda: default_dtype(torch.float64),
    "another default device": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "newer precision": newer_precision,
    "anomalies": torch.autograd.detect_anomaly,
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("engine", ["structured", "functional", "per_example"])
@pytest.mark.parametrize("name", list(AMBIENT))
def test_a_kernel_keeps_its_bits(name: str, engine: str) -> None:
    model, rows = ZOO["bert"].build(dtype=torch.float32), ragged_rows(ZOO["bert"], n=3)
    plain = compute_ntk(model, rows, engine=engine)
    with AMBIENT[name]():
        around = compute_ntk(model, rows, engine=engine)
        pretrain = around.pretrain_effective
    assert_identical(around, plain)
    assert torch.equal(pretrain, plain.pretrain_effective)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", list(AMBIENT))
def test_features_keep_their_bits(name: str) -> None:
    model, rows = ZOO["gpt2"].build(dtype=torch.float32), ragged_rows(ZOO["gpt2"], n=3)
    plain = extract_features(model, rows)
    with AMBIENT[name]():
        around = extract_features(model, rows)
    assert torch.equal(around.features, plain.features)
    assert torch.equal(around.logits, plain.logits)


def test_autocast_around_changes_nothing_against_autograd() -> None:
    """The bound: a float32 kernel of this model is a thousand times nearer to float64 than one under autocast."""
    rows = ragged_rows(ZOO["bert"], n=3)
    exact = sum(referee(ZOO["bert"].build(), rows).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ntk = compute_ntk(ZOO["bert"].build(dtype=torch.float32), rows)
    assert error(ntk.total.double(), exact) < 1e-5


def test_weights_made_in_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        model = ZOO["bert"].build()
    with pytest.raises(InputError, match=r"made under torch\.inference_mode.*load the model outside of it"):
        compute_ntk(model, ragged_rows(ZOO["bert"], n=2))


def test_a_probe_along_a_gradient_path_keeps_its_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    train = LabelledFeatures(torch.randn(20, 5, generator=generator), torch.arange(20) % 3)
    settings = PathSettings(iterations=5, precision="float32")
    plain = gradient_path(torch.zeros(3, 5), torch.zeros(3), train, settings)
    for name in ("autocast", "no_grad", "default bfloat16"):
        with AMBIENT[name]():
            around = gradient_path(torch.zeros(3, 5), torch.zeros(3), train, settings)
        assert torch.equal(around.weight, plain.weight), name
        assert around.table.equals(plain.table), name
