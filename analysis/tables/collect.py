"""What jobs wrote, by data set, method and seed, with a note of everything that is missing or cannot be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from analysis.catalogue import Item
from analysis.suite.results import Entry, Results, describe_problem
from analysis.tables.cells import Cell, Paper
from ntk_lpft.errors import InputError

T = TypeVar("T")
Key = tuple[str, str]  # data set and method

# What reading a file that is no such file, or holds something else, comes to.
UNREADABLE = (InputError, KeyError, TypeError, ValueError, ArithmeticError, IndexError, OSError)


class Problems:
    """Jobs that are missing or broken, put together by what is wrong with them."""

    def __init__(self) -> None:
        self._seeds: dict[tuple[str, str], list[int]] = {}

    def note(self, entry: Entry, what: str) -> None:
        """Remember what is wrong with a job's results."""
        job = entry.job
        seeds = self._seeds.setdefault((f"{job.kind}/{job.dataset}/{job.method}", what), [])
        if job.seed not in seeds:
            seeds.append(job.seed)

    def lines(self) -> list[str]:
        """One line for each kind of job and problem."""
        return [
            f"{job}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {what}"
            for (job, what), seeds in self._seeds.items()
        ]


@dataclass(frozen=True)
class Collected(Generic[T]):
    """What the jobs of one kind wrote.

    Attributes:
        kind: The kind.
        contents: By data set and method, then by seed.
        entries: Every job that was asked for, likewise.
        problems: Where what is wrong is noted.
    """

    kind: str
    contents: Mapping[Key, Mapping[int, T]]
    entries: Mapping[Key, Mapping[int, Entry]]
    problems: Problems

    def asked(self, dataset: str, methods: str | Iterable[str]) -> frozenset[int]:
        """Seeds asked for with a method, or with any of some."""
        names = [methods] if isinstance(methods, str) else methods
        return frozenset(seed for name in names for seed in self.entries.get((dataset, name), {}))

    def numbers(self, dataset: str, method: str, name: str, pick: Callable[[T], Any]) -> dict[int, float]:
        """Pick one number of each seed; those that do not have it are noted.

        Args:
            dataset: The data set.
            method: The method.
            name: What the number is, for people.
            pick: Finds it in what a job wrote.

        Returns:
            The number by seed, without those that are undefined.
        """
        numbers = {}
        for seed, content in self.contents.get((dataset, method), {}).items():
            entry = self.entries[dataset, method][seed]
            try:
                value = float(pick(content))
            except UNREADABLE:
                self.problems.note(entry, f"has no {name}")
                continue
            if math.isnan(value):
                self.problems.note(entry, f"its {name} is undefined")
            else:
                numbers[seed] = value
        return numbers

    def cell(self, dataset: str, method: str, name: str, pick: Callable[[T], Any], paper: Paper | None = None) -> Cell:
        """Make the cell of one number; see `numbers`."""
        return Cell(self.numbers(dataset, method, name, pick), self.asked(dataset, method), paper)


def collect(results: Results, kind: str, read: Callable[[Entry], T], problems: Problems) -> Collected[T]:
    """Read all jobs of a kind.

    Args:
        results: The results.
        kind: The kind.
        read: Reads the results of one job.
        problems: Where to note those that cannot be read.

    Returns:
        What could be read.
    """
    contents: dict[Key, dict[int, T]] = {}
    entries: dict[Key, dict[int, Entry]] = {}
    for entry in results.entries:
        job = entry.job
        if job.kind != kind:
            continue
        key = (job.dataset, job.method)
        entries.setdefault(key, {})[job.seed] = entry
        if entry.broken:
            problems.note(entry, describe_problem(entry, results.folder).removeprefix(f"{job.name}: "))
            continue
        try:
            contents.setdefault(key, {})[job.seed] = read(entry)
        except UNREADABLE as error:
            said = error if isinstance(error, InputError) else f"cannot be read ({type(error).__name__})"
            problems.note(entry, str(said).replace(f"{entry.run.path}/", ""))  # the line names the folder
    return Collected(kind, contents, entries, problems)


def how_to_run(results: Results, name: str) -> str:
    """Return the command that runs a table's jobs."""
    suite = results.suite.get("name", "SUITE")
    return f"python -m analysis.run --suite {suite} --only {name} --output-dir {results.folder.path}"


def require_any(results: Results, item: Item, collected: Iterable[Collected[Any]], problems: Problems) -> None:
    """Make sure that there is something to make a table of.

    Raises:
        InputError: No job of any of the kinds has results.
    """
    if any(contents for each in collected for contents in each.contents.values()):
        return
    lines = problems.lines()
    why = f" ({lines[0]}{'; …' if len(lines) > 1 else ''})" if lines else ""
    raise InputError(f"{item.name} has no results{why}; {how_to_run(results, item.name)} makes them")
