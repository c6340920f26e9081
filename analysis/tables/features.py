"""Tables 1, 11, 12 and 13: features and head norms after each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.catalogue import item_of
from analysis.suite.results import Results
from analysis.tables.assemble import METHOD_ORDER, PRETRAINED, assemble
from analysis.tables.cells import Cell, Measure, Row
from analysis.tables.collect import Collected, Problems, how_to_run
from analysis.tables.reference import paper_number, paper_test
from analysis.tables.runs import TEST, Metrics, collect_runs, norms_before, of_head, of_split, ood_tests
from analysis.tables.table import Table
from ntk_lpft.errors import InputError

CS = Measure("cosine_similarity", "CS", "similarity")
DIFF = Measure("feature_difference", "Diff")
FDR = Measure("fisher_discriminant_ratio", "FDR")
NORM = Measure("head_norm", "‖V‖")

MOVING = ("ft", "lora", "lp-ft", "lp-lora")  # LP leaves the features as they are

_FEATURES = (
    "CS: cosine similarity between the features of different samples; Diff: mean norm of the features' change from the "
    "pretrained ones; FDR: Fisher's discriminant ratio, whose size depends on the number of samples (the paper prints "
    "no formula for CS and FDR, so that their order says more than their values)"
)
_PRETRAINED = "CS and FDR of the pretrained features are those of LP, which does not change them"
_BEFORE = "the pretrained model's ‖V‖ is that of its new, random head"


def _cell(runs: Collected[Metrics], table: str, dataset: str, split: str, method: str, measure: Measure) -> Cell:
    source = "lp" if method == PRETRAINED else method
    test = paper_test(dataset, split)
    paper = None if test is None else paper_number(table, measure.name, test, method)
    name = f"{measure.header} on {split}"
    return runs.cell(dataset, source, name, of_split(split, measure.name), paper)


def _norm_cell(runs: Collected[Metrics], table: str, dataset: str, method: str) -> Cell:
    paper = paper_number(table, NORM.name, dataset, method)
    if method == PRETRAINED:
        values, asked = norms_before(runs, dataset)
        return Cell(values, asked, paper)
    return runs.cell(dataset, method, "head norm", of_head("norm_after"), paper)


def table1(results: Results) -> Table:
    """Make the table of CS, Diff, FDR and head norm on the test split."""
    item, problems = item_of("table1"), Problems()
    runs = collect_runs(results, item, problems)
    rows = []
    for dataset in results.datasets:
        for method in METHOD_ORDER:
            shown = [CS, FDR] + ([DIFF] if method in MOVING else [])
            cells = {each.name: _cell(runs, item.name, dataset, TEST, method, each) for each in shown}
            cells[NORM.name] = _norm_cell(runs, item.name, dataset, method)
            rows.append(Row((dataset, method), cells))
    says = f"On the test split. {_FEATURES}. {_PRETRAINED}; {_BEFORE}."
    return assemble(results, item, ("dataset", "method"), (CS, DIFF, FDR, NORM), rows, says, problems)


def table11(results: Results) -> Table:
    """Make the table of CS, Diff and FDR on the ID test and each OOD test.

    Raises:
        InputError: No data set here has OOD tests, or no run has results.
    """
    item, problems = item_of("table11"), Problems()
    runs = collect_runs(results, item, problems)
    rows = []
    for dataset, splits in tests_with_ood(runs, results, item.name).items():
        for split in splits:
            for method in (PRETRAINED, *MOVING):
                shown = [CS, FDR] + ([DIFF] if method in MOVING else [])
                cells = {each.name: _cell(runs, item.name, dataset, split, method, each) for each in shown}
                rows.append(Row((dataset, split, method), cells))
    says = f"{_FEATURES}. {_PRETRAINED}."
    return assemble(results, item, ("dataset", "test", "method"), (CS, DIFF, FDR), rows, says, problems)


def table12(results: Results) -> Table:
    """Make the table of Diff on every test, ID and OOD."""
    item, problems = item_of("table12"), Problems()
    runs = collect_runs(results, item, problems)
    rows = []
    for dataset in results.datasets:
        for split in (TEST, *ood_tests(runs, dataset)):
            for method in MOVING:
                cell = _cell(runs, item.name, dataset, split, method, DIFF)
                rows.append(Row((dataset, split, method), {DIFF.name: cell}))
    says = "Diff: mean norm of the features' change from the pretrained ones, over the samples of the test."
    return assemble(results, item, ("dataset", "test", "method"), (DIFF,), rows, says, problems)


def table13(results: Results) -> Table:
    """Make the table of the head norm before training and after each method."""
    item, problems = item_of("table13"), Problems()
    runs = collect_runs(results, item, problems)
    rows = [
        Row((dataset, method), {NORM.name: _norm_cell(runs, item.name, dataset, method)})
        for dataset in results.datasets
        for method in METHOD_ORDER
    ]
    says = f"‖V‖: Frobenius norm of the head's weights; {_BEFORE}."
    return assemble(results, item, ("dataset", "method"), (NORM,), rows, says, problems)


def tests_with_ood(runs: Collected[Metrics], results: Results, name: str) -> Mapping[str, Sequence[str]]:
    """Find the tests of each data set that has OOD tests, for the table of a name.

    Raises:
        InputError: None has.
    """
    tests = {dataset: ood_tests(runs, dataset) for dataset in results.datasets}
    having = {dataset: (TEST, *splits) for dataset, splits in tests.items() if splits}
    if not having:
        raise InputError(
            f"{name}: no data set of {results.folder.path} has OOD tests; run one that has, such as amazon-snippets or "
            f"amazon: {how_to_run(results, name)}"
        )
    return having
