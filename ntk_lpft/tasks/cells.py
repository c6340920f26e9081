"""What stands in a cell of a label column: a number, a word, or nothing."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from ntk_lpft.class_names import Cell, as_cell
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import check_text

# As databases, spreadsheets, pandas and data sets spell that there is no value ("-" is SNLI's).
_MISSING = frozenset(
    {"NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "None", "NULL", "Null", "null", "NaN", "NAN", "nan", "-nan", "-NaN",
     "?", "-", r"\N"}
)  # fmt: skip


def read_cell(value: Any, known: Sequence[str] = ()) -> Cell | None:
    """Read a label.

    Args:
        value: As a file's format gives it.
        known: Texts that are labels although they look like missing ones.

    Returns:
        A number, or a text without white space around it; None where there is no label.

    Raises:
        InputError: The value is neither.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, (bool, int, float, Decimal)):
        return _number(value)
    if not isinstance(value, str):
        raise InputError(f"label {value!r:.60} is neither text nor a number")
    check_text(value, "the label")
    text = value.strip().strip("\ufeff\u200b").strip()
    if text in known:
        return as_cell(text)
    return None if not text or text in _MISSING else as_cell(text)


def _number(value: bool | int | float | Decimal) -> Cell | None:
    if isinstance(value, bool):
        return str(value)
    if value != value:
        return None
    if isinstance(value, int) and value.bit_length() > 200:
        raise InputError("the label is a whole number of more than 60 digits, which is no class")
    return Decimal(repr(value) if isinstance(value, float) else value)
