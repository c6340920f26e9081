"""Labels as they stand in a user's files become class numbers 0 to C - 1, the same in every file of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from jaxtyping import Int64

from ntk_lpft.class_names import Cell, as_cell, is_whole, listed, look, shortened, written
from ntk_lpft.errors import InputError
from ntk_lpft.tasks.cells import read_cell
from ntk_lpft.tasks.tables import Record, at_row

_NAME_THEM = "name the classes in their order by --label-names (label_names)"
_FEW_ROWS = 10  # too few to tell that a column is none of labels


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one file.

    Attributes:
        where: How messages name the file.
        name: Of the column.
        values: What stands in it, row by row.
    """

    where: str
    name: str
    values: Sequence[Any]

    @classmethod
    def of(cls, records: Sequence[Record], column: str, where: str) -> LabelColumn:
        """Take a file's label column.

        Args:
            records: Rows of the file.
            column: Name of the column.
            where: How messages name the file.

        Returns:
            The column.

        Raises:
            InputError: A row does not have it.
        """
        for row, record in enumerate(records):
            if column not in record:
                columns = listed([repr(name) for name in record]) or "none"
                raise InputError(f"{at_row(where, row)} has no column {column!r}; its columns are {columns}")
        return cls(where, column, [record[column] for record in records])


def settle_labels(
    columns: Sequence[LabelColumn], label_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[Int64[np.ndarray, " n"]]]:
    """Settle the classes by the training labels, and number those of every file by them.

    Numbers are the same however they are written (``1``, ``01``, ``1.0``). Where they begin with 0 they must go on to
    C - 1 and stand for themselves; others, such as 1 to 5 or -1 and 1, are names, in the order of the numbers. Words
    are names in sorted order, and may not stand beside numbers. Where names are given, labels are these names or, if
    none of the names is itself a number, their numbers.

    Args:
        columns: The labels of each file, those of training first.
        label_names: The classes in the order of their numbers; None to take them from the training labels.

    Returns:
        Names of the classes in the order of their numbers, and the class numbers of each file's rows.

    Raises:
        InputError: A label is missing or is none; numbers stand beside words, or have a gap; two names could be taken
            for each other; or a file has a class that training has not.
    """
    known = () if label_names is None else tuple(name.strip() for name in label_names)
    cells = [_cells_of(column, known) for column in columns]
    if label_names is None:
        cells = _with_truth_values(cells)
        order = _classes_of(columns[0].where, cells[0])
        table: dict[Cell, int] = {cell: number for number, cell in enumerate(order)}
        names = tuple(written(cell) for cell in order)
    else:
        table, names = _named(known), known
    numbers = [_numbered(column, read, table, names) for column, read in zip(columns, cells, strict=True)]
    return names, numbers


def _cells_of(column: LabelColumn, known: Sequence[str]) -> list[Cell]:
    cells = []
    for row, value in enumerate(column.values):
        try:
            cell = read_cell(value, known)
        except InputError as error:
            raise InputError(f"{at_row(column.where, row)}: {error}; correct it") from error
        if cell is None:
            as_class = f"; if {value!r} is a class, {_NAME_THEM}" if isinstance(value, str) and value.strip() else ""
            said = f" but {value!r}" if as_class else ""
            raise InputError(
                f"{at_row(column.where, row)} has no label in column {column.name!r}{said}; fill it, or remove the row"
                f"{as_class}"
            )
        cells.append(cell)
    return cells


def _with_truth_values(cells: Sequence[list[Cell]]) -> list[list[Cell]]:
    """Write truth values alike (``true``, ``TRUE``, ``True``), where training has no other label."""
    if not {look(cell) if isinstance(cell, str) else "" for cell in cells[0]} <= {"true", "false"}:
        return list(cells)
    return [[look(cell).capitalize() if isinstance(cell, str) else cell for cell in read] for read in cells]


def _classes_of(where: str, cells: Sequence[Cell]) -> list[Cell]:
    """Choose the classes from training labels, in the order of their numbers."""
    _check_kinds(where, cells)
    counts = Counter(cells)
    if len(cells) >= _FEW_ROWS and 2 * len(counts) > len(cells):
        raise InputError(
            f"{where}: the label column has {len(counts)} classes in {len(cells)} rows, such as "
            f"{listed([written(cell) for cell in counts], 3)}; name the column of labels by --label-column, or, if "
            f"these are the classes, {_NAME_THEM}"
        )
    if isinstance(cells[0], str):
        _check_looks(where, cells)
        order = sorted(counts, key=str)
    else:
        order = _in_numeric_order(where, cells)
    if len(order) < 2:
        raise InputError(f"{where}: {one_class(written(order[0]))}")
    return order


