"""Every engine against the independent referee, over every architecture."""

from __future__ import annotations

import pytest
import torch
from helpers.referee import referee
from helpers.zoo import ENTRIES, LORA_ENTRIES, ZOO, Entry, ragged_rows, widened
from torch import Tensor, nn

from ntk_lpft.kernel import NTKDecomposition, compute_ntk

ALL = [*ENTRIES, *LORA_ENTRIES]


def head_names(model: nn.Module, ntk: NTKDecomposition) -> set[str]:
    body = {name for names in ntk.parameter_groups.values() for name in names}
    return {name for name, p in model.named_parameters() if p.requires_grad} - body


def attention_of(model: nn.Module) -> str:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "sdpa" if base._supports_sdpa else "eager"


def assert_matches(ntk: NTKDecomposition, blocks: dict[str, Tensor], model: nn.Module, tolerance: float) -> None:
    """Compare P, F and every group with the referee's blocks by parameter; rounding is relative to the kernel."""
    total = sum(blocks.values())
    body = {name for names in ntk.parameter_groups.values() for name in names}
    assert sorted(body) == sorted(name for names in ntk.parameter_groups.values() for name in names if name in blocks)
    expected_f = {group: sum(blocks[n] for n in names) for group, names in ntk.parameter_groups.items()}
    p = sum(block for name, block in blocks.items() if name not in body)
    assert head_names(model, ntk)
    error = {"P": (ntk.pretrain_effective - p).norm() / p.norm()}
    f = sum(expected_f.values())
    error["F"] = (ntk.ft_effective - f).norm() / f.norm()
    for group, expected in expected_f.items():
        # Blocks that vanish in exact arithmetic are held to the rounding of the whole.
        error[group] = (ntk.ft_groups[group] - expected).norm() / max(expected.norm(), 1e-9 * total.norm())
    worst = max(error, key=lambda name: float(error[name]))
    assert error[worst] <= tolerance, f"{worst}: {error[worst]:.2e}"


def blocks_of(entry: Entry, model: nn.Module, rows: list, other: list | None = None) -> dict[str, Tensor]:
    return referee(model, rows, other, attention=attention_of(model))


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.name)
def test_structured_agrees_with_the_referee(entry: Entry) -> None:
    model, rows = entry.build(), ragged_rows(entry)
    with widened():
        blocks = blocks_of(entry, model, rows)
        ntk = compute_ntk(model, rows, precision="float64")
    assert_matches(ntk, blocks, model, 1e-9)


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.name)
def test_structured_agrees_with_models_as_they_are(entry: Entry) -> None:
    """Without widening the parts that models compute in float32 inside."""
    model, rows = entry.build(), ragged_rows(entry)
    ntk = compute_ntk(model, rows, precision="float64")
    assert_matches(ntk, blocks_of(entry, model, rows), model, 1e-6 if entry.internal_float32 else 1e-9)


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.name)
def test_per_example_agrees_with_the_referee(entry: Entry) -> None:
    model, rows = entry.build(), ragged_rows(entry, n=4)
    with widened():
        blocks = blocks_of(entry, model, rows)
        ntk = compute_ntk(model, rows, precision="float64", engine="per_example")
    assert_matches(ntk, blocks, model, 1e-9)


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.name)
def test_functional_agrees_with_the_referee(entry: Entry) -> None:
    model, rows = entry.build(), ragged_rows(entry, n=4)
    with widened():
        blocks = blocks_of(entry, model, rows)
        ntk = compute_ntk(model, rows, precision="float64", engine="functional")
    assert_matches(ntk, blocks, model, 1e-9)


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.name)
def test_float32_agrees_with_float64(entry: Entry) -> None:
    exact, rows = entry.build(), ragged_rows(entry)
    blocks = blocks_of(entry, exact, rows)
    ntk = compute_ntk(entry.build(dtype=torch.float32), rows)
    assert ntk.ft_effective.dtype == torch.float32
    assert_matches(ntk.to(torch.float64), blocks, exact, 1e-4)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "deberta-v2"])
def test_rectangular_kernels_agree_with_the_referee(name: str) -> None:
    entry = ZOO[name]
    model, rows, columns = entry.build(), ragged_rows(entry, n=3, seed=1), ragged_rows(entry, n=4, seed=2)
    with widened():
        blocks = blocks_of(entry, model, rows, columns)
        ntk = compute_ntk(model, rows, columns, precision="float64")
    assert ntk.ft_effective.shape == (3, 3, 4, 3)
    assert_matches(ntk, blocks, model, 1e-9)
