"""csv and tsv files of numbers: their cells, and whether the first line is a header."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from ntk_lpft.class_names import as_cell, is_whole, listed
from ntk_lpft.errors import InputError

_MOST_COLUMNS = 100_000
_LONGEST_LINE = 2**24  # characters of the first line, which is looked at by itself


@dataclass(frozen=True)
class TextColumns:
    """The cells of a csv or tsv file.

    Attributes:
        lines: Its cells as texts, (L, K), one row for each line that is not blank, without white space around them.
    """

    lines: Shaped[np.ndarray, "n k"]

    @classmethod
    def read(cls, path: Path, separator: str) -> TextColumns:
        """Read a file.

        Args:
            path: The file, in UTF-8 with or without a byte-order mark.
            separator: What stands between cells.

        Returns:
            Its cells.

        Raises:
            InputError: It is no such file, or its rows differ in length.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline(_LONGEST_LINE)
                if len(first) == _LONGEST_LINE or first.count(separator) >= _MOST_COLUMNS:
                    raise InputError(f"{path} is no table of numbers (its first line is too long to be one)")
            cells = pd.read_csv(path, sep=separator, header=None, encoding="utf-8-sig", dtype=str,
                                keep_default_na=False, skip_blank_lines=True, index_col=False, on_bad_lines="error",
                                quoting=csv.QUOTE_MINIMAL)  # fmt: skip
        except (ValueError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no table of numbers ({' '.join(str(error).split())})") from error
        return cls(cells.fillna("").map(str.strip).to_numpy())

    def numbers(
        self, count: int, where: str | Path, *, sure: bool
    ) -> tuple[tuple[str, ...] | None, Float64[np.ndarray, "n k"]]:
        """Tell the header from the numbers.

        A first line with a word in it is a header. So are the numbers 0, 1, …, C − 1, which pandas writes for columns
        that nobody named, but where the file has as many lines as there are labels.

        Args:
            count: How many labels there are, or lines in their file.
            where: How messages name the file.
            sure: Whether all of these lines are labels, and none a header.

        Returns:
            The header, if there is one, and the numbers.

        Raises:
            InputError: A cell is no number, the first column has no name, or the first line may be header or numbers.
        """
        first = [str(cell) for cell in self.lines[0]]
        counting = first == [str(number) for number in range(len(first))] and len(first) > 1
        words = not all(is_number(cell) for cell in first)
        if words and not first[0]:
            raise InputError(f"{where}: the first column has no name, as if it counted rows; write it without an index")
        if words or (counting and not self._is_row(count, sure, where)):
            return tuple(first), _as_floats(self.lines[1:], where)
        return None, _as_floats(self.lines, where)

    def _is_row(self, count: int, sure: bool, where: str | Path) -> bool:
        """Whether a first line 0, 1, … is one of numbers."""
        if count != len(self.lines) or sure:
            return count == len(self.lines)
        # The labels begin with 0, which may be a header as well: then numbers below tell headers of whole ones.
        rest = self.lines[1:].ravel()
        if all(cell.lstrip("+-").isdecimal() for cell in rest):
            raise InputError(f"{where}: the first line may be a header or a sample; write names over the columns")
        return False


def is_number(cell: str) -> bool:
    """Whether a cell is a number, NaN and infinity among them."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _as_floats(cells: Shaped[np.ndarray, "n k"], where: str | Path) -> Float64[np.ndarray, "n k"]:
    try:
        return cells.astype(np.float64)
    except ValueError as error:
        row, column = next(place for place, cell in np.ndenumerate(cells) if not is_number(cell))
        cell = str(cells[row, column])
        raise InputError(f"{where} is no table of numbers ({cell[:40]!r} in row {row}, column {column})") from error


def class_numbers(cells: Sequence[str], names: Sequence[str] | None, where: str | Path) -> tuple[list[int], bool]:
    """Read cells of labels.

    Args:
        cells: Class numbers, or names.
        names: Names of the classes in the order of their numbers; None where they have none.
        where: How messages name the file.

    Returns:
        Class numbers, and whether they were found by name.

    Raises:
        InputError: A cell is neither a whole number nor a name.
    """
    known = {as_cell(name): number for number, name in enumerate(names or ())}
    read = [as_cell(cell) for cell in cells]
    if known and all(cell in known for cell in read):
        return [known[cell] for cell in read], True
    for row, cell in enumerate(read):
        if not is_whole(cell):
            kinds = f"names of columns ({listed(names)}) or whole numbers" if names else "whole numbers"
            raise InputError(
                f"labels in {where} are not all {kinds} ({cells[row][:40]!r} in row {row}); give class indices 0, 1, …"
            )
    return [int(cell) for cell in read if not isinstance(cell, str)], False
