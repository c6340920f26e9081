"""Several processes at work on one kernel."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.agreement import assert_agrees_with_referee, assert_close, assert_identical
from helpers.kernel_processes import KernelProcesses
from helpers.zoo import ZOO, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition, compute_ntk, compute_train_eval_ntk
from ntk_lpft.kernel.body_parameters import Route
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.memory import ParameterCost, Work
from ntk_lpft.kernel.processes import shares
from ntk_lpft.kernel.settings import KernelSettings

many = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[KernelProcesses]:
    running = KernelProcesses()
    yield running
    running.close()


def parts(path: Path) -> dict[str, NTKDecomposition]:
    return {part: NTKDecomposition.load(path, part) for part in ("train", "eval")}


def alone(name: str = "bert", **options: object) -> dict[str, NTKDecomposition]:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name], n=7)
    chosen = KernelSettings(**{"precision": "float64", **options})
    return compute_train_eval_ntk(model, rows[:5], rows[5:], settings=chosen)


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "albert", "gpt2"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_kernel_is_that_of_one_process(name: str, count: int, tmp_path: Path, processes: KernelProcesses) -> None:
    processes.start(count, tmp_path, name=name, checkpoint=False)
    assert processes.wait() == [0] * count
    expected = alone(name)
    results = [parts(tmp_path / f"{rank}.safetensors") for rank in range(count)]
    for part in ("train", "eval"):
        assert_close(results[0][part], expected[part])
        for other in results[1:]:
            assert_identical(other[part], results[0][part])
        assert results[0][part].metadata["plan"]["processes"] == count
    rows = ragged_rows(ZOO[name], n=7)
    attention = "sdpa" if ZOO[name].build()._supports_sdpa else "eager"
    assert_agrees_with_referee(results[0]["eval"], ZOO[name].build(), rows[5:], rows[:5], attention=attention)


@pytest.mark.parametrize("outputs", ["class_trace", "pseudo"])
@pytest.mark.parametrize("engine", ["structured", "per_example"])
def test_outputs_and_engines(outputs: str, engine: str, tmp_path: Path, processes: KernelProcesses) -> None:
    options = {"outputs": outputs, "engine": engine, "precision": "float64", "groups": engine == "structured"}
    processes.start(2, tmp_path, settings=options, plan={"columns": 2, "rows": 2})
    assert processes.wait() == [0, 0]
    expected = alone(**options)
    for part, found in parts(tmp_path / "0.safetensors").items():
        assert_close(found, expected[part])


def test_more_processes_than_there_is_work(tmp_path: Path, processes: KernelProcesses) -> None:
    processes.start(4, tmp_path, name="t5")
    assert processes.wait() == [0] * 4
    assert_close(parts(tmp_path / "3.safetensors")["train"], alone("t5")["train"])


CHANGES = [("bert", *change) for change in [(2, 3), (3, 1), (1, 2), (2, 2), (4, 2)]]


@pytest.mark.parametrize(("name", "count", "then"), [*CHANGES, ("deberta-v2", 2, 1), ("deberta-v2", 1, 3)])
@pytest.mark.parametrize("plan", [{}, {"columns": 2, "rows": 3}], ids=["whole", "tiles"])
def test_a_run_goes_on_with_other_processes(
    name: str, count: int, then: int, plan: dict[str, int], tmp_path: Path, processes: KernelProcesses
) -> None:
    """Killed again and again at random moments, each time with another number of processes."""
    moments = random.Random(time.time_ns())
    told = []
    for number in (count, then, count):
        processes.start(number, tmp_path, name=name, plan=plan, delay=0.01)
        told.append((number, moments.uniform(0.2, 1.5), moments.randrange(number)))
        time.sleep(told[-1][1])
        processes.kill(told[-1][2])
        processes.wait()
    processes.start(then, tmp_path, name=name, plan=plan)
    assert processes.wait() == [0] * then, told
    expected = alone(name)
    for rank in range(then):
        for part, found in parts(tmp_path / f"{rank}.safetensors").items():
            assert_close(found, expected[part])
    # Once everything is done, each goes on from what it has, and gives the same at once.
    before = parts(tmp_path / "0.safetensors")
    processes.start(then, tmp_path, name=name, plan=plan)
    assert processes.wait() == [0] * then
    assert_identical(parts(tmp_path / "0.safetensors")["train"], before["train"])


def test_one_that_is_refused_stops_the_others(tmp_path: Path, processes: KernelProcesses) -> None:
    sound, tight = {"precision": "float64"}, {"precision": "float64", "memory_budget": 1000}
    processes.start(2, tmp_path, settings=[sound, {"precision": "float32"}])
    assert processes.wait() == [2, 2]
    assert "were given different models, samples or settings" in processes.refusals[0]
    assert "process 1 of 2 failed while comparing what they were given" in processes.refusals[1]
    processes.start(2, tmp_path, settings=tight)
    assert processes.wait() == [2, 2]
    assert "too small for one layer" in processes.refusals[0]
    assert "process 1 of 2 failed" in processes.refusals[1]


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_one_that_fails_alone_stops_the_others(fails: int, tmp_path: Path, processes: KernelProcesses) -> None:
    processes.start(3, tmp_path, fails=fails)
    assert processes.wait() == [2, 2, 2]
    assert processes.refusals.pop(fails) == "this process alone fails"
    told = f"process {fails + 1} of 3 failed while checking the model; see what it says"
    assert list(processes.refusals.values()) == [told, told]


@pytest.mark.unchecked
def test_what_is_no_process_group_is_refused() -> None:
    with pytest.raises(InputError, match="there is no process group yet"):
        compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"]), process_group=object())


@st.composite
def works(draw: st.DrawFn) -> dict:
    numbers = range(draw(st.integers(0, 12)))
    orders = [draw(st.integers(0, 8)) for _ in numbers]
    costs = [
        ParameterCost(f"p{i}", Route.BATCHED, orders[i], flops=draw(st.floats(0, 1e9)), sample_flops=1e3)
        for i in numbers
    ]
    layout = Layout(draw(st.integers(1, 9)), 0, symmetric=True, channels=draw(st.integers(1, 3)))
    flops = draw(st.sampled_from([0.0, 1e5, 1e8]))
    return {"costs": costs, "layout": layout, "flops": flops}


@many
@given(given_=works(), count=st.integers(1, 5))
def test_shares_are_complete_in_order_and_even(given_: dict, count: int) -> None:
    costs, layout = given_["costs"], given_["layout"]
    work = Work(costs, layout, [3] * layout.samples, 0.0, given_["flops"], 9, 1, 8, 8, "cpu")
    found = shares(work, count)
    assert len(found) == count
    assert [cost for share in found for cost in share] == sorted(costs, key=lambda cost: cost.order)

    def time_of(share: list[ParameterCost]) -> float:
        return sum(map(work.products_of, share)) + (work.capture_of(share[0].order) if share else 0.0)

    # As even as whole parameters allow: no process does more than a fair share and the largest of its pieces.
    most = max(map(time_of, found))
    fair = sum(map(work.products_of, costs)) / count
    largest = max(map(work.products_of, costs), default=0.0)
    assert most <= fair + largest + (work.capture_of(0) if costs else 0.0) + 1e-6 * (1 + most)
