"""Kernels whose computation is killed and goes on."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_identical, least_budget
from helpers.zoo import ZOO, ragged_rows
from peft.tuners.lora import LoraLayer
from torch import nn

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import KernelSettings, NTKDecomposition, compute_ntk, compute_train_eval_ntk, passes
from ntk_lpft.kernel import checkpoint as checkpoints
from ntk_lpft.kernel.body_parameters import BodyParameter
from ntk_lpft.kernel.checkpoint import Checkpoint, Progress
from ntk_lpft.kernel.memory import Plan

pytestmark = pytest.mark.slow

ENTRY = ZOO["bert"]

# A process that forks another for each line of its input. Each of those can be killed: its passes and writes take a
# little longer than they need.
SERVER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import conftest
from helpers.zoo import ZOO, ragged_rows
from ntk_lpft import storage
from ntk_lpft.kernel import checkpoint as checkpoints, compute_ntk, passes

def slowed(function, delay):
    def slow(*args, **kwargs):
        time.sleep(delay)
        returned = function(*args, **kwargs)
        print(function.__name__, flush=True)
        time.sleep(delay)
        return returned
    return slow

def compute(checkpoint, result, budget, delay):
    passes.PassRunner._structured_pass = slowed(passes.PassRunner._structured_pass, float(delay))
    storage.save_file = slowed(storage.save_file, float(delay))  # after it the new file is there, not yet in place
    checkpoints.write_tensors = slowed(checkpoints.write_tensors, float(delay))
    print("started", os.getpid(), flush=True)
    ntk = compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"]), precision="float64", memory_budget=int(budget),
                      checkpoint=checkpoint)
    ntk.save(result)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        compute(*line.split())
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Runs computations in processes of their own, one at a time, and kills them."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parents[1])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, folder: Path, delay: float) -> int:
        """Start a computation and return the number of its process."""
        partial, result = folder / "partial.safetensors", folder / "ntk.safetensors"
        self.process.stdin.write(f"{partial} {result} {budget()} {delay}\n")
        self.process.stdin.flush()
        return int(self.wait_for("started"))

    def wait_for(self, word: str, times: int = 1) -> str:
        """Read on until the process has said a word so many times; return what stands behind it."""
        for line in self.process.stdout:
            said, _, rest = line.strip().partition(" ")
            assert said != "ended" or word == "ended", f"the computation ended before it said {word}"
            times -= said == word
            if times == 0:
                return rest
        raise AssertionError("the server ended")

    def kill(self, pid: int) -> int:
        """Kill a computation, if it still runs, and return the exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return int(self.wait_for("ended"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.process.stdin.close()
    running.process.stdout.close()
    assert running.process.wait() == 0


@functools.cache
def budget() -> int:
    """Return a memory budget that makes several passes necessary."""
    return int(1.2 * least_budget(ENTRY.build(), ragged_rows(ENTRY), precision="float64"))


def exact(model: nn.Module | None = None, rows: list | None = None, **options: object) -> NTKDecomposition:
    model, rows = model or ENTRY.build(), rows or ragged_rows(ENTRY)
    return compute_ntk(model, rows, **{"precision": "float64", "memory_budget": budget(), **options})


@pytest.mark.parametrize(
    ("word", "times", "left_over"),
    [("_structured_pass", 2, False), ("save_file", 1, True), ("save_file", 3, True), ("write_tensors", 2, False)],
)
def test_a_run_killed_at_a_known_moment_goes_on(
    word: str, times: int, left_over: bool, tmp_path: Path, server: Server
) -> None:
    checkpoint = tmp_path / "partial.safetensors"
    pid = server.start(tmp_path, delay=0.15)
    server.wait_for(word, times)
    assert server.kill(pid) == -signal.SIGKILL
    assert bool([path for path in tmp_path.iterdir() if path != checkpoint]) == left_over
    done = {"_structured_pass": times - 1, "save_file": times - 1, "write_tensors": times}[word]
    assert checkpoint.exists() == (done > 0)
    resumed, plain = exact(checkpoint=checkpoint), exact()
    assert resumed.metadata["this_run"]["resumed_after_passes"] == done
    assert resumed.metadata["plan"] == plain.metadata["plan"]
    assert resumed.metadata["plan"]["passes"] > times
    assert_identical(resumed, plain)


def test_a_run_killed_again_and_again_at_random_moments_goes_on(tmp_path: Path, server: Server) -> None:
    checkpoint = tmp_path / "partial.safetensors"
    moments = [random.Random(time.time_ns()).uniform(0, 0.8) for _ in range(4)]
    for moment in moments:
        pid = server.start(tmp_path, delay=0.04)
        time.sleep(moment)
        assert server.kill(pid) in (0, -signal.SIGKILL)
    final = exact(checkpoint=checkpoint)
    plain = exact()
    assert plain.metadata["plan"]["passes"] >= 3
    different = [name for name in plain.ft_groups if not torch.equal(final.ft_groups[name], plain.ft_groups[name])]
    assert not different, f"killed at {moments}: other bits in {different}"
    assert_identical(final, plain)


def interrupted(path: Path, **options: object) -> int:
    """Leave a checkpoint after two passes; return how many passes were done."""
    calls = []
    original = passes.PassRunner._structured_pass

    def stops(self: passes.PassRunner, *args: object) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(0)
        original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes.PassRunner, "_structured_pass", stops)
        with pytest.raises(KeyboardInterrupt):
            exact(checkpoint=path, **options)
    return len(calls)


@pytest.mark.parametrize("engine", ["structured", "rerouted"])
def test_a_run_goes_on_within_a_pass(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before each parameter of the one pass in turn, it never does a parameter again that was stored."""
    path, contracted = tmp_path / "partial.safetensors", []
    name = {"structured": "_contract", "rerouted": "_by_autograd"}[engine]
    original, capture = getattr(passes.PassRunner, name), passes.PassRunner._capture
    if engine == "rerouted":  # as if no rule held for the samples
        nothing = lambda *args: passes.Captured(dict.fromkeys((found := capture(*args)).records), found.outputs)  # noqa: E731
        monkeypatch.setattr(passes.PassRunner, "_capture", nothing)
    plain = exact(memory_budget="1GiB")
    assert plain.metadata["plan"]["passes"] == 1

    def stops(self: passes.PassRunner, parameter: BodyParameter, *args: object) -> bool | None:
        if contracted and contracted[-1] == parameter.name:
            raise AssertionError("done again")
        if stopped[0]:
            raise KeyboardInterrupt
        added = original(self, parameter, *args)
        contracted.append(parameter.name)
        stopped[0] = True
        return added

    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_LARGEST_SHARE", 1e9)
    monkeypatch.setattr(passes.PassRunner, name, stops)
    for _ in range(1000):
        stopped = [False]
        try:
            final = exact(memory_budget="1GiB", checkpoint=path)
            break
        except KeyboardInterrupt:
            continue
    assert len(contracted) == len(set(contracted)) > 10
    assert final.metadata["this_run"]["resumed_after_passes"] == 0
    assert final.metadata["this_run"]["resumed_after_parameters"] > 10
    assert_identical(final, plain)
    apart = ("this_run",)
    assert {k: v for k, v in final.metadata.items() if k not in apart} == {
        k: v for k, v in plain.metadata.items() if k not in apart}  # fmt: skip


def test_within_a_pass_little_time_goes_into_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])

    def writes(*_: object) -> None:
        clock[0] += 2.0

    monkeypatch.setattr(checkpoints, "write_tensors", writes)
    store, plan = Checkpoint(tmp_path / "partial.safetensors", {}), Plan([], 1, 1, 1, 1)
    clock[0] = 9.9
    assert not store.due
    clock[0] = 10.0
    assert store.due
    store.save(Progress(), plan, {})  # takes two seconds
    clock[0] += 39.9
    assert not store.due
    clock[0] += 0.1
    assert store.due
    assert not Checkpoint(None, {}).due


def other_weights() -> nn.Module:
    model = ENTRY.build()
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.bias[3] += 1e-9
    return model


def frozen() -> nn.Module:
    model = ENTRY.build()
    model.bert.embeddings.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"outputs": "pseudo"}, "outputs"),
        ({"groups": False}, "groups"),
        ({"precision": "float32"}, "precision"),
        ({"engine": "per_example"}, "engine"),
        ({"memory_budget": "1GiB"}, "memory_budget"),
        ({"rows": ragged_rows(ENTRY, seed=9)}, "columns_sha256"),
        ({"rows": ragged_rows(ENTRY)[::-1]}, "columns_sha256"),
        ({"model": other_weights()}, "weights_sha256"),
        ({"model": frozen()}, "trainable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_computation_is_refused(changes: dict, named: str, tmp_path: Path) -> None:
    path = tmp_path / "partial.safetensors"
    assert interrupted(path) == 2
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"changed: {named}\)"):
        exact(checkpoint=path, **changes)
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "partial.safetensors"
    rows, settings = ragged_rows(ENTRY), KernelSettings(precision="float64")
    compute_train_eval_ntk(ENTRY.build(), rows, rows[:2], settings=settings, checkpoint=path)
    with pytest.raises(InputError, match=r"changed: extra_sha256\)"):
        compute_train_eval_ntk(ENTRY.build(), rows, rows[:3], settings=settings, checkpoint=path)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    """Equal weights do not make equal models: a LoRA adapter's scaling is no weight."""
    entry, path = ZOO["bert-lora"], tmp_path / "partial.safetensors"
    model, rows = entry.build(), ragged_rows(entry)
    compute_ntk(model, rows, precision="float64", checkpoint=path)
    scaled = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert scaled
    for module in scaled:
        module.scaling["default"] *= 2
    with pytest.raises(InputError, match="changed"):
        compute_ntk(model, rows, precision="float64", checkpoint=path)


@pytest.mark.parametrize("damage", ["half", "empty", "bit", "text", "foreign"])
def test_damaged_checkpoints_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "partial.safetensors"
    interrupted(path)
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-5] ^= 4
    if damage == "text":
        content = bytearray(bytes(content).replace(b'\\"done\\": 2', b'\\"done\\": 1'))
        assert content != path.read_bytes()
    if damage == "foreign":
        content = bytearray(b'{"some": "json"}')
    path.write_bytes({"half": content[: len(content) // 2], "empty": b""}.get(damage, bytes(content)))
    with pytest.raises(InputError, match=r"partial\.safetensors"):
        exact(checkpoint=path)


def test_a_checkpoint_survives_an_exception_while_it_is_replaced(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "partial.safetensors"
    interrupted(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        exact(checkpoint=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("engine", ["structured", "per_example"])
def test_a_finished_checkpoint_gives_the_kernel_at_once(engine: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "partial.safetensors"
    first = exact(checkpoint=path, engine=engine)
    for name in ("_structured_pass", "_dense_pass"):
        monkeypatch.setattr(passes.PassRunner, name, lambda *_: pytest.fail("a pass was done again"))
    again = exact(checkpoint=path, engine=engine)
    assert_identical(again, first)
    assert first.metadata["this_run"]["resumed_after_passes"] == 0
    assert again.metadata["this_run"]["resumed_after_passes"] == again.metadata["plan"]["passes"]


def test_the_budget_left_to_the_machine_may_change_between_runs(tmp_path: Path) -> None:
    """Free memory differs from run to run; the plan that was begun is carried on."""
    path = tmp_path / "partial.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ntk_lpft.kernel.engine.default_budget", lambda *_: budget())
        assert interrupted(path, memory_budget=None) == 2
    resumed = exact(checkpoint=path, memory_budget=None)
    assert resumed.metadata["this_run"]["resumed_after_passes"] == 2
    assert_identical(resumed, exact())


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Checkpoint(None, {"a": 1})
    assert store.pieces() == []
    exact()
    assert list(tmp_path.iterdir()) == []
    assert json.loads(json.dumps(store.identity)) == {"a": 1}
