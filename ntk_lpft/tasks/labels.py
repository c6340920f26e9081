"""Labels as they stand in a user's files become class numbers 0 to C - 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.tables import Record, at_row


def label_values(records: Sequence[Record], column: str, where: str) -> list[str]:
    """Return the labels as texts, with whole numbers and truth values written in one way.

    Args:
        records: Rows of a file.
        column: Name of the label column.
        where: How messages name the file.

    Returns:
        The label of each row.

    Raises:
        InputError: The column or a value is missing, or a value is neither text, truth value nor whole number.
    """
    return [_label_text(record, column, where, row) for row, record in enumerate(records)]


def _label_text(record: Record, column: str, where: str, row: int) -> str:
    if column not in record:
        raise InputError(f"{at_row(where, row)} has no column {column!r}; its columns are {', '.join(record)}")
    value: Any = record[column]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (bool, int, str)) and str(value).strip():
        return str(value).strip()
    if value is None or value == "" or value != value:
        raise InputError(f"{at_row(where, row)} has no label in column {column!r}; fill it, or remove the row")
    raise InputError(f"{at_row(where, row)}: label {value!r} is neither text nor a whole number; correct it")


def choose_label_names(values: Sequence[str], where: str) -> tuple[str, ...]:
    """Choose the classes from training labels.

    Whole numbers stand for themselves and must be 0 to C - 1, each at least once; other labels are numbered in sorted
    order.

    Args:
        values: The label of each training row, as ``label_values`` gives it.
        where: How messages name the file.

    Returns:
        Names of the classes, in the order of their numbers.

    Raises:
        InputError: Numbers with a gap or a wrong start, or numbers mixed with words.
    """
    numeric = [_is_whole(value) for value in values]
    if not any(numeric):
        return tuple(sorted(set(values)))
    if not all(numeric):
        row = numeric.index(not numeric[0])
        raise InputError(
            f"{at_row(where, row)}: label {values[row]!r} among labels such as {values[0]!r}; "
            "correct it, or give label_names"
        )
    present = {int(value) for value in values}
    count = max(present) + 1
    lowest = min(present)
    if lowest < 0:
        row = [int(value) for value in values].index(lowest)
        raise InputError(
            f"{at_row(where, row)}: label {lowest} is outside 0 to {count - 1}; classes are numbered from 0"
        )
    if len(present) != count:
        gap = next(number for number in range(count) if number not in present)
        raise InputError(
            f"{where}: labels go up to {count - 1} but none is {gap}; number the classes from 0, or give label_names"
        )
    return tuple(str(number) for number in range(count))


def to_numbers(values: Sequence[str], label_names: Sequence[str], where: str) -> Int64[np.ndarray, " n"]:
    """Give labels their place in ``label_names``; numbers 0 to C - 1 stay as they are.

    Args:
        values: The label of each row, as ``label_values`` gives it.
        label_names: Names of the C classes, in the order of their numbers.
        where: How messages name the file.

    Returns:
        Class numbers, (N,).

    Raises:
        InputError: A label that is neither a name nor a class number.
    """
    numbers = {str(number): number for number in range(len(label_names))}
    numbers.update({name: number for number, name in enumerate(label_names)})
    for row, value in enumerate(values):
        if value not in numbers:
            raise InputError(
                f"{at_row(where, row)}: label {value!r} is neither one of {', '.join(label_names)} nor a number "
                f"from 0 to {len(label_names) - 1}; correct it"
            )
    return np.array([numbers[value] for value in values], dtype=np.int64)


def _is_whole(value: str) -> bool:
    return value.removeprefix("-").isdecimal() and value.isascii()
