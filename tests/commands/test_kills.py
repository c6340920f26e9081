"""Every command, killed before any change of its folder, comes by the same command to the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.folders import contents
from helpers.kills import kill_at, operations, run_apart
from helpers.tiny_runs import make_place, words_of
from safetensors.torch import load_file

from ntk_lpft.commands.calibrate import main as calibrate
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main as finetune
from ntk_lpft.storage import tensor_digest

pytestmark = pytest.mark.slow
Command = Callable[..., int]

# Of the moments at which a command may be killed, every so many are tried; 1 tries all.
STRIDE = {"compute": 9, "finetune": 29, "calibrate": 11}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """Make a run to calibrate, whose features are in the cache from then on."""
    assert finetune(words_of(place, "--method", "ft", "--num_train_epochs", 1, "--output_dir", place / "run")) == 0
    return place / "run"


def lasting(folder: Path) -> dict[str, object]:
    """Read all that a command left, but for what tells one run of it from another."""
    found: dict[str, object] = {}
    for name, data in contents(folder).items():
        if name.endswith("checksums.json"):
            found[name] = sorted(json.loads(data)["files"])  # of files with times in them
        elif name.endswith(".safetensors"):
            found[name] = tensor_digest(load_file(folder / name))
        elif name.endswith(".json"):
            found[name] = without_times(json.loads(data))
        else:
            found[name] = data
    return found


def without_times(value: object) -> object:
    if isinstance(value, dict):
        apart = {"this_run", "seconds", "resumed_at_step"}
        return {key: without_times(item) for key, item in value.items() if key not in apart}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def check(name: str, command: Command, words: list[object], tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """Kill a command at many moments, run it again, and compare what it leaves with what an uninterrupted run does."""
    log, plain = tmp_path / "log", tmp_path / "plain"
    prepare(plain)
    count = operations(command, [*words, "--output-dir", plain], log, plain)
    expected = lasting(plain)
    for number in range(1, count + 1, STRIDE[name]):
        out = tmp_path / f"at-{number}"
        prepare(out)
        kill_at(command, [*words, "--output-dir", out], log, out, number)
        status = run_apart(command, [*words, "--output-dir", out], log)
        if status == 2 and "give --resume to go on" in log.read_text():
            again = [word for word in words if word != "--overwrite"]
            status = run_apart(command, [*again, "--output-dir", out, "--resume"], log)
        assert status == 0, (number, count, log.read_text())
        found = lasting(out)
        assert {name for name in found if found[name] != expected.get(name)} == set(), (number, count)
        assert found.keys() == expected.keys(), (number, count)


def nothing(folder: Path) -> None:
    """Let the command begin in a folder that is not there."""


def test_compute(place: Path, tmp_path: Path) -> None:
    files = ["--train-file", place / "train.csv", "--test-file", place / "test.csv"]
    words = ["--model", place / "bert", *files, "--n-train", 5, "--n-eval", 3, "--max-length", 20,
             "--head-init", "random", "--no-kernel-classifier", "--memory-budget", "2GiB"]  # fmt: skip
    check("compute", compute, words, tmp_path, nothing)

    def older(folder: Path) -> None:
        assert run_apart(compute, [*words, "--outputs", "pseudo", "--output-dir", folder], tmp_path / "older") == 0

    check("compute", compute, [*words, "--overwrite"], tmp_path / "over", older)


def test_finetune(place: Path, run: Path, tmp_path: Path) -> None:
    words = words_of(place, "--method", "lp-lora", "--num_train_epochs", 1)
    check("finetune", finetune, words, tmp_path, nothing)

    def older(folder: Path) -> None:
        older_words = words_of(place, "--method", "ft", "--num_train_epochs", 1, "--no_track", "--output-dir", folder)
        assert run_apart(finetune, older_words, tmp_path / "older") == 0

    check("finetune", finetune, [*words, "--overwrite"], tmp_path / "over", older)


def test_calibrate(run: Path, tmp_path: Path) -> None:
    words = [run, "--resamples", 40]
    check("calibrate", calibrate, words, tmp_path, nothing)

    def older(folder: Path) -> None:
        assert run_apart(calibrate, [run, "--resamples", 0, "--output-dir", folder], tmp_path / "older") == 0

    check("calibrate", calibrate, [*words, "--overwrite"], tmp_path / "over", older)