def one_class(name: str) -> str:
    """Say that training data has no second class."""
    return f"every training row is of class {shortened(name)!r}; give rows of two classes or more"


def _check_kinds(where: str, cells: Sequence[Cell]) -> None:
    """Refuse numbers beside words, and name a row of the rarer kind."""
    words = [isinstance(cell, str) for cell in cells]
    if any(words) and not all(words):
        rare = sum(words) * 2 <= len(words)
        row, other = words.index(rare), words.index(not rare)
        raise InputError(
            f"{at_row(where, row)}: label {shortened(written(cells[row]))!r} among labels such as "
            f"{shortened(written(cells[other]))!r}: numbers and words side by side; correct it, or {_NAME_THEM}"
        )


def _check_looks(where: str, cells: Sequence[Cell]) -> None:
    seen: dict[str, tuple[int, Cell]] = {}
    for row, cell in enumerate(cells):
        first, other = seen.setdefault(look(str(cell)), (row, cell))
        if other != cell:
            raise InputError(
                f"{at_row(where, row)}: label {cell!a} looks like {other!a} in row {first}, but is another; "
                f"write one class in one way, or {_NAME_THEM}"
            )


def _in_numeric_order(where: str, cells: Sequence[Cell]) -> list[Cell]:
    for row, cell in enumerate(cells):
        if isinstance(cell, str) or not is_whole(cell):
            raise InputError(
                f"{at_row(where, row)}: label {written(cell)} is neither text nor a whole number; correct it, or, if "
                f"it is a class, {_NAME_THEM}"
            )
    order = sorted({cell for cell in cells if isinstance(cell, Decimal)})
    if order[0] < 0 and 0 in order and [cell for cell in order if cell < 0] == [-1]:
        row = list(cells).index(Decimal(-1))
        raise InputError(
            f"{at_row(where, row)}: label -1 beside 0 to {order[-1]}, as rows without a label have it; remove them, "
            f"or, if -1 is a class, {_NAME_THEM}"
        )
    if order[0] == 0 and order[-1] >= len(order):
        gap = next(number for number in range(len(order) + 1) if number not in order)
        raise InputError(
            f"{where}: labels go up to {written(order[-1])} but none is {gap}; number the classes from 0, or "
            f"{_NAME_THEM}"
        )
    return list(order)


def _named(names: Sequence[str]) -> dict[Cell, int]:
    """Which class a label is of, where the names of the classes are given."""
    if len(names) < 2:
        raise InputError(f"label names {listed(names) or '(none)'}: give two classes or more")
    cells = [as_cell(name) for name in names]
    if len(set(cells)) < len(cells) or "" in cells:
        raise InputError(f"label names {listed(names)} must be distinct, and none of them empty")
    table: dict[Cell, int] = {cell: number for number, cell in enumerate(cells)}
    if any(isinstance(cell, Decimal) for cell in cells):
        return table
    return {Decimal(number): number for number in range(len(names))} | table


def _numbered(
    column: LabelColumn, cells: Sequence[Cell], table: Mapping[Cell, int], names: Sequence[str]
) -> Int64[np.ndarray, " n"]:
    for row, cell in enumerate(cells):
        if cell not in table:
            raise InputError(
                f"{at_row(column.where, row)}: label {shortened(written(cell))!r} {_why_unknown(cell, table, names)}"
            )
    return np.array([table[cell] for cell in cells], dtype=np.int64)


def _why_unknown(cell: Cell, table: Mapping[Cell, int], names: Sequence[str]) -> str:
    by_number = len(table) > len(names)
    text = f"is none of the classes {listed(names)}"
    if by_number:
        text = f"is neither one of {listed(names)} nor a number from 0 to {len(names) - 1}"
    alike = [name for name in names if isinstance(cell, str) and look(name) == look(cell)]
    if alike:
        return f"({cell!a}) {text}, though it looks like {alike[0]!a}; write one class in one way"
    if cell == -1:
        return f"{text}, but what rows without a label have; leave such rows out"
    if by_number:
        return f"{text}; correct it"
    if isinstance(cell, str) == isinstance(next(iter(table)), str):
        return f"{text}; correct it, give training rows of it, or {_NAME_THEM}"
    return f"{text}: numbers in one file and words in another; correct one, or {_NAME_THEM}"
