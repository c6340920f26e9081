"""Running a suite: to its end, past failures, and on after it was killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from helpers.tiny_suite import make_data, run, tiny_suite
from safetensors.numpy import load_file

from analysis.suite.definitions import DataSettings
from analysis.suite.folder import SuiteFolder
from analysis.suite.job import Job, Record, last_lines, read_record, write_record
from analysis.suite.plan import plan
from analysis.suite.results import read_results
from analysis.suite.worker import alive, run_job
from ntk_lpft.errors import InputError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the tiny data; worker processes find `analysis` as a user's do, in the current folder."""
    monkeypatch.setenv("NTK_LPFT_DATA", str(place))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(ROOT)


def test_a_suite_runs_and_then_finds_nothing_to_do(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    suite = tiny_suite(place)
    words = ("--only", "table3", "table2", "--methods", "lp", "ft", "--seeds", 1, "--output-dir", tmp_path / "r")
    assert run(suite, *words, "--dry-run") == 0
    assert not (tmp_path / "r").exists()
    assert "5 of 5 jobs to run" in capfd.readouterr().out
    assert run(suite, *words) == 0
    said = capfd.readouterr().out
    assert "5 of 5 jobs finished" in said
    results = read_results(tmp_path / "r")
    assert [entry.job.kind for entry in results.usable] == [
        "finetune",
        "finetune",
        "kernel",
        "calibration",
        "calibration",
    ]
    assert results.suite["settings"]["seeds"] == [1, 2]
    assert not list((tmp_path / "r").rglob("*.pkl"))
    metrics = tmp_path / "r" / "finetune" / "cb" / "ft" / "seed-1" / "metrics.json"
    assert json.loads(metrics.read_text())["seed"] == 1

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*") if path.is_file()}
    assert run(suite, *words) == 0
    assert "5 jobs, 5 of them finished before" in capfd.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in before if path.exists()}
    changed = {path.name for path in before if after.get(path) != before[path]}
    assert changed <= {"suite.json", ".suite.json.lock"}

    metrics.unlink()  # somebody deletes a result: reported, and made again
    assert [entry.broken for entry in read_results(tmp_path / "r").problems] == ["finished, but metrics.json is gone"]
    assert run(suite, *words) == 0
    assert metrics.is_file()

    other = dataclasses.replace(suite, datasets={"cb": DataSettings(epochs=2, kernel_rows=(8, 6))})
    assert run(other, *words) == 2
    assert "was made with other settings (1 instead of 2)" in capfd.readouterr().err
    assert run(dataclasses.replace(suite, name="other"), *words) == 2
    assert "holds suite tiny; choose another --output-dir" in capfd.readouterr().err


