"""The state of training on disk: whole or refused, exact, and without pickles."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bit_flips import FLIPS, flipped, restored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.checkpoint import (
    OPTIMIZER,
    SCHEDULE,
    TRAINER_STATE,
    WEIGHTS,
    checkpoint_step,
    last_checkpoint,
    load_state,
    load_weights,
    random_file,
    random_state,
    remove_checkpoints,
    remove_oldest,
    save_state,
    save_weights,
    seal_checkpoint,
    set_random_state,
    unseal_checkpoint,
)
from ntk_lpft.storage import write_tensors

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), TEXTS)
TREES = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(TEXTS, st.integers(-(2**60), 2**60)), inner, max_size=3),
    ),
    max_leaves=12,
)


def equal(one: Any, two: Any) -> bool:
    """Equal in type, value and bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(equal, one, two))
    return type(one) is type(two) and (one == two or (one != one and two != two))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_nested_state_comes_back_as_it_was(tmp_path: Path, tree: Any) -> None:
    state = {"tree": tree, 3: [torch.arange(4), {"deep": torch.tensor(0.1, dtype=torch.float64)}], "none": math.inf}
    save_state(tmp_path / "state.safetensors", state)
    assert equal(load_state(tmp_path / "state.safetensors"), state)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_goes_on_bit_by_bit(tmp_path: Path, kind: type[torch.optim.Optimizer]) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = kind(model.parameters(), lr=0.1)
        return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def step(model: nn.Module, optimizer: Any, schedule: Any, seed: int) -> None:
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()
        schedule.step()

    model, optimizer, schedule = build()
    for seed in range(3):
        step(model, optimizer, schedule, seed)
    save_weights(tmp_path / "w.safetensors", model)
    save_state(tmp_path / "o.safetensors", optimizer.state_dict())
    save_state(tmp_path / "s.safetensors", schedule.state_dict())
    other, fresh, plan = build()
    load_weights(tmp_path / "w.safetensors", other)
    fresh.load_state_dict(load_state(tmp_path / "o.safetensors"))
    plan.load_state_dict(load_state(tmp_path / "s.safetensors"))
    for seed in range(3, 6):
        step(model, optimizer, schedule, seed)
        step(other, fresh, plan, seed)
    assert equal(dict(model.state_dict()), dict(other.state_dict()))
    assert equal(optimizer.state_dict(), fresh.state_dict())


def test_numbers_of_numpy_become_plain_ones(tmp_path: Path) -> None:
    save_state(tmp_path / "s.safetensors", {"best": np.float64(0.1), "step": np.int64(3)})
    assert load_state(tmp_path / "s.safetensors") == {"best": 0.1, "step": 3}


def test_what_only_pickle_could_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"optimizer\.a\.b is a function.*another optimizer"):
        save_state(tmp_path / "optimizer.safetensors", {"a": {"b": lambda: None}})


def test_all_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    np.random.normal()  # leaves a second one in numpy's state
    save_state(tmp_path / "random.safetensors", random_state())
    expected = [draws(), draws()]
    assert draws() not in expected
    set_random_state(load_state(tmp_path / "random.safetensors"))
    assert [draws(), draws()] == expected


def test_weights_are_those_that_train(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    save_weights(tmp_path / "w.safetensors", model)
    assert set(load_file(tmp_path / "w.safetensors")) == {"1.weight", "1.bias"}


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"w\.safetensors holds other parameters .* --overwrite"):
        load_weights(tmp_path / "w.safetensors", nn.Sequential(nn.Linear(2, 2)))


def test_weights_must_have_the_models_shapes_and_dtypes(tmp_path: Path) -> None:
    """Not even a row that could stand for all, or a number of another kind, is taken."""
    model = nn.Linear(3, 2)
    for altered in ({"weight": torch.ones(1, 3)}, {"bias": torch.ones(1)}, {"weight": torch.ones(2, 3).double()}):
        write_tensors(tmp_path / "w.safetensors", {**dict(model.named_parameters()), **altered}, {})
        before = model.weight.detach().clone()
        with pytest.raises(InputError, match=r"w\.safetensors holds (weight|bias) as .* of shape .*--overwrite"):
            load_weights(tmp_path / "w.safetensors", model)
        assert torch.equal(model.weight, before)


@pytest.mark.parametrize("length", [0, 7, 60])
def test_damaged_files_are_named(tmp_path: Path, length: int) -> None:
    file = tmp_path / "checkpoint-4" / WEIGHTS
    file.parent.mkdir()
    for write, read in (
        (lambda: save_weights(file, nn.Linear(2, 2)), lambda: load_weights(file, nn.Linear(2, 2))),
        (lambda: save_state(file, {"a": torch.ones(2)}), lambda: load_state(file)),
    ):
        write()
        file.write_bytes(file.read_bytes()[:length])
        with pytest.raises(InputError, match=r"weights\.safetensors is missing, damaged or was altered; delete .*-4 "):
            read()


