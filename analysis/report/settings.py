"""What the page says of the suite: its settings, how data was used, and how its jobs went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.suite.job import KINDS
from analysis.suite.results import Entry, Results


@dataclass(frozen=True)
class KindSummary:
    """The jobs of a kind.

    Attributes:
        kind: Its name.
        says: What they do.
        finished: How many have results.
        entries: All of them.
        seconds: They took.
    """

    kind: str
    says: str
    finished: int
    entries: Sequence[Entry]
    seconds: float


def suite_settings(results: Results) -> list[tuple[str, str]]:
    """List the settings that hold for all data sets: what they are called, and their values."""
    given: Mapping[str, Any] = results.suite.get("settings", {})
    names = {
        "model": "Model",
        "layers": "Layers kept",
        "methods": "Methods",
        "seeds": "Seeds",
        "kernel_seeds": "Seeds with kernels",
        "head_scales": "Factors on the head",
        "probe_iterations": "Iterations of the probe by Adam",
        "probe_size": "Rows measured while training",
        "experiments": "Side experiments",
        "experiment_rows": "Their training rows",
    }
    shown = [(label, _words(given[key])) for key, label in names.items() if given.get(key) is not None]
    return [(label, text.replace("{results}/", "")) for label, text in shown]


def data_settings(results: Results) -> list[tuple[str, list[str]]]:
    """List how each data set is used: name, then rows, epochs, kernel rows, and those of the head-norm experiment."""
    given = results.suite.get("settings", {}).get("datasets", {})
    keys = ("rows", "epochs", "kernel_rows", "scale_rows", "scale_epochs", "scale_seeds")
    return [
        (name, [_words(use[key]) if use.get(key) is not None else "all" for key in keys]) for name, use in given.items()
    ]


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def job_summaries(results: Results) -> list[KindSummary]:
    """Sum the jobs up by kind, without kinds that were not asked for."""
    summaries = []
    for kind, about in KINDS.items():
        entries = [entry for entry in results.entries if entry.job.kind == kind]
        if entries:
            finished = sum(not entry.broken for entry in entries)
            seconds = sum(entry.record.seconds for entry in entries)
            summaries.append(KindSummary(kind, about.says, finished, entries, seconds))
    return summaries


def duration(seconds: float) -> str:
    """Write a time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