def test_a_failure_is_named_and_the_rest_goes_on(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rates = {"ft": 1e30}
    suite = tiny_suite(place, datasets={"cb": DataSettings(epochs=1, learning_rates=rates, kernel_rows=(8, 6))})
    words = ("--only", "table3", "--methods", "lp", "ft", "--seeds", 1, "--output-dir", tmp_path)
    assert run(suite, *words) == 1
    said = capfd.readouterr().out
    assert "2 of 4 jobs finished" in said
    assert "finetune/cb/ft/seed-1: failed" in said
    assert "calibration/cb/ft/seed-1: needs a job that failed" in said
    assert "the loss is nan at step" in read_record(SuiteFolder(tmp_path), "finetune/cb/ft/seed-1").error

    assert run(suite, *words) == 1  # not tried again unless asked for
    assert read_record(SuiteFolder(tmp_path), "finetune/cb/ft/seed-1").seconds > 0
    log = (tmp_path / "jobs/finetune/cb/ft/seed-1.log").read_text()
    assert log.count("$ -m ntk_lpft.finetune") == 1
    assert run(suite, *words, "--retry") == 1
    assert (tmp_path / "jobs/finetune/cb/ft/seed-1.log").read_text().count("$ -m ntk_lpft.finetune") == 2


def test_a_killed_suite_goes_on_to_the_same_end(place: Path, tmp_path: Path) -> None:
    suite = tiny_suite(place, datasets={"cb": DataSettings(epochs=6, kernel_rows=(8, 6))})
    words = ["--only", "table1", "--methods", "ft", "--seeds", "1", "--parallel", "1", "--output-dir"]
    job = next(job for job in plan(suite, kinds={"finetune"}, methods=["ft"], seeds=[1]))
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    script = (
        "import sys; from pathlib import Path; from helpers.tiny_suite import DataSettings, run, tiny_suite; "
        "data = {'cb': DataSettings(epochs=6, kernel_rows=(8, 6))}; "
        "sys.exit(run(tiny_suite(Path(sys.argv[1]), datasets=data), *sys.argv[2:]))"
    )
    first = tmp_path / "killed"
    environment = dict(os.environ) | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", script, place, *words, first]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = folder_of(job, first) / "checkpoints"
    limit = time.monotonic() + 120
    while not any(checkpoints.glob("checkpoint-*")) and time.monotonic() < limit:
        assert driver.poll() is None
        time.sleep(0.02)
    tree = [driver_process := psutil.Process(driver.pid), *driver_process.children(recursive=True)]
    for process in tree:  # driver, submitit's watcher, worker: as when a machine goes down
        if process.is_running():
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(tree, timeout=30)
    driver.wait()
    record = read_record(SuiteFolder(first), job.name)
    assert record.state == "running"
    assert not alive(record)
    assert read_results(first).problems[0].broken == "still running, or was killed"

    assert run(suite, *words, first) == 0
    assert "--resume" in (first / "jobs" / f"{job.name}.log").read_text()
    assert run(suite, *words, tmp_path / "whole") == 0
    for name in ("predictions.safetensors", "model/model.safetensors"):
        resumed, whole = (load_file(folder_of(job, root) / name) for root in (first, tmp_path / "whole"))
        assert {k: v.tobytes() for k, v in resumed.items()} == {k: v.tobytes() for k, v in whole.items()}
    logs = [folder_of(job, root) / "tracking.csv" for root in (first, tmp_path / "whole")]
    assert logs[0].read_bytes() == logs[1].read_bytes()


def folder_of(job: Job, results: Path) -> Path:
    return results / job.kind / job.dataset / job.method / f"seed-{job.seed}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "big"], "unknown --suite 'big'"),
        (["--only", "table7"], "unknown table or figure 'table7'"),
        (["--launcher", "pbs"], "unknown --launcher 'pbs'; choose local or slurm"),
        (["--launcher", "slurm"], "there is no sbatch here"),
        (["--slurm", "partition=a"], "--slurm does nothing without --launcher slurm"),
        (["--launcher", "slurm", "--slurm", "partition"], "must be NAME=VALUE"),
        (["--parallel", "0"], "--parallel 0 must be 1 or more"),
        (["--hours", "0"], "--hours 0 must be more than 0"),
        (["--seeds", "5"], "--seeds: the suite has no 5"),
    ],
)
def test_bad_input_is_one_line(
    place: Path, tmp_path: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_suite(place), *words, "--output-dir", tmp_path / "r") == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_data_that_is_not_there_is_named_before_anything_runs(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NTK_LPFT_DATA", str(tmp_path / "nowhere"))
    assert run(tiny_suite(place), "--output-dir", tmp_path / "r") == 2
    assert "nowhere" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()


def test_two_processes_do_not_run_one_job(tmp_path: Path) -> None:
    job = Job("finetune", "cb", "ft", 1, ())
    results = SuiteFolder(tmp_path)
    write_record(results, job.name, Record("waiting"))
    with FileLock(tmp_path / "jobs" / f"{job.name}.lock"):
        # A second lock object is what another process would hold.
        assert run_job(job, results) == "running"
    assert read_record(results, job.name).state == "waiting"


def test_flags_of_earlier_versions_are_read_as_today_s(tmp_path: Path) -> None:
    results, words = SuiteFolder(tmp_path), ("--max_length", "20", "--model", "a_model")
    job = Job("finetune", "cb", "ft", 1, words)
    write_record(results, job.name, Record("finished", arguments=words))
    expected = ("--max-length", "20", "--model", "a_model")
    assert read_record(results, job.name).arguments == Job.from_json(job.to_json()).arguments == expected


def test_results_that_are_none_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results of a suite"):
        read_results(tmp_path)
    (tmp_path / "suite.json").write_text('{"jobs": [{"kind": "sing"}]}')
    with pytest.raises(InputError, match="is damaged"):
        read_results(tmp_path)


def test_last_lines_leave_progress_bars_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n 10%\r 20%\r 30%\rdone\n\ntwo\n")
    assert last_lines(path, 2) == "done\ntwo"
    assert last_lines(tmp_path / "none") == ""
