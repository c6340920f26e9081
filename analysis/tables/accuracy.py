"""Tables 8 and 16, and 10: scores on the test split and on OOD tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analysis.catalogue import item_of
from analysis.suite.results import Results
from analysis.tables.assemble import METHOD_ORDER, assemble
from analysis.tables.cells import Measure, Row
from analysis.tables.collect import Collected, Problems
from analysis.tables.features import tests_with_ood
from analysis.tables.reference import paper_number, paper_test
from analysis.tables.runs import TEST, Metrics, collect_runs
from analysis.tables.table import Table

SCORE = Measure("score_pct", "test score, %", "percent")
ACCURACY = Measure("accuracy_pct", "accuracy, %", "percent")
TRAINED = METHOD_ORDER[1:]


def metric_of(runs: Collected[Metrics], dataset: str) -> str:
    """Return what a data set is scored by: ``accuracy`` or ``matthews``."""
    for method in TRAINED:
        for metrics in runs.contents.get((dataset, method), {}).values():
            return str(metrics.get("metric", "accuracy"))
    return "accuracy"


def percent_of(split: str, metric: str) -> Callable[[Metrics], Any]:
    """Return a function that picks a score, in per cent, out of a run's metrics."""
    return lambda metrics: 100 * metrics["splits"][split][metric]


def table8(results: Results) -> Table:
    """Make the table of test accuracy, or Matthews correlation, of each method."""
    item, problems = item_of("table8"), Problems()
    runs = collect_runs(results, item, problems)
    rows = []
    for dataset in results.datasets:
        metric = metric_of(runs, dataset)
        for method in TRAINED:
            paper = paper_number(item.name, SCORE.name, dataset, method, metric)
            cell = runs.cell(dataset, method, metric, percent_of(TEST, metric), paper)
            rows.append(Row((dataset, metric, method), {SCORE.name: cell}))
    says = "Best validation epoch."
    return assemble(results, item, ("dataset", "metric", "method"), (SCORE,), rows, says, problems)


def table10(results: Results) -> Table:
    """Make the table of accuracy on the ID test and each OOD test.

    Raises:
        InputError: No data set here has OOD tests, or no run has results.
    """
    item, problems = item_of("table10"), Problems()
    runs = collect_runs(results, item, problems)
    rows = []
    for dataset, splits in tests_with_ood(runs, results, item.name).items():
        for split in splits:
            for method in TRAINED:
                test = paper_test(dataset, split)
                paper = None if test is None else paper_number(item.name, ACCURACY.name, test, method)
                cell = runs.cell(dataset, method, f"accuracy on {split}", percent_of(split, "accuracy"), paper)
                rows.append(Row((dataset, split, method), {ACCURACY.name: cell}))
    says = "Trained and validated on the data set alone; ‘test’ is its own test split."
    return assemble(results, item, ("dataset", "test", "method"), (ACCURACY,), rows, says, problems)
