"""Which function makes which table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from analysis.suite.results import Results
from analysis.tables import accuracy, calibration, claims, experiments, features, kernel
from analysis.tables.claims import make_claims
from analysis.tables.table import Table
from ntk_lpft.errors import InputError

_MAKERS: Mapping[str, Callable[[Results], Table]] = {
    "table1": features.table1,
    "table2": kernel.table2,
    "table3": calibration.table3,
    "table8": accuracy.table8,
    "table10": accuracy.table10,
    "table11": features.table11,
    "table12": features.table12,
    "table13": features.table13,
    "sampling": experiments.sampling,
    "lora": experiments.lora,
    claims.NAME: make_claims,
}
NAMES = tuple(_MAKERS)


def make_table(results: Results, name: str) -> Table:
    """Make a table.

    Args:
        results: The results.
        name: One of the catalogue's tables, or ``claims``.

    Returns:
        The table.

    Raises:
        InputError: There is no such table, or none of its jobs has results; then it names the command that runs them.
    """
    if name not in _MAKERS:
        raise InputError(f"unknown table {name!r}; choose from {', '.join(NAMES)}")
    return _MAKERS[name](results)
