"""Plans, and running out of memory."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_close, replanned
from helpers.zoo import ZOO, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.byte_sizes import parse_bytes
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk, passes
from ntk_lpft.kernel.body_parameters import Route
from ntk_lpft.kernel.memory import ParameterCost, Plan, default_budget, make_plan

many = settings(max_examples=60, deadline=None, derandomize=True)


def test_the_default_budget_leaves_memory_to_others() -> None:
    free = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert 0 < default_budget(torch.device("cpu")) < 0.5 * 1024 * int(free.group(1))


@st.composite
def computations(draw: st.DrawFn) -> tuple[list[ParameterCost], dict]:
    """Random parameters, some of which share inputs, and the sizes of a computation."""
    costs = []
    for number in range(draw(st.integers(1, 9))):
        route = draw(st.sampled_from(list(Route)))
        if route == Route.AUTOGRAD:
            costs.append(ParameterCost(f"p{number}", route, 0, entries=draw(st.integers(1, 5000))))
            continue
        key = draw(st.sampled_from(["", "", "a", "b"]))
        costs.append(
            ParameterCost(
                f"p{number}",
                route,
                draw(st.integers(0, 8)),
                fixed_bytes=draw(st.sampled_from([0.0, 480.0])),
                position_bytes=draw(st.sampled_from([0.0, 160.5, 3000.0])),
                input_key=key,
                input_position_bytes={"": 0.0, "a": 160.0, "b": 2000.0}[key],
                chunk_bytes=draw(st.sampled_from([0, 2400, 100_000])),
            )
        )
    longest = draw(st.integers(1, 128))
    samples = draw(st.integers(1, 40))
    sizes = {
        "samples": samples,
        "positions": draw(st.integers(longest, longest * samples)),
        "longest": longest,
        "channels": draw(st.integers(1, 6)),
        "graph_bytes_per_cell": draw(st.sampled_from([0.0, 24.0, 23_000.0])),
        "kernel_bytes": draw(st.sampled_from([100, 32_000, 4_000_000])),
        "itemsize": draw(st.sampled_from([4, 8])),
        "device_type": draw(st.sampled_from(["cpu", "cuda"])),
    }
    return costs, sizes


def captured_bytes(costs: list[ParameterCost], sizes: dict) -> float:
    """Bytes of what is captured of these parameters; an input that several share is held once."""
    total, inputs = 0.0, {}
    for cost in costs:
        total += cost.fixed_bytes * sizes["samples"] + cost.position_bytes * sizes["positions"]
        if cost.input_key:
            inputs[cost.input_key] = cost.input_position_bytes * sizes["positions"]
    return total + sum(inputs.values())


@many
@given(computation=computations(), budget=st.integers(10_000, 300_000_000))
def test_plans_are_complete_and_stay_within_the_budget(
    computation: tuple[list[ParameterCost], dict], budget: int
) -> None:
    costs, sizes = computation
    try:
        plan = make_plan(costs, budget=budget, **sizes)
    except InputError:
        return
    known = {p.name: p for p in costs}
    structured = [name for step in plan.passes if step.route != Route.AUTOGRAD for name in step.parameters]
    assert sorted(structured) == sorted(p.name for p in costs if p.route != Route.AUTOGRAD)
    slices: dict[str, list[tuple[int, int]]] = {p.name: [] for p in costs if p.route == Route.AUTOGRAD}
    largest = 0.0
    for step in plan.passes:
        assert step.parameters
        assert {known[name].route for name in step.parameters} == {step.route}
        if step.route == Route.AUTOGRAD:
            assert len(step.parameters) == len(step.slices)
            for name, piece in zip(step.parameters, step.slices, strict=True):
                slices[name].append(piece)
            entries = sum(end - begin for begin, end in step.slices)
            largest = max(largest, entries * sizes["samples"] * sizes["channels"] * sizes["itemsize"])
        else:
            largest = max(largest, captured_bytes([known[name] for name in step.parameters], sizes))
    for name, pieces in slices.items():
        covered = [entry for begin, end in pieces for entry in range(begin, end)]
        assert covered == list(range(known[name].entries)), name
    assert plan.max_cells >= sizes["longest"]
    assert plan.chunk_bytes >= max(p.chunk_bytes for p in costs)
    graph = plan.max_cells * sizes["graph_bytes_per_cell"]
    held = sizes["kernel_bytes"] + plan.chunk_bytes + graph + largest
    assert held - 4 <= plan.predicted_peak <= plan.budget == budget
    assert plan.predicted_peak <= held + 4


@many
@given(computation=computations())
def test_the_recommended_budget_suffices(computation: tuple[list[ParameterCost], dict]) -> None:
    costs, sizes = computation
    with pytest.raises(InputError, match="too small for one layer") as refusal:
        make_plan(costs, budget=50, **sizes)
    advice = re.search(r"give at least ([0-9.]+ \w+)", str(refusal.value)).group(1)
    make_plan(costs, budget=parse_bytes(advice.replace("bytes", "B")), **sizes)


@pytest.mark.parametrize("route", list(Route))
def test_the_least_budget_that_is_accepted_holds_the_plan(route: Route) -> None:
    cost = ParameterCost("p", route, 0, entries=10, fixed_bytes=1000.0)
    sizes = {"samples": 40, "positions": 40, "longest": 1, "channels": 6, "graph_bytes_per_cell": 10.0}
    sizes |= {"kernel_bytes": 100, "itemsize": 8, "device_type": "cpu"}
    accepted = 0
    for budget in range(100, 100_000, 97):
        try:
            plan = make_plan([cost], budget=budget, **sizes)
        except InputError:
            continue
        accepted += 1
        assert plan.predicted_peak <= budget
    assert 0 < accepted < 1000


@many
@given(computation=computations())
def test_plans_survive_json(computation: tuple[list[ParameterCost], dict]) -> None:
    costs, sizes = computation
    plan = make_plan(costs, budget=10**10, **sizes)
    assert Plan.from_json(json.loads(json.dumps(asdict(plan)))) == plan


def test_less_memory_means_more_passes() -> None:
    costs = [ParameterCost(f"p{i}", Route.BATCHED, i, position_bytes=1000.0) for i in range(12)]
    sizes = {"samples": 10, "positions": 100, "longest": 10, "channels": 3, "graph_bytes_per_cell": 10.0}
    sizes |= {"kernel_bytes": 100, "itemsize": 4, "device_type": "cpu"}
    counts = [len(make_plan(costs, budget=budget, **sizes).passes) for budget in (250_000, 600_000, 10**8)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3
    assert counts[-1] == 1


class Exhausted:
    """Stands in for a function that runs out of memory the first few times it is called."""

    def __init__(self, function: object, times: int, after: int = 0) -> None:
        self.function, self.left, self.after = function, times, after

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self.after > 0:
            self.after -= 1
        elif self.left > 0:
            self.left -= 1
            raise torch.OutOfMemoryError("no memory")
        return self.function(*args, **kwargs)


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
@pytest.mark.parametrize("function", ["capture", "contract"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_run_goes_on_with_less_memory(name: str, function: str, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    with replanned(max_cells=18):
        expected = compute_ntk(model, rows, precision="float64")
        exhausted = Exhausted(
            getattr(passes, function), times=3, after=after if function == "contract" else min(after, 1)
        )
        monkeypatch.setattr(passes, function, exhausted)
        ntk = compute_ntk(model, rows, precision="float64")
    assert exhausted.left == 0
    assert_close(ntk, expected)


def test_smaller_batches_follow_exhausted_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    capture = passes.capture

    def limited(model: object, parameters: object, batch: object, *rest: object) -> object:
        sizes.append(batch.size * batch.length)
        if sizes[-1] > 20:
            raise torch.OutOfMemoryError("no memory")
        return capture(model, parameters, batch, *rest)

    monkeypatch.setattr(passes, "capture", limited)
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    ntk = compute_ntk(model, rows, precision="float64")
    monkeypatch.undo()
    assert sizes[0] > 20 >= max(sizes[-3:])
    assert_close(ntk, compute_ntk(model, rows, precision="float64"))


@pytest.mark.parametrize("function", ["capture", "contract"])
def test_memory_that_never_suffices_is_an_error(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, function, Exhausted(getattr(passes, function), times=10**9))
    with pytest.raises(torch.OutOfMemoryError):
        compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"]), precision="float64")
