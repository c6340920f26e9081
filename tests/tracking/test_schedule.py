"""The steps at which a run is measured."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.tracking.schedule import kernel_steps, tracking_steps


def test_powers_of_two_epochs_and_both_ends() -> None:
    assert tracking_steps(23, 7) == {0, 1, 2, 4, 7, 8, 14, 16, 21, 23}
    assert tracking_steps(1, 1) == {0, 1}
    assert tracking_steps(0, 5) == {0}


@given(total=st.integers(0, 2000), per_epoch=st.integers(1, 300))
def test_every_promise(total: int, per_epoch: int) -> None:
    steps = tracking_steps(total, per_epoch)
    assert {0, total} <= steps <= set(range(total + 1))
    for step in range(1, total + 1):
        promised = step % per_epoch == 0 or step == total or bin(step).count("1") == 1
        assert (step in steps) == promised


def test_kernels_from_start_to_end() -> None:
    assert kernel_steps(100, 0) == set()
    assert kernel_steps(100, 1) == {0}
    assert kernel_steps(100, 2) == {0, 100}
    assert kernel_steps(100, 5) == {0, 25, 50, 75, 100}
    assert kernel_steps(10, 4) == {0, 3, 7, 10}
    assert kernel_steps(0, 3) == {0}


@given(total=st.integers(0, 500), moments=st.integers(2, 60))
def test_as_many_kernels_as_asked_for_evenly_spread(total: int, moments: int) -> None:
    steps = sorted(kernel_steps(total, moments))
    assert len(steps) == min(moments, total + 1)
    assert steps[0] == 0
    assert steps[-1] == total
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1 + (moments <= total)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="-1 steps"):
        tracking_steps(-1, 3)
    with pytest.raises(InputError, match="an epoch has 0 steps"):
        tracking_steps(5, 0)
    with pytest.raises(InputError, match="-1 steps"):
        kernel_steps(-1, 3)
    with pytest.raises(InputError, match="at -2 moments"):
        kernel_steps(5, -2)
