"""What a figure is drawn from: the jobs it needs, which of them have results, and words about both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from analysis.catalogue import Item
from analysis.suite.results import Entry, Results
from analysis.tables.collect import Collected, Problems, collect, how_to_run
from analysis.tables.setting import describe_setting
from figures.style import METHODS
from ntk_lpft.errors import InputError

T = TypeVar("T")
_MOST_NAMED = 4  # jobs in one line


@dataclass(frozen=True)
class Request:
    """A figure that is asked for.

    Attributes:
        results: The results.
        item: The figure, as the catalogue has it.
        every: Whether it shows every data set, or the main one alone.
        problems: Collects what is missing or broken, as jobs are read.
    """

    results: Results
    item: Item
    every: bool
    problems: Problems = field(default_factory=Problems)

    @cached_property
    def datasets(self) -> list[str]:
        """The data sets that it shows where all jobs have results."""
        if not self.every:
            return [self.results.main_dataset]
        return self.results.datasets

    def collect(self, kind: str, read: Callable[[Entry], T], methods: Iterable[str] = tuple(METHODS)) -> Collected[T]:
        """Read the jobs of a kind, of the figure's data sets and some methods."""
        wanted = set(methods)
        entries = [
            entry for entry in self.results.entries if entry.job.dataset in self.datasets and entry.job.method in wanted
        ]
        return collect(replace(self.results, entries=entries), kind, read, self.problems)

    def one_seed(self, kind: str, methods: Iterable[str] = tuple(METHODS)) -> Request:
        """Return the same request with, of a kind of jobs, those of one seed for each data set alone.

        For pictures of samples, which differ from seed to seed: of the first seed for which most methods have results.
        """
        wanted = set(methods)
        kept = list[Entry]()
        for dataset in self.datasets:
            jobs = [e for e in self.results.entries if (e.job.kind, e.job.dataset) == (kind, dataset)
                    and e.job.method in wanted]  # fmt: skip
            seeds = sorted({entry.job.seed for entry in jobs})
            usable = {seed: sum(not e.broken for e in jobs if e.job.seed == seed) for seed in seeds}
            best = max(seeds, key=lambda seed: usable[seed], default=None)  # the first of those with most
            kept += [entry for entry in jobs if entry.job.seed == best]
        others = [entry for entry in self.results.entries if entry.job.kind != kind]
        return replace(self, results=replace(self.results, entries=[*kept, *others]))

    def nothing(self) -> InputError:
        """Make the error for a figure that has nothing to show: it names the jobs, and the command that runs them."""
        lines = self.problems.lines()
        more = [f"and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
        why = "; ".join([*lines[:_MOST_NAMED], *more]) or (
            f"the results list no {' or '.join(self.item.kinds)} jobs of {', '.join(self.datasets)}"
        )
        # A failed job runs again only on request.
        failed = any(entry.record.state == "failed" and entry.job.kind in self.item.kinds for entry in self._entries())
        command = how_to_run(self.results, self.item.name) + (" --retry" if failed else "")
        return InputError(f"{self.item.name} has no results ({why}); {command} makes them")

    def _entries(self) -> list[Entry]:
        return [entry for entry in self.results.entries if entry.job.dataset in self.datasets]

    def setting(self, datasets: Iterable[str]) -> str:
        """Say how the runs of the data sets that are shown differ from the paper's."""
        return describe_setting(self.results, self.item.kinds, datasets)

    def missing(self) -> str:
        """Say which jobs are missing or broken; empty where none is."""
        lines = self.problems.lines()
        return f"Missing or broken: {'; '.join(lines)}." if lines else ""


def fewer_seeds(collected: Iterable[Collected], datasets: Sequence[str], methods: Sequence[str]) -> list[str]:
    """Name data sets and methods that are drawn from fewer seeds than were asked for."""
    lacking: dict[tuple[str, int, int], list[str]] = {}
    for each in collected:
        for dataset in datasets:
            for method in methods:
                asked, used = len(each.asked(dataset, method)), len(each.contents.get((dataset, method), {}))
                if used < asked:
                    lacking.setdefault((dataset, used, asked), []).append(METHODS[method].name)
    return [
        f"{dataset}: {used} of {asked} seeds of {', '.join(names)}" for (dataset, used, asked), names in lacking.items()
    ]


def over_seeds(collected: Iterable[Collected], datasets: Sequence[str], *, log: bool = False) -> str:
    """Say what lines and bands are, by how many seeds there are.

    Args:
        collected: What was read.
        datasets: Those that are shown.
        log: Whether mean and deviation are those of the logarithm.
    """
    counts = sorted(
        {len(seeds) for each in collected for (dataset, _), seeds in each.contents.items() if dataset in datasets}
    )
    if not counts or counts[-1] < 2:
        return "Lines: one seed."
    words = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    one = "" if counts[0] > 1 else " (none for one seed)"
    if log:
        return f"Lines: geometric mean over {words} seeds; bands: one standard deviation of the logarithm{one}."
    return f"Lines: mean over {words} seeds; bands: one standard deviation{one}."


def sentences(*parts: str) -> str:
    """Put a caption together from sentences, leaving out empty ones."""
    return " ".join(part for part in parts if part)
