"""Timers find the engine's stages, and account for the whole call once."""

from __future__ import annotations

import time

import pytest
from helpers.linear_heads import linear_head
from helpers.zoo import ZOO, ragged_rows

from benchmarks.stages import STAGES, Stopwatch, stages_of_call
from ntk_lpft import compute_ntk


def test_every_stage_is_passed() -> None:
    model, samples = linear_head("bert", "first"), ragged_rows(ZOO["bert"])
    plain = compute_ntk(model, samples).total
    kernels = []
    taken = stages_of_call(lambda: kernels.append(compute_ntk(model, samples).total))
    assert set(taken) == {*STAGES, "the rest", "whole"}
    assert all(value > 0 for value in taken.values())
    assert sum(taken.values()) == pytest.approx(2 * taken["whole"])
    assert kernels[0].equal(plain)


def test_a_stage_within_another_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def spend(seconds: float) -> None:
        now[0] += seconds

    watch = Stopwatch()
    inner = watch.timed("capture", lambda: spend(3))

    def outer() -> None:
        spend(1)
        inner()
        inner()

    watch.timed("plan", outer)()
    assert (watch.taken["plan"], watch.taken["capture"]) == (1, 6)
