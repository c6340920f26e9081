"""How products of float32 are rounded is set inside a context only, whichever of torch's two interfaces was used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ntk_lpft import devices
from ntk_lpft.devices import float32_products

backends: Any = torch.backends
PRODUCTS = {
    "cuda": lambda: backends.cuda.matmul,
    "convolution": lambda: backends.cudnn.conv,
    "recurrence": lambda: backends.cudnn.rnn,
    "cpu": lambda: backends.mkldnn.matmul,
    "convolution on the cpu": lambda: backends.mkldnn.conv,
}
newer = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has the older alone")


def outcome(question: Callable[[], object]) -> object:
    """Answer, or that there is none: a question for the older settings raises where the newer were used."""
    try:
        return question()
    except RuntimeError:
        return "mixed"


def settings() -> dict[str, object]:
    found = {
        "older": outcome(torch.get_float32_matmul_precision),
        "older, cuda": outcome(lambda: backends.cuda.matmul.allow_tf32),
        "older, convolution": outcome(lambda: backends.cudnn.allow_tf32),
    }
    if not hasattr(torch.backends, "fp32_precision"):
        return found
    for general in ("none", "ieee", "tf32"):
        # What a setting is worth shows in what becomes of it when the general one changes.
        before = backends.fp32_precision
        backends.fp32_precision = general
        found |= {f"{name}, general {general}": get().fp32_precision for name, get in PRODUCTS.items()}
        backends.fp32_precision = before
    return found | {"all": backends.fp32_precision, "cudnn": backends.cudnn.fp32_precision}


def set_newer(path: str, value: str) -> None:
    holder = backends
    for name in path.split(".") if path else []:
        holder = getattr(holder, name)
    holder.fp32_precision = value


CASES: dict[str, Callable[[], object]] = {
    "untouched": lambda: None,
    "older: high": lambda: torch.set_float32_matmul_precision("high"),
    "older: medium": lambda: torch.set_float32_matmul_precision("medium"),
    "older: TF32 on CUDA": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "older: no convolutions": lambda: setattr(backends.cudnn, "allow_tf32", False),
}
NEWER = {
    "newer: all": lambda: set_newer("", "tf32"),
    "newer: products on CUDA": lambda: set_newer("cuda.matmul", "tf32"),
    "newer: convolutions": lambda: set_newer("cudnn.conv", "tf32"),
    "newer: no convolutions": lambda: set_newer("cudnn.conv", "ieee"),
    "newer: cuDNN": lambda: set_newer("cudnn", "tf32"),
    "newer: bfloat16 on the CPU": lambda: set_newer("mkldnn.matmul", "bf16"),
    "newer: TF32 of transformers": lambda: (set_newer("cuda.matmul", "tf32"), set_newer("cudnn", "tf32")),
    "both": lambda: (torch.set_float32_matmul_precision("high"), set_newer("cuda.matmul", "ieee")),
}


@pytest.fixture
def _clean() -> Iterator[None]:
    """Put torch's own settings back; what convolutions begin with cannot be set, and is TF32 that yields."""
    older, convolution = outcome(torch.get_float32_matmul_precision), outcome(lambda: backends.cudnn.allow_tf32)
    yield
    if hasattr(torch.backends, "fp32_precision"):
        for path in ("", "cudnn", "mkldnn", "cuda.matmul", "mkldnn.matmul", "mkldnn.conv"):
            set_newer(path, "none")
        for path in ("cudnn.conv", "cudnn.rnn"):
            set_newer(path, "tf32")
    torch.set_float32_matmul_precision(str(older))
    backends.cudnn.allow_tf32 = bool(convolution)


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=newer) for name in NEWER)])
def test_what_was_set_counts_outside_only(name: str, tf32: bool) -> None:
    (CASES | NEWER)[name]()
    before = settings()
    try:
        with float32_products(tf32=tf32):
            if hasattr(torch.backends, "fp32_precision"):
                inside = {key: get().fp32_precision for key, get in PRODUCTS.items()}
                assert set(inside.values()) == {"tf32" if tf32 else "ieee"}
            if before["older"] != "mixed":
                # torch's compiler asks for it.
                assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert settings() == before


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize("name", list(CASES))
def test_the_settings_of_earlier_releases(name: str) -> None:
    CASES[name]()
    before = settings()
    with devices._older_settings(tf32=False):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not backends.cudnn.allow_tf32
    after = settings()
    assert {key: after[key] for key in before if key.startswith("older")} == {
        key: value for key, value in before.items() if key.startswith("older")
    }
