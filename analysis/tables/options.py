"""Options of ``python -m analysis.tables``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from analysis.catalogue import TABLES, item_of
from analysis.options import ResultsOptions
from ntk_lpft.errors import InputError
from ntk_lpft.options import check_filled, option

PROG = "python -m analysis.tables"
DESCRIPTION = (
    "Make the paper's tables from the results of a suite, each as csv (one line a number), Markdown and LaTeX: mean ± "
    "standard deviation over seeds, beside the paper's numbers where there are any, and the paper's claims with a "
    "verdict on each. Tables made before are made anew."
)
CLAIMS = "claims"
NAMES = (*(item.name for item in TABLES), CLAIMS)


@dataclass(frozen=True)
class TableOptions(ResultsOptions):
    """Options of ``python -m analysis.tables``."""

    TITLE: ClassVar[str] = "tables"

    only: list[str] = option([], f"which of {', '.join(NAMES)}; the paper's other numbers do as well")
    output_dir: str | None = option(None, "folder for the tables (default: RESULTS/tables)")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Not one results folder that exists, or an unknown table.
        """
        self.check_results()
        check_filled(self, "output_dir")
        self.names()

    def names(self) -> list[str]:
        """Names of the tables that are asked for.

        Raises:
            InputError: There is no such table.
        """
        return list(dict.fromkeys(_table(word) for word in self.only)) or list(NAMES)


def _table(word: str) -> str:
    """Find a table by its name, or by another of the paper's numbers for it.

    Raises:
        InputError: There is none.
    """
    if word == CLAIMS:
        return word
    try:
        item = item_of(word)
    except InputError:
        item = None
    if item not in TABLES or item is None:
        raise InputError(f"--only: unknown table {word!r}; choose from {', '.join(NAMES)}")
    return item.name
