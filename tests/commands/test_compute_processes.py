"""The compute command in several processes, started as launchers start it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.small import examples, save_csv, save_jsonl, save_model

from ntk_lpft import NTKDecomposition
from ntk_lpft.runs import KernelRun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "bert")
    save_csv(folder / "train.csv", examples(40))
    save_jsonl(folder / "eval.jsonl", examples(9, seed=1))
    given = ["--model", folder / "bert", "--train-file", folder / "train.csv", "--test-file", folder / "eval.jsonl",
             "--max-length", 20, "--n-train", 7, "--n-eval", 4, "--no-kernel-classifier"]  # fmt: skip
    return [str(word) for word in given]


def launch(count: int, words: list[str]) -> list[tuple[int, str, str]]:
    """Run the command in so many processes; exit status, output and errors of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "ntk_lpft.compute", *words],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    return [(process.returncode, *said) for process in started for said in [process.communicate()]]


@pytest.mark.parametrize("init", ["lp", "random"])
def test_two_processes_make_the_results_of_one(init: str, words: list[str], tmp_path: Path) -> None:
    options = [*words, "--head-init", init]
    alone = launch(1, [*options, "--output-dir", str(tmp_path / "one")])
    both = launch(2, [*options, "--output-dir", str(tmp_path / "two")])
    assert [code for code, _, _ in (*alone, *both)] == [0, 0, 0]
    assert both[1][1] == ""
    assert "plan: process 1 of 2" in both[0][1]
    one, two = tmp_path / "one", tmp_path / "two"
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    for part in ("train", "eval"):
        first, second = NTKDecomposition.load(one, part), NTKDecomposition.load(two, part)
        # Float32, in which one kernel differs from another by its rounding.
        torch.testing.assert_close(second.total, first.total, rtol=0, atol=1e-5 * float(first.total.abs().max()))
    assert KernelRun(two).finished
    again = launch(2, [*options, "--output-dir", str(two)])
    assert [code for code, _, _ in again] == [0, 0]
    assert "holds a finished run of these settings" in again[0][1]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (["--n-train", "1"], "error: --n-train"),
        (["--memory-budget", "1KiB"], "error: memory budget 1.00 KiB is too small"),
        (["--train-file", "no.csv"], "error: --train-file"),
    ],
)
def test_what_is_wrong_is_said_once(bad: list[str], says: str, words: list[str], tmp_path: Path) -> None:
    ended = launch(2, [*words, "--output-dir", str(tmp_path / "out"), *bad])
    assert [code for code, _, _ in ended] == [2, 2]
    lines = [line for _, _, errors in ended for line in errors.splitlines() if re.match("error|Traceback", line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith(says)


def test_a_folder_in_use_stops_all(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "groups.csv").write_text("mine")
    ended = launch(2, [*words, "--output-dir", str(tmp_path / "out")])
    assert [code for code, _, _ in ended] == [2, 2]
    assert (tmp_path / "out" / "groups.csv").read_text() == "mine"
    assert sum("error:" in errors for _, _, errors in ended) == 1


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "2"}, "no processes meet .*RANK expected, but not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "no processes meet .*MASTER_ADDR expected, but not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}, "no processes meet .*MASTER_PORT expected"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, of WORLD_SIZE 2 processes"),
    ],
)
def test_an_environment_in_which_no_processes_meet_is_refused(
    environment: dict[str, str], says: str, words: list[str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ntk_lpft.compute", *words, "--output-dir", str(tmp_path / "out")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("error:"))
    assert re.search(says, line)
    assert "; start the command by torchrun or accelerate launch, or unset WORLD_SIZE" in line
    assert not (tmp_path / "out").exists()
