"""Comparisons that the tests of the kernel share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from helpers.referee import referee
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition, compute_ntk, resumption
from ntk_lpft.kernel.memory import Plan


def error(value: Tensor, expected: Tensor) -> float:
    """Return ‖value − expected‖ / ‖expected‖, in Frobenius norms."""
    return float((value - expected).norm() / expected.norm().clamp_min(1e-300))


def parts_of(ntk: NTKDecomposition) -> dict[str, Tensor]:
    """Every tensor of a kernel, by name."""
    return {
        "P": ntk.feature_kernel,
        **ntk.ft_groups,
        "row logits": ntk.row_logits,
        "column logits": ntk.column_logits,
    }


def assert_close(ntk: NTKDecomposition, expected: NTKDecomposition, tolerance: float = 1e-9) -> None:
    """Compare two kernels part by part; rounding is relative to the part, or to the whole where a part vanishes."""
    left, right = parts_of(ntk), parts_of(expected)
    assert left.keys() == right.keys()
    whole = float(sum(value.norm() for value in right.values()))
    for name, value in right.items():
        assert left[name].shape == value.shape, name
        bound = tolerance * max(float(value.norm()), 1e-6 * whole)
        difference = float((left[name] - value).norm())
        assert difference <= bound, f"{name}: off by {difference:.1e}, {bound:.1e} allowed"


def assert_identical(ntk: NTKDecomposition, expected: NTKDecomposition) -> None:
    """Compare two kernels bit by bit."""
    left, right = parts_of(ntk), parts_of(expected)
    assert left.keys() == right.keys()
    different = [name for name in right if not torch.equal(left[name], right[name])]
    assert not different, f"other bits in {', '.join(different)}"


def assert_agrees_with_referee(
    ntk: NTKDecomposition,
    model: nn.Module,
    rows: Sequence[Mapping],
    other: Sequence[Mapping] | None = None,
    *,
    attention: str = "sdpa",
    tolerance: float = 1e-9,
) -> None:
    """Compare P, F and every group with the naive kernel of the same model."""
    blocks = referee(model, rows, other, attention=attention)
    whole = float(sum(block.norm() for block in blocks.values()))
    body = [name for names in ntk.parameter_groups.values() for name in names]
    assert len(body) == len(set(body))
    head = blocks.keys() - set(body)
    assert error(ntk.pretrain_effective, sum(blocks[name] for name in head)) <= tolerance
    for group, names in ntk.parameter_groups.items():
        expected = sum(blocks[name] for name in names)
        difference = float((ntk.ft_groups[group] - expected).norm())
        assert difference <= tolerance * max(float(expected.norm()), 1e-6 * whole), f"{group}: {difference:.1e}"


@contextmanager
def replanned(**changes: int) -> Iterator[list[Plan]]:
    """Change the plan of every kernel computed inside, and collect those plans.

    Args:
        changes: Fields of the plan, and ``columns`` and ``rows`` of its passes, with the values to force upon them.
    """
    plans: list[Plan] = []
    make_plan = resumption.make_plan

    tile = {name: changes.pop(name) for name in ("columns", "rows") if name in changes}

    def changed(*args: object, **kwargs: object) -> Plan:
        plan = replace(make_plan(*args, **kwargs), **changes)
        plans.append(replace(plan, passes=[replace(step, **tile) for step in plan.passes]))
        return plans[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumption, "make_plan", changed)
        yield plans


def least_budget(model: nn.Module, rows: Sequence[Mapping], **options: object) -> int:
    """Ask for the impossible, and return the memory budget, in bytes, that the refusal recommends."""
    with pytest.raises(InputError, match="too small for one layer") as refusal:
        compute_ntk(model, rows, memory_budget=1000, **options)
    amount, unit = re.search(r"give at least ([0-9.]+) ([KMG]iB)", str(refusal.value)).groups()
    return int(float(amount) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit])