def make_checkpoint(folder: Path, step: int, best: Path | None = None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    torch.manual_seed(step)
    save_weights(path / WEIGHTS, nn.Linear(2, 2))
    for name in (OPTIMIZER, SCHEDULE):
        save_state(path / name, {"step": step, "moments": [torch.rand(3), 0.1]})
    save_state(random_file(path, 0), random_state())
    state = {"global_step": step, "max_steps": 12, "best_model_checkpoint": None if best is None else str(best)}
    (path / "trainer_state.json").write_text(json.dumps(state))
    seal_checkpoint(path)
    return path


def everything(checkpoint: Path) -> Any:
    """Read all of a checkpoint, as training does that goes on from it."""
    assert last_checkpoint(checkpoint.parent) == checkpoint
    model = nn.Linear(2, 2)
    load_weights(checkpoint / WEIGHTS, model)
    states = [load_state(checkpoint / name) for name in (OPTIMIZER, SCHEDULE)]
    set_random_state(load_state(random_file(checkpoint, 0)))
    return dict(model.state_dict()), states, float(torch.rand(())), json.loads((checkpoint / TRAINER_STATE).read_text())


@pytest.mark.parametrize(
    "name", [WEIGHTS, OPTIMIZER, SCHEDULE, "random-0.safetensors", "trainer_state.json", "checksums.json"]
)
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path, name: str) -> None:
    checkpoint = make_checkpoint(tmp_path, 8)
    refused = flipped(checkpoint / name, lambda: everything(checkpoint))
    assert refused > (0.5 if name == "checksums.json" else 0.99) * FLIPS
    (checkpoint / name).unlink()
    if name == "checksums.json":
        assert last_checkpoint(tmp_path) is None  # half of one
    else:
        with pytest.raises(InputError, match=rf"{name} is gone; delete \S+checkpoint-8 to go on from an earlier"):
            last_checkpoint(tmp_path)


def test_files_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    one, other = make_checkpoint(tmp_path / "a", 8), make_checkpoint(tmp_path / "b", 9)
    for name in (WEIGHTS, OPTIMIZER, SCHEDULE, "trainer_state.json"):
        with restored(one / name):
            shutil.copy(other / name, one / name)
            with pytest.raises(InputError, match=rf"{name} was altered after it was written .* delete"):
                last_checkpoint(tmp_path / "a")


@pytest.mark.parametrize(
    "changes", [{"global_step": 9}, {"global_step": 10**9}, {"global_step": None}, {"max_steps": 7}, {"max_steps": "x"}]
)
def test_steps_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    checkpoint = make_checkpoint(tmp_path, 8)
    state = json.loads((checkpoint / TRAINER_STATE).read_text())
    (checkpoint / TRAINER_STATE).write_text(json.dumps({**state, **changes}))
    seal_checkpoint(checkpoint)
    with pytest.raises(InputError, match=r"trainer_state\.json says step .* of .*, which cannot be; delete"):
        last_checkpoint(tmp_path)


def files_of(path: Path) -> Iterator[str]:
    return (inside.name for inside in path.iterdir())


def test_the_last_checkpoint_is_the_one_of_most_steps(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step in (9, 10, 2):
        make_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-of-mine").mkdir()
    (tmp_path / "runs").mkdir()
    found = last_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint-10"
    assert checkpoint_step(found) == 10
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-2", "checkpoint-9", "checkpoint-10", "checkpoint-of-mine", "runs"}  # fmt: skip


def test_half_a_checkpoint_is_removed(tmp_path: Path) -> None:
    """Of a run killed while it wrote one, or removed one."""
    whole = make_checkpoint(tmp_path, 4)
    half = make_checkpoint(tmp_path, 8)
    unseal_checkpoint(half)
    assert last_checkpoint(tmp_path) == whole
    assert not half.exists()


def test_a_removed_checkpoint_loses_its_checksums_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(tmp_path, 4)
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: (path / WEIGHTS).unlink())  # killed after the first file
    remove_checkpoints(tmp_path)
    monkeypatch.undo()
    assert checkpoint.exists()
    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, {2, 4, 6, 8}),
        (0, None, {2, 4, 6, 8}),
        (3, None, {4, 6, 8}),
        (1, None, {8}),
        (1, 4, {4, 8}),
        (2, 4, {4, 8}),
        (3, 2, {2, 6, 8}),
        (2, 8, {6, 8}),
        (9, 2, {2, 4, 6, 8}),
    ],
)
def test_the_oldest_are_removed_but_neither_the_last_nor_the_best(
    tmp_path: Path, limit: int | None, best: int | None, left: set[int]
) -> None:
    for step in (2, 4, 6, 8):
        make_checkpoint(tmp_path, step)
    remove_oldest(tmp_path, limit, None if best is None else f"elsewhere/checkpoint-{best}")
    assert {checkpoint_step(path) for path in tmp_path.iterdir()} == left


def test_checkpoints_are_removed_and_logs_stay(tmp_path: Path) -> None:
    remove_checkpoints(tmp_path / "none")
    make_checkpoint(tmp_path / "one", 4)
    remove_checkpoints(tmp_path / "one")
    assert not (tmp_path / "one").exists()
    make_checkpoint(tmp_path / "two", 4)
    (tmp_path / "two" / "runs").mkdir()
    remove_checkpoints(tmp_path / "two")
    assert list(files_of(tmp_path / "two")) == ["runs"]
