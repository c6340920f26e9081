"""Cells of a table: numbers of several seeds put together, beside the paper's, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

Style = Literal["percent", "similarity", "ratio", "count", "number"]
NOTHING = "–"
PAPER_HEADER = "paper (Δ)"

_HEADERS = {"dataset": "data set", "metric": "score"}
_METHODS = {"": "all", "lp": "LP", "ft": "FT", "lora": "LoRA", "lp-ft": "LP-FT", "lp-lora": "LP-LoRA"}
_PLACES = {"percent": 2, "similarity": 3, "ratio": 4}


@dataclass(frozen=True)
class Measure:
    """What a column shows.

    Attributes:
        name: In the tidy table, and in the file of the paper's numbers.
        header: For people.
        style: How it is written: with two decimals (percent), three (similarity), four (ratio), as a whole number
            (count), or with three figures (number).
    """

    name: str
    header: str
    style: Style = "number"


@dataclass(frozen=True)
class Paper:
    """A number that the paper prints, with its standard deviation where that is printed too."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Cell:
    """One number, over seeds.

    Attributes:
        values: By seed.
        asked: The seeds that were asked for.
        paper: The paper's number.
    """

    values: Mapping[int, float]
    asked: frozenset[int] = frozenset()
    paper: Paper | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN without any."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over seeds (``ddof`` 1); NaN for fewer than two, and where values are infinite."""
        values = list(self.values.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else math.nan

    @property
    def difference(self) -> float:
        """The mean less the paper's number; NaN where one of them is not there."""
        return math.nan if self.paper is None else self.mean - self.paper.mean

    def text(self, style: Style) -> str:
        """Write mean and standard deviation, and how many seeds are missing."""
        few = f" ({len(self.values)} of {len(self.asked)})" if len(self.values) < len(self.asked) else ""
        return write_number(self.mean, style, self.std) + few

    def paper_text(self, style: Style) -> str:
        """Write the paper's number, and the difference from it."""
        if self.paper is None:
            return NOTHING
        number = write_number(self.paper.mean, style, math.nan if self.paper.std is None else self.paper.std)
        return number if math.isnan(self.difference) else f"{number} ({write_difference(self.difference, style)})"


@dataclass(frozen=True)
class Row:
    """A row: what it is of, and its cells.

    Attributes:
        of: A text for each of the table's key columns.
        cells: By the measure's name; a measure that makes no sense here is left out.
    """

    of: tuple[str, ...]
    cells: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether no cell has a number of this row's own, nor was asked for one."""
        return not any(cell.values or cell.asked for cell in self.cells.values())


def tidy(keys: Sequence[str], measures: Sequence[Measure], rows: Iterable[Row]) -> pd.DataFrame:
    """Make one line for each cell.

    Returns:
        The key columns, then ``measure``, ``mean``, ``std``, ``seeds``, ``asked``, ``paper``, ``paper_std`` and
        ``difference``.
    """
    lines = []
    for row in rows:
        for measure in measures:
            cell = row.cells.get(measure.name)
            if cell is None:
                continue
            paper = cell.paper or Paper(math.nan)
            lines.append(
                {
                    **dict(zip(keys, row.of, strict=True)),
                    "measure": measure.name,
                    "mean": cell.mean,
                    "std": cell.std,
                    "seeds": len(cell.values),
                    "asked": len(cell.asked),
                    "paper": paper.mean,
                    "paper_std": math.nan if paper.std is None else paper.std,
                    "difference": cell.difference,
                }
            )
    return pd.DataFrame(lines)


def lay_out(keys: Sequence[str], measures: Sequence[Measure], rows: Sequence[Row]) -> pd.DataFrame:
    """Write the cells as texts, one line a row; the paper's number stands beside where any row has one."""
    columns: dict[tuple[str, str], list[str]] = {
        (_HEADERS.get(key, key), ""): [_named(key, row.of[i]) for row in rows] for i, key in enumerate(keys)
    }
    for measure in measures:
        cells = [row.cells.get(measure.name) for row in rows]
        beside = any(cell is not None and cell.paper is not None for cell in cells)
        columns[measure.header, "here" if beside else ""] = [
            NOTHING if cell is None else cell.text(measure.style) for cell in cells
        ]
        if beside:
            columns[measure.header, PAPER_HEADER] = [
                NOTHING if cell is None else cell.paper_text(measure.style) for cell in cells
            ]
    layout = pd.DataFrame(dict(enumerate(columns.values())), dtype=object)
    layout.columns = pd.MultiIndex.from_tuples(columns)
    return layout


def _named(key: str, text: str) -> str:
    """Write what a row is of, for people."""
    if key == "method":
        return _METHODS.get(text, text)
    if key == "test":
        return f"{text.removeprefix('ood.')} (OOD)" if text.startswith("ood.") else f"{text} (ID)"
    return text


def write_number(value: float, style: Style, spread: float = math.nan) -> str:
    """Write a number, with ``± spread`` where there is one; a dash for NaN.

    Numbers of style ``number`` have three figures; those from 10⁴ on and below 10⁻³ a power of ten: ``5.10e4``.
    """
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    known = not math.isnan(spread)
    if style == "ratio" and value and not float(f"{value:.4f}"):
        style = "number"  # four decimals would leave nothing of it
    if style == "number":
        largest = max(abs(value), spread if known else 0.0)
        power = _power(largest)
        if largest and not -3 <= power < 4:
            text = _decimal(value / 10.0**power, 2)
            return f"({text} ± {spread / 10.0**power:.2f})e{power}" if known else f"{text}e{power}"
        places = max(0, 2 - power) if largest else 0
    elif style == "count":
        places = 0 if _whole(value, spread) else 1
    else:
        places = _PLACES[style]
    return _decimal(value, places) + (f" ± {spread:.{places}f}" if known else "")


def write_difference(value: float, style: Style) -> str:
    """Write a difference with its sign."""
    text = write_number(abs(value), style)
    if not any(digit in text for digit in "123456789∞"):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def _power(value: float) -> int:
    """Find the power of ten of a number as it is written with three figures."""
    return int(f"{value:.2e}".split("e")[1]) if value else 0


def _whole(*values: float) -> bool:
    return all(math.isnan(value) or float(value).is_integer() for value in values)


def _decimal(value: float, places: int) -> str:
    text = f"{abs(value):.{places}f}"
    return f"−{text}" if value < 0 and float(text) else text
