"""A table: tidy numbers for programs, the same numbers laid out for people, and what has to be said beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from analysis.tables import render
from ntk_lpft.csv_cells import guarded


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the results.

    Attributes:
        name: As on the command line, such as ``table2``.
        title: What it shows.
        frame: One row a number: what it is of (``dataset``, ``method``, …), ``measure``, ``mean`` and ``std`` over
            seeds (``ddof`` 1; missing for one seed), ``seeds`` that there are and how many were ``asked`` for, and,
            where the paper has one, its number (``paper``, ``paper_std``) and the ``difference`` of the mean from it.
        layout: The same for people: texts such as ``24.8 ± 0.3 (2 of 3)``. Columns have two levels, the lower of them
            empty where there is nothing to tell apart.
        keys: How many columns of the layout say what a row is of.
        note: How the set-up differs from the paper's, and what the numbers are.
        problems: What is missing or broken, a line each.
    """

    name: str
    title: str
    frame: pd.DataFrame
    layout: pd.DataFrame
    keys: int
    note: str
    problems: list[str] = field(default_factory=list)

    def to_csv(self) -> str:
        """Return the tidy numbers as csv, in full precision, without formulas for spreadsheets."""
        return guarded(self.frame).to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """Return title, layout, note and problems as GitHub's Markdown."""
        return render.markdown(self.title, self.layout, self.keys, self.note, self.problems)

    def to_latex(self) -> str:
        """Return a LaTeX environment, in ASCII, whose first line names the packages that it needs."""
        return render.latex(self.name, self.title, self.layout, self.keys, self.note, self.problems)

    def to_html(self) -> str:
        """Return the ``<table>`` element alone, with its title as caption; note and problems are left to the page."""
        return render.html_table(self.name, self.title, self.layout, self.keys)
