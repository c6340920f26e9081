"""A results folder: which of a suite's jobs are there, and which are missing or broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.suite.asked import other_settings
from analysis.suite.folder import SuiteFolder
from analysis.suite.job import Job, Record, last_lines, read_record
from analysis.suite.schemas import StoredSuite
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.runs.schemas import check_json


@dataclass(frozen=True)
class Entry:
    """A job of the suite and what became of it.

    Attributes:
        job: The job.
        run: The folder of its results.
        record: How it went.
    """

    job: Job
    run: Any
    record: Record

    @cached_property
    def broken(self) -> str:
        """Why its results cannot be used, in a few words; empty where they can."""
        if self.record.state != "finished":
            words = {
                "waiting": self.record.error or "not run",
                "running": "still running, or was killed",
                "blocked": "needs a job that failed",
            }
            return words.get(self.record.state, f"failed ({_last(self.record.error)})")
        marker = self.run.file(self.run.MARKER)
        if not marker.is_file():
            return f"finished, but {marker.name} is gone"
        try:
            self.run.believed(marker.name)
            return other_settings(self.job, self.run) or _damage(marker)
        except InputError as error:
            return str(error).replace(f"{self.run.path}/", "")


def _damage(marker: Path) -> str:
    if marker.suffix == ".json":
        try:
            read_json(marker)
        except InputError:
            return f"{marker.name} is damaged"
    return ""


def _last(text: str) -> str:
    return text.splitlines()[-1] if text else "no output"


@dataclass(frozen=True)
class Results:
    """A results folder.

    Attributes:
        folder: The folder.
        suite: Content of its ``suite.json``: ``name``, ``says``, ``settings``, ``versions``, ``machine``.
        entries: Every job that was asked for, in the suite's order.
    """

    folder: SuiteFolder
    suite: Mapping[str, Any]
    entries: Sequence[Entry]

    @cached_property
    def usable(self) -> Sequence[Entry]:
        """The jobs whose results are there."""
        return [entry for entry in self.entries if not entry.broken]

    @cached_property
    def problems(self) -> Sequence[Entry]:
        """The jobs whose results are not; never averaged over silently."""
        return [entry for entry in self.entries if entry.broken]

    def of(self, kind: str, dataset: str | None = None, method: str | None = None) -> list[Entry]:
        """Usable jobs of a kind, data set and method, by seed."""
        return sorted(
            (
                entry
                for entry in self.usable
                if entry.job.kind == kind
                and dataset in (None, entry.job.dataset)
                and method in (None, entry.job.method)
            ),
            key=lambda entry: entry.job.seed,
        )

    @property
    def datasets(self) -> list[str]:
        """All data sets, in the suite's order."""
        return list(dict.fromkeys(entry.job.dataset for entry in self.entries))

    @property
    def main_dataset(self) -> str:
        """The data set for figures that show one: the paper's CB where it was run, else the first."""
        return "cb" if "cb" in self.datasets else self.datasets[0]


def read_results(path: Path | str) -> Results:
    """Read a results folder.

    Raises:
        InputError: It is none, or its description is damaged.
    """
    folder = SuiteFolder(path)
    content = folder.read()
    check_json(folder.path / folder.SUITE, content, StoredSuite)
    try:
        jobs = [Job.from_json(job) for job in content.pop("jobs")]
    except KeyError as error:
        raise InputError(f"{folder.path / folder.SUITE} is damaged: there is no kind of jobs {error}") from error
    if not jobs:
        raise InputError(f"{folder.path / folder.SUITE} lists no job")
    return Results(folder, content, [Entry(job, job.run(folder), read_record(folder, job.name)) for job in jobs])


def describe_problem(entry: Entry, folder: SuiteFolder) -> str:
    """One line about a job without results."""
    said = "" if entry.record.error else last_lines(folder.log(entry.job.name), 1)
    return f"{entry.job.name}: {entry.broken}" + (f" ({said})" if said and entry.record.state == "failed" else "")
