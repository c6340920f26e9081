"""A small, seeded part of the fuzz suite: each malformed input makes a result or one line, and harms nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fuzz.running import Failure, cases, run_case
from fuzz.targets import Target, targets
from fuzz.world import make_world

PART = [(target, number) for target, number in cases(90) if target.world != "suite"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), suite=False)


@pytest.mark.slow
@pytest.mark.unchecked
@pytest.mark.parametrize("name", sorted({target.name for target, _ in PART}))
def test_malformed_inputs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = [run_case(target, number, 0, world, tmp_path / "case") for target, number in PART if target.name == name]
    assert [str(failure) for failure in found if failure is not None] == []


def only(prepare: object) -> Target:
    return Target("made up", 1, "", prepare)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "how"),
    [
        (lambda place: 0, None),
        (lambda place: 3, "status 3 with 0 lines"),
        (lambda place: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda place: (place / "out" / "mine.txt").unlink() or 0, "harmed .*mine.txt"),
        (lambda place: (place / "out" / "model" / "mine.txt").write_text("x") and 0, "harmed .*mine.txt"),
    ],
)
def test_what_is_found(tmp_path: Path, call: object, how: str | None) -> None:
    """The suite would see a traceback, another status, and a file of the user's that is changed or gone."""
    target = only(lambda rng, place: ("nothing", lambda: call(place)))  # type: ignore[operator]
    failure = run_case(target, 0, 0, tmp_path, tmp_path / "case")
    if how is None:
        assert failure is None
    else:
        assert isinstance(failure, Failure)
        assert re.match(how, failure.how)


def test_every_command_is_a_target() -> None:
    names = " ".join(target.name for target in targets())
    for command in ("compute", "finetune", "calibrate", "tables", "claims", "figures", "report", "suite", "functions"):
        assert command in names
