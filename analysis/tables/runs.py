"""What `finetune` jobs report, as tables and claims read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from analysis.catalogue import Item
from analysis.suite.definitions import METHODS
from analysis.suite.results import Entry, Results
from analysis.tables.collect import Collected, Problems, collect, require_any
from ntk_lpft.errors import InputError
from ntk_lpft.tasks.registry import PAPER_TASKS

Metrics = Mapping[str, Any]
TEST = "test"
OOD = "ood."


def read_metrics(entry: Entry) -> Metrics:
    """Read a run's ``metrics.json``.

    Raises:
        InputError: It is missing or damaged, or that of another run.
    """
    metrics = entry.run.metrics()
    for name in ("method", "dataset", "seed"):
        if str(metrics[name]) != str(getattr(entry.job, name)):
            raise InputError(f"its {entry.run.METRICS} is of {name} {metrics[name]}")
    return metrics


def collect_runs(results: Results, item: Item, problems: Problems) -> Collected[Metrics]:
    """Read all runs.

    Raises:
        InputError: None has results.
    """
    runs = collect(results, "finetune", read_metrics, problems)
    require_any(results, item, [runs], problems)
    return runs


def of_split(split: str, measure: str) -> Callable[[Metrics], Any]:
    """Return a function that picks a measure of a split out of a run's metrics."""
    return lambda metrics: metrics["splits"][split][measure]


def of_head(name: str) -> Callable[[Metrics], Any]:
    """Return a function that picks a norm of the head out of a run's metrics."""
    return lambda metrics: metrics["head"][name]


def norms_before(runs: Collected[Metrics], dataset: str) -> tuple[dict[int, float], frozenset[int]]:
    """Find ‖V‖ before training, which all methods share, and the seeds asked for.

    Returns:
        The norm by seed, of the first method that has it; and the seeds asked for with any method.
    """
    norms: dict[int, float] = {}
    for method in METHODS:
        numbers = runs.numbers(dataset, method, "head norm before training", of_head("norm_before"))
        norms = {**numbers, **norms}
    return dict(sorted(norms.items())), runs.asked(dataset, METHODS)


def ood_tests(runs: Collected[Metrics], dataset: str) -> list[str]:
    """OOD tests that runs of a data set report, as ``ood.NAME``; those the paper has where no run says."""
    reported = [
        split
        for method in METHODS
        for metrics in runs.contents.get((dataset, method), {}).values()
        for split in metrics.get("splits", {})
        if split.startswith(OOD)
    ]
    known = [f"{OOD}{name}" for name in PAPER_TASKS[dataset].ood] if dataset in PAPER_TASKS else []
    ran = any(runs.contents.get((dataset, method)) for method in METHODS)
    return list(dict.fromkeys(reported)) if ran else known
