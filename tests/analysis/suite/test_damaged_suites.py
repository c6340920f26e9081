"""A suite's description and records that are damaged or were altered: one line; of a single job, its name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bit_flips import FLIPS, flipped
from helpers.handmade_results import Handmade

from analysis.report.__main__ import main as report
from analysis.suite.folder import SuiteFolder
from analysis.suite.job import Record, read_record, write_record
from analysis.suite.results import read_results
from analysis.tables.__main__ import main as tables
from figures.__main__ import main as figures
from ntk_lpft.errors import InputError

BOMB = "[" * 100_000 + "]" * 100_000
Content = dict[str, Any]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = Handmade(tmp_path / "results")
    for seed in (1, 2):
        made.run("cb", "ft", seed, norm=float(seed), accuracy=0.5 + seed / 10)
    return made.folder


def every_job(**changes: Any) -> Callable[[Content], object]:
    return lambda suite: [job.update(changes) for job in suite["jobs"]]


CHANGES: dict[str, tuple[Callable[[Content], object], str]] = {
    "no name": (lambda suite: suite.pop("name"), "name is missing"),
    "no says": (lambda suite: suite.pop("says"), "says is missing"),
    "no versions": (lambda suite: suite.pop("versions"), "versions is missing"),
    "no settings": (lambda suite: suite.pop("settings"), "settings is missing"),
    "settings list": (lambda suite: suite.update(settings=[]), "settings is []"),
    "settings null": (lambda suite: suite.update(settings=None), "settings is None"),
    "versions list": (lambda suite: suite.update(versions=[]), "versions is []"),
    "versions number": (lambda suite: suite.update(versions=5), "versions is 5"),
    "data sets list": (lambda suite: suite["settings"].update(datasets=[]), "settings.datasets is []"),
    "data set number": (lambda suite: suite["settings"]["datasets"].update(cb=5), "settings.datasets.cb is 5"),
    "rows": (lambda suite: suite["settings"]["datasets"]["cb"].update(rows=[1]), "settings.datasets.cb.rows is [1]"),
    "epochs": (lambda suite: suite["settings"]["datasets"]["cb"].update(epochs="3"), "epochs is '3'"),
    "model": (lambda suite: suite["settings"].update(model=["a"]), "settings.model is ['a']"),
    "no jobs": (lambda suite: suite.update(jobs=[]), "lists no job"),
    "jobs number": (lambda suite: suite.update(jobs=5), "jobs is 5"),
    "a kind": (every_job(kind="unheard-of"), "there is no kind of jobs 'unheard-of'"),
    "a method": (every_job(method=5), "jobs.0.method is 5"),
    "a seed": (every_job(seed=[1]), "jobs.0.seed is [1]"),
    "a negative seed": (every_job(seed=-1), "jobs.0.seed is -1"),
    "a long data set": (every_job(dataset="x" * 300), "is longer than 200 bytes"),
    "a data set elsewhere": (every_job(dataset="../../x"), "cannot be the name of a folder"),
    "a data set of no name": (every_job(dataset="a\nb"), "cannot be the name of a folder"),
    "flops": (every_job(flops="many"), "jobs.0.flops is 'many'"),
    "arguments": (every_job(arguments=[1]), "jobs.0.arguments.0 is 1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_descriptions_that_cannot_be(results: Path, name: str) -> None:
    change, message = CHANGES[name]
    path = results / "suite.json"
    suite = json.loads(path.read_text())
    change(suite)
    path.write_text(json.dumps(suite))
    with pytest.raises(InputError, match=r"suite\.json") as caught:
        read_results(results)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_command_says_so_in_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (f'{{"jobs": {BOMB}}}', '{"name": "smoke"}', "{", "[]"):
        (results / "suite.json").write_text(text)
        for main in (tables, figures, report):
            assert main([str(results)]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("error: ")
            assert "suite.json" in line
    assert {path.name for path in results.iterdir()} == {"suite.json", "jobs", "finetune"}


def test_a_description_that_was_altered(results: Path) -> None:
    folder = SuiteFolder(results)
    folder.write(json.loads((results / "suite.json").read_text()))

    def read() -> tuple[Any, ...]:
        found = read_results(results)
        return copy.deepcopy(found.suite), [entry.job for entry in found.entries]

    assert flipped(results / "suite.json", read) > 0.95 * FLIPS


def test_records_that_were_altered_or_are_none(tmp_path: Path) -> None:
    suite = SuiteFolder(tmp_path)
    write_record(suite, "a/b", Record("finished", ("--seed", "1"), "here", 17, 1e9, "local", "8", 12.5))
    path = suite.record("a/b")
    expected = read_record(suite, "a/b")
    assert expected.seconds == 12.5

    def read() -> Record:
        record = read_record(suite, "a/b")
        if record.state == "waiting":
            assert str(path) in record.error
            raise InputError(record.error)
        return record

    assert flipped(path, read) > 0.95 * FLIPS
    for text, message in (
        ('{"state": "finished", "seconds": "12"}', "seconds is '12'"),
        ('{"state": "finished", "seconds": NaN}', "seconds is nan"),
        ('{"state": "finished", "seconds": Infinity}', "seconds is inf"),
        ('{"state": "finished", "seconds": -1}', "seconds is -1"),
        ('{"state": "failed", "error": 5}', "error is 5"),
        ('{"state": "done"}', "state is 'done'"),
        ('{"arguments": []}', "state is missing"),
        (f'{{"state": {BOMB}}}', "nested too deeply"),
    ):
        path.write_text(text)
        record = read_record(suite, "a/b")
        assert record.state == "waiting"
        assert message in record.error


def test_a_damaged_record_is_named_beside_what_can_be_shown(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "jobs/finetune/cb/ft/seed-2.json").write_text('{"state": "finished", "seconds": "12"}')
    assert tables([str(results), "--only", "table13"]) == 0
    said = capsys.readouterr().out
    assert "1.00 (1 of 2)" in said
    assert "seed-2.json is damaged: seconds is '12'" in said
