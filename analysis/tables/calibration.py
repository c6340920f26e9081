"""Tables 3, 14 and 15: calibration errors before and after temperature scaling."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.catalogue import item_of
from analysis.suite.results import Entry, Results
from analysis.tables.assemble import METHOD_ORDER, assemble
from analysis.tables.cells import Cell, Measure, Row
from analysis.tables.collect import Collected, Problems, collect, require_any
from analysis.tables.reference import paper_number
from analysis.tables.runs import TEST
from analysis.tables.table import Table
from ntk_lpft.errors import InputError

Errors = Mapping[str, float]

# What the table shows, by name: stage and measure in a calibration's csv.
_SOURCES: Mapping[str, tuple[str, str]] = {
    "ece_pct": ("before", "ece"),
    "ece_scaled_pct": ("after", "ece"),
    "mce_pct": ("before", "mce"),
    "mce_scaled_pct": ("after", "mce"),
}
MEASURES = (
    Measure("ece_pct", "ECE, %", "percent"),
    Measure("ece_scaled_pct", "ECE scaled, %", "percent"),
    Measure("mce_pct", "MCE, %", "percent"),
    Measure("mce_scaled_pct", "MCE scaled, %", "percent"),
)


def read_calibration(entry: Entry) -> Errors:
    """Read calibration errors on the test split.

    Returns:
        In per cent, by the names of `MEASURES`; without those that the file does not have.

    Raises:
        InputError: The file is no calibration's.
    """
    frame = entry.run.measures()
    test = frame[frame["split"] == TEST]
    errors = {}
    for name, (stage, measure) in _SOURCES.items():
        values = test[(test["stage"] == stage) & (test["measure"] == measure)]["value"]
        if len(values) > 1:
            raise InputError(f"its {entry.run.MEASURES} holds several runs")
        if len(values):
            errors[name] = 100 * float(values.iloc[0])
    return errors


def table3(results: Results) -> Table:
    """Make the table of ECE and MCE on the test split, before and after temperature scaling."""
    item, problems = item_of("table3"), Problems()
    calibrations = collect(results, "calibration", read_calibration, problems)
    require_any(results, item, [calibrations], problems)
    rows = []
    for dataset in results.datasets:
        for method in METHOD_ORDER[1:]:
            cells = {measure.name: _cell(calibrations, dataset, method, measure) for measure in MEASURES}
            rows.append(Row((dataset, method), cells))
    says = "15 equal-width bins on the top probability; temperature fitted on validation NLL."
    return assemble(results, item, ("dataset", "method"), MEASURES, rows, says, problems)


def _cell(calibrations: Collected[Errors], dataset: str, method: str, measure: Measure) -> Cell:
    paper = paper_number("table3", measure.name, dataset, method)
    name = measure.header.removesuffix(", %")
    return calibrations.cell(dataset, method, name, lambda content: content[measure.name], paper)
