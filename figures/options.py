"""Options of ``python -m figures``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from analysis.catalogue import FIGURES
from analysis.options import ResultsOptions
from ntk_lpft.errors import InputError
from ntk_lpft.options import check_filled, option

PROG = "python -m figures"
DESCRIPTION = (
    "Draw the paper's figures from the results of a suite, each as a png of at most 300 kB and as a pdf of vectors. "
    "Figures drawn before are drawn anew; those whose jobs have no results are named and left out."
)
NAMES = tuple(item.name for item in FIGURES)


@dataclass(frozen=True)
class FigureOptions(ResultsOptions):
    """Options of ``python -m figures``."""

    TITLE: ClassVar[str] = "figures"

    only: list[str] = option([], f"which of {', '.join(NAMES)}")
    output_dir: str | None = option(None, "folder for the figures (default: RESULTS/figures)")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Not one results folder that exists, or an unknown figure.
        """
        self.check_results()
        check_filled(self, "output_dir")
        unknown = [name for name in self.only if name not in NAMES]
        if unknown:
            raise InputError(f"--only: unknown figure {unknown[0]!r}; choose from {', '.join(NAMES)}")
