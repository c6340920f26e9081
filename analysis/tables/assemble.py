"""Rows put together to a table, with its title, its note and its problems."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.catalogue import Item
from analysis.suite.results import Results
from analysis.tables.cells import Measure, Row, lay_out, tidy
from analysis.tables.collect import Problems
from analysis.tables.folds import describe_folds
from analysis.tables.setting import describe_setting
from analysis.tables.table import Table

# Methods as the paper orders them; the features and the head before any training come first.
PRETRAINED = "pretrained"
METHOD_ORDER = (PRETRAINED, "lp", "ft", "lora", "lp-ft", "lp-lora")


def title_of(item: Item) -> str:
    """Return an item's title, with the numbers that the paper has it under."""
    *first, last = map(str, item.numbers) if item.numbers else [""]
    if not last:
        return item.title
    numbers = f"tables {', '.join(first)} and {last}" if first else f"table {last}"
    return f"{item.title}; {numbers} of the paper"


def assemble(
    results: Results,
    item: Item,
    keys: Sequence[str],
    measures: Sequence[Measure],
    rows: Sequence[Row],
    says: str,
    problems: Problems,
    *,
    spread: str = "seeds",
) -> Table:
    """Make a table.

    Args:
        results: Where its numbers are from.
        item: The table, as the catalogue has it.
        keys: Names of what a row is of.
        measures: Its columns.
        rows: Its rows; empty ones are left out.
        says: What the numbers are, a sentence or more.
        problems: What is missing.
        spread: What ± is over.

    Returns:
        The table.
    """
    shown = [row for row in rows if not row.empty]
    datasets = list(dict.fromkeys(row.of[0] for row in shown))
    note = f"{describe_setting(results, item.kinds, datasets)} Mean ± standard deviation over {spread}. {says}"
    folds = describe_folds(results, item.kinds, datasets)
    note += f" {folds}" if folds else ""
    if any(cell.paper is not None for row in shown for cell in row.cells.values()):
        note += " Δ: here less the paper's."
    return Table(
        item.name,
        title_of(item),
        tidy(keys, measures, shown),
        lay_out(keys, measures, shown),
        len(keys),
        note,
        problems.lines(),
    )
