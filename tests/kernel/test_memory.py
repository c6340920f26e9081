"""Amounts of memory, plans, and running out of memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from agreement import assert_close, replanned
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import ZOO, ragged_rows

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk, run
from ntk_lpft.kernel.memory import Plan, SiteProfile, default_budget, format_bytes, make_plan, parse_bytes
from ntk_lpft.kernel.sites import Route

many = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        (4096, 4096),
        ("4GiB", 4 * 2**30),
        ("500MB", 500 * 10**6),
        (" 1.5 kib ", 1536),
        (".5GB", 5 * 10**8),
        ("12b", 12),
        ("3Mib", 3 * 2**20),
        ("7kB", 7000),
    ],
)
def test_amounts_are_read(text: str | int, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GiB", "4 apples", "-4GiB", "0", "0.4", "1e9", "4GiB 2", "nan", "1,5GiB"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="memory budget"):
        parse_bytes(text)


@many
@given(st.integers(1, 2**42))
def test_written_amounts_can_be_read_again(amount: int) -> None:
    text = format_bytes(amount)
    assert parse_bytes(text.replace("bytes", "B")) == pytest.approx(amount, rel=6e-3)


def test_the_default_budget_leaves_memory_to_others() -> None:
    free = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert 0 < default_budget(torch.device("cpu")) < 0.5 * 1024 * int(free.group(1))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[SiteProfile], dict]:
    """Random sites, some of which share inputs, and the sizes of a problem."""
    profiles = []
    for number in range(draw(st.integers(1, 9))):
        route = draw(st.sampled_from(list(Route)))
        if route == Route.AUTOGRAD:
            profiles.append(SiteProfile(f"p{number}", route, 0, entries=draw(st.integers(1, 5000))))
            continue
        key = draw(st.sampled_from(["", "", "a", "b"]))
        profiles.append(
            SiteProfile(
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
    return profiles, sizes


def captured_bytes(profiles: list[SiteProfile], sizes: dict) -> float:
    """Bytes of what is captured of these sites; an input that several share is held once."""
    total, inputs = 0.0, {}
    for profile in profiles:
        total += profile.fixed_bytes * sizes["samples"] + profile.position_bytes * sizes["positions"]
        if profile.input_key:
            inputs[profile.input_key] = profile.input_position_bytes * sizes["positions"]
    return total + sum(inputs.values())


@many
@given(problem=problems(), budget=st.integers(10_000, 300_000_000))
def test_plans_are_complete_and_stay_within_the_budget(problem: tuple[list[SiteProfile], dict], budget: int) -> None:
    profiles, sizes = problem
    try:
        plan = make_plan(profiles, budget=budget, **sizes)
    except InputError:
        return
    known = {p.name: p for p in profiles}
    structured = [name for step in plan.passes if step.route != Route.AUTOGRAD for name in step.sites]
    assert sorted(structured) == sorted(p.name for p in profiles if p.route != Route.AUTOGRAD)
    slices: dict[str, list[tuple[int, int]]] = {p.name: [] for p in profiles if p.route == Route.AUTOGRAD}
    largest = 0.0
    for step in plan.passes:
        assert step.sites
        assert {known[name].route for name in step.sites} == {step.route}
        if step.route == Route.AUTOGRAD:
            assert len(step.sites) == len(step.slices)
            for name, piece in zip(step.sites, step.slices, strict=True):
                slices[name].append(piece)
            entries = sum(end - begin for begin, end in step.slices)
            largest = max(largest, entries * sizes["samples"] * sizes["channels"] * sizes["itemsize"])
        else:
            largest = max(largest, captured_bytes([known[name] for name in step.sites], sizes))
    for name, pieces in slices.items():
        covered = [entry for begin, end in pieces for entry in range(begin, end)]
        assert covered == list(range(known[name].entries)), name
    assert plan.max_cells >= sizes["longest"]
    assert plan.chunk_bytes >= max(p.chunk_bytes for p in profiles)
    graph = plan.max_cells * sizes["graph_bytes_per_cell"]
    held = sizes["kernel_bytes"] + plan.chunk_bytes + graph + largest
    assert held - 4 <= plan.predicted_peak <= plan.budget == budget
    assert plan.predicted_peak <= held + 4


@many
@given(problem=problems())
def test_the_recommended_budget_suffices(problem: tuple[list[SiteProfile], dict]) -> None:
    profiles, sizes = problem
    with pytest.raises(InputError, match="too small for one layer") as refusal:
        make_plan(profiles, budget=50, **sizes)
    advice = re.search(r"give at least ([0-9.]+ \w+)", str(refusal.value)).group(1)
    make_plan(profiles, budget=parse_bytes(advice.replace("bytes", "B")), **sizes)


@pytest.mark.parametrize("route", list(Route))
def test_the_least_budget_that_is_accepted_holds_the_plan(route: Route) -> None:
    profile = SiteProfile("p", route, 0, entries=10, fixed_bytes=1000.0)
    sizes = {"samples": 40, "positions": 40, "longest": 1, "channels": 6, "graph_bytes_per_cell": 10.0}
    sizes |= {"kernel_bytes": 100, "itemsize": 8, "device_type": "cpu"}
    accepted = 0
    for budget in range(100, 100_000, 97):
        try:
            plan = make_plan([profile], budget=budget, **sizes)
        except InputError:
            continue
        accepted += 1
        assert plan.predicted_peak <= budget
    assert 0 < accepted < 1000


@many
@given(problem=problems())
def test_plans_survive_json(problem: tuple[list[SiteProfile], dict]) -> None:
    profiles, sizes = problem
    plan = make_plan(profiles, budget=10**10, **sizes)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_less_memory_means_more_passes() -> None:
    profiles = [SiteProfile(f"p{i}", Route.BATCHED, i, position_bytes=1000.0) for i in range(12)]
    sizes = {"samples": 10, "positions": 100, "longest": 10, "channels": 3, "graph_bytes_per_cell": 10.0}
    sizes |= {"kernel_bytes": 100, "itemsize": 4, "device_type": "cpu"}
    passes = [len(make_plan(profiles, budget=budget, **sizes).passes) for budget in (250_000, 600_000, 10**8)]
    assert passes == sorted(passes, reverse=True)
    assert len(set(passes)) == 3
    assert passes[-1] == 1


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
        exhausted = Exhausted(getattr(run, function), times=3, after=after if function == "contract" else min(after, 1))
        monkeypatch.setattr(run, function, exhausted)
        found = compute_ntk(model, rows, precision="float64")
    assert exhausted.left == 0
    assert_close(found, expected)


def test_smaller_batches_follow_exhausted_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    capture = run.capture

    def limited(model: object, sites: object, batch: object, *rest: object) -> object:
        sizes.append(batch.size * batch.length)
        if sizes[-1] > 20:
            raise torch.OutOfMemoryError("no memory")
        return capture(model, sites, batch, *rest)

    monkeypatch.setattr(run, "capture", limited)
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    found = compute_ntk(model, rows, precision="float64")
    monkeypatch.undo()
    assert sizes[0] > 20 >= max(sizes[-3:])
    assert_close(found, compute_ntk(model, rows, precision="float64"))


@pytest.mark.parametrize("function", ["capture", "contract"])
def test_memory_that_never_suffices_is_an_error(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, function, Exhausted(getattr(run, function), times=10**9))
    with pytest.raises(torch.OutOfMemoryError):
        compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"]), precision="float64")
