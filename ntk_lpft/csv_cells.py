"""Names in csv files that a spreadsheet would take for formulas, and run."""

import re
from typing import Any

import pandas as pd

# What begins a formula in Excel, LibreOffice and Google Sheets, full-width forms among them; apostrophes in front keep
# a cell text, and those that were there are kept apart by one more.
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")


def guarded(table: pd.DataFrame) -> pd.DataFrame:
    """Put an apostrophe in front of each name that a spreadsheet would take for a formula.

    Source: OWASP, "CSV injection".

    Args:
        table: A table that is to be written as csv.

    Returns:
        The same numbers and names; of texts, headers among them, those that begin with ``=``, ``+``, ``-``, ``@``, a
        tab or a carriage return, and are no numbers, have an apostrophe more.
    """
    return _with_texts(table, _guard)


def unguarded(table: pd.DataFrame) -> pd.DataFrame:
    """Take the apostrophes away that ``guarded`` has put in."""
    return _with_texts(table, _unguard)


def _with_texts(table: pd.DataFrame, change: Any) -> pd.DataFrame:
    changed = table.copy()
    for name in table.columns[[table[name].dtype.kind not in "fiub" for name in table.columns]]:
        changed[name] = table[name].map(change)
    return changed.rename(columns=change)


def _guard(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) and not _is_number(cell) else cell


def _unguard(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and cell.isprintable()
