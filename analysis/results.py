"""A results folder: which of a suite's jobs are there, and which are missing or broken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.jobs import KINDS, Job, Record, last_lines, log_path, read_record
from ntk_lpft.errors import InputError

SUITE_FILE = "suite.json"


@dataclass(frozen=True)
class Entry:
    """A job of the suite and what became of it.

    Attributes:
        job: The job.
        folder: Where its results are.
        record: How it went.
    """

    job: Job
    folder: Path
    record: Record

    @property
    def broken(self) -> str:
        """Why its results cannot be used, in a few words; empty where they can."""
        if self.record.state != "finished":
            words = {
                "waiting": "not run",
                "running": "still running, or was killed",
                "blocked": "needs a job that failed",
            }
            return words.get(self.record.state, f"failed ({_last(self.record.error)})")
        marker = self.folder / KINDS[self.job.kind].marker
        if not marker.is_file():
            return f"finished, but {marker.name} is gone"
        if marker.suffix == ".json":
            try:
                json.loads(marker.read_text(encoding="utf-8"))
            except (ValueError, OSError):
                return f"{marker.name} is damaged"
        return ""

    def json(self, name: str) -> dict[str, Any]:
        """Read one of its JSON files.

        Raises:
            InputError: It is missing or damaged.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise InputError(f"{path} is missing or damaged; run the suite again with --retry") from problem


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

    folder: Path
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

    def problems_of(self, *kinds: str) -> list[Entry]:
        """Jobs of some kinds that cannot be used."""
        return [entry for entry in self.problems if entry.job.kind in kinds]

    @property
    def datasets(self) -> list[str]:
        """All data sets, in the suite's order."""
        return list(dict.fromkeys(entry.job.dataset for entry in self.entries))

    @property
    def main_dataset(self) -> str:
        """The data set for figures that show one: the paper's CB where it was run, else the first."""
        return "cb" if "cb" in self.datasets else self.datasets[0]


def read_results(folder: Path | str) -> Results:
    """Read a results folder.

    Raises:
        InputError: It is none, or its ``suite.json`` is damaged.
    """
    folder = Path(folder).expanduser()
    path = folder / SUITE_FILE
    if not path.is_file():
        raise InputError(f"{folder} holds no results of a suite (no {SUITE_FILE}); make them by python -m analysis.run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = [Job.from_json(job) for job in content.pop("jobs")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(f"{path} is damaged; run the suite again") from problem
    if not jobs:
        raise InputError(f"{path} lists no job")
    return Results(folder, content, [Entry(job, job.folder(folder), read_record(folder, job.name)) for job in jobs])


def describe_problem(entry: Entry, results: Path) -> str:
    """One line about a job without results."""
    said = "" if entry.record.error else last_lines(log_path(results, entry.job.name), 1)
    return f"{entry.job.name}: {entry.broken}" + (f" ({said})" if said and entry.record.state == "failed" else "")
