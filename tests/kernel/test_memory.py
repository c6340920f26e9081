"""Plans, and running out of memory."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict

import pytest
import torch
from helpers.agreement import assert_close, replanned
from helpers.zoo import ZOO, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.byte_sizes import parse_bytes
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk, memory, passes
from ntk_lpft.kernel.body_parameters import Route
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.memory import ParameterCost, Plan, Work, make_plan
from ntk_lpft.kernel.tiles import tiles_of

many = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def sizes(draw: st.DrawFn) -> dict:
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
                chunk_bytes=draw(st.sampled_from([0, 60, 2500])),
                flops=draw(st.sampled_from([0.0, 1e6])),
                sample_flops=draw(st.sampled_from([0.0, 1e5])),
            )
        )
    columns, extra = draw(st.integers(1, 60)), draw(st.integers(0, 40))
    channels = draw(st.integers(1, 6))
    layout = Layout(columns, extra, draw(st.booleans()) or not extra, channels, traced=draw(st.booleans()))
    longest = draw(st.integers(1, 128))
    return {
        "costs": costs,
        "layout": layout,
        # As in a setup, each part has its longest first.
        "lengths": [
            length
            for part in (columns, extra)
            for length in sorted((draw(st.integers(1, longest)) for _ in range(part)), reverse=True)
        ],
        "graph_bytes_per_cell": draw(st.sampled_from([0.0, 24.0, 23_000.0])),
        "forward_flops_per_cell": draw(st.sampled_from([0.0, 1e4])),
        "depth": 1 + max(cost.order for cost in costs),
        "kernels": draw(st.integers(1, 20)),
        "kernel_itemsize": draw(st.sampled_from([4, 8])),
        "itemsize": draw(st.sampled_from([4, 8])),
        "device_type": draw(st.sampled_from(["cpu", "cuda"])),
        "threads": draw(st.sampled_from([1, 16])),
    }


def captured_bytes(costs: list[ParameterCost], samples: int, positions: int) -> float:
    """Bytes of what is captured of these parameters; an input that several share is held once."""
    total, inputs = 0.0, {}
    for cost in costs:
        total += cost.fixed_bytes * samples + cost.position_bytes * positions
        if cost.input_key:
            inputs[cost.input_key] = cost.input_position_bytes * positions
    return total + sum(inputs.values())


@many
@given(computation=sizes(), budget=st.integers(10_000, 300_000_000))
def test_plans_are_complete_and_stay_within_the_budget(computation: dict, budget: int) -> None:
    work = Work(**computation)
    try:
        plan = make_plan(work, budget)
    except InputError:
        return
    known, layout = {p.name: p for p in work.costs}, work.layout
    structured = [name for step in plan.passes if step.route != Route.AUTOGRAD for name in step.parameters]
    assert sorted(structured) == sorted(p.name for p in work.costs if p.route != Route.AUTOGRAD)
    slices: dict[str, list[tuple[int, int]]] = {p.name: [] for p in work.costs if p.route == Route.AUTOGRAD}
    columns, rows = (most or layout.samples for most in plan.largest_tile.values())  # none where all is plain autograd
    tiles = [tile for block in tiles_of(layout, columns, rows) for tile in block]
    # Samples of each tile, and their positions without any padding.
    held = [[*range(*tile.columns), *range(*tile.rows)] for tile in tiles]
    extents = [(len(members), sum(work.lengths[i] for i in members)) for members in held]
    largest = 0.0
    for step in plan.passes:
        assert step.parameters
        assert {known[name].route for name in step.parameters} == {step.route}
        if step.route == Route.AUTOGRAD:
            assert len(step.parameters) == len(step.slices)
            for name, piece in zip(step.parameters, step.slices, strict=True):
                slices[name].append(piece)
            entries = sum(end - begin for begin, end in step.slices)
            largest = max(largest, entries * layout.samples * layout.channels * work.itemsize)
        else:
            costs = [known[name] for name in step.parameters]
            largest = max(largest, *(captured_bytes(costs, *size) for size in extents))
    for name, pieces in slices.items():
        covered = [entry for begin, end in pieces for entry in range(begin, end)]
        assert covered == list(range(known[name].entries)), name
    assert plan.max_cells >= max(work.lengths)
    assert plan.chunk_bytes >= max(p.chunk_bytes for p in work.costs) * max(samples for samples, _ in extents)
    graph = plan.max_cells * work.graph_bytes_per_cell
    kernels = work.kernels * math.prod(layout.shape) * work.kernel_itemsize
    block = max(math.prod(tile.layout(layout).shape) for tile in tiles) * work.kernel_itemsize
    assert kernels + block + plan.chunk_bytes + graph + largest - 4 <= plan.predicted_peak <= plan.budget == budget


@many
@given(computation=sizes())
def test_the_recommended_budget_suffices(computation: dict) -> None:
    work = Work(**computation)
    with pytest.raises(InputError, match="too small for one layer") as refusal:
        make_plan(work, 1)
    advice = re.search(r"give at least ([0-9.]+ \w+)", str(refusal.value)).group(1)
    make_plan(work, parse_bytes(advice.replace("bytes", "B")))


def simple(costs: list[ParameterCost], samples: int, length: int, channels: int, itemsize: int = 4) -> Work:
    layout = Layout(samples, 0, symmetric=True, channels=channels)
    return Work(costs, layout, [length] * samples, 10.0, 100.0, len(costs), 1, itemsize, itemsize, "cpu")


@pytest.mark.parametrize("route", list(Route))
def test_the_least_budget_that_is_accepted_holds_the_plan(route: Route) -> None:
    work = simple([ParameterCost("p", route, 0, entries=10, fixed_bytes=1000.0)], 40, 1, 6, itemsize=8)
    accepted = 0
    for budget in range(500_000, 2_500_000, 2003):
        try:
            plan = make_plan(work, budget)
        except InputError:
            continue
        accepted += 1
        assert plan.predicted_peak <= budget
    assert 0 < accepted < 1000


@many
@given(computation=sizes())
def test_plans_survive_json(computation: dict) -> None:
    plan = make_plan(Work(**computation), 10**10)
    assert Plan.from_json(json.loads(json.dumps(asdict(plan)))) == plan


def test_less_memory_means_more_passes() -> None:
    costs = [ParameterCost(f"p{i}", Route.BATCHED, i, position_bytes=1000.0) for i in range(12)]
    work = simple(costs, 10, 10, 3)
    counts = [len(make_plan(work, budget).passes) for budget in (250_000, 600_000, 10**8)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3
    assert counts[-1] == 1


def test_many_samples_are_cut_into_tiles_where_passes_would_cost_more() -> None:
    costs = [ParameterCost(f"p{i}", Route.BATCHED, i, position_bytes=1000.0) for i in range(12)]
    work = simple(costs, 500, 10, 1)
    whole = captured_bytes(costs, 500, 5000)
    plan = make_plan(work, int(0.2 * whole))
    assert plan.largest_tile["columns"] < 500
    assert plan.capture_flops < make_plan_of_one_tile(work, int(0.2 * whole)).capture_flops
    assert make_plan(work, int(3 * whole)).largest_tile["columns"] == 500


def make_plan_of_one_tile(work: Work, budget: int) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_grids", lambda layout: [(layout.columns, layout.samples)])
        return make_plan(work, budget)


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
