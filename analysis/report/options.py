"""Options of ``python -m analysis.report``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from analysis.options import ResultsOptions
from ntk_lpft.options import check_filled, option

PROG = "python -m analysis.report"
DESCRIPTION = (
    "Write one HTML page with the claims, tables and figures of a suite's results, its settings and how its jobs went. "
    "The page is one file: it needs no network, no other file and no JavaScript."
)


@dataclass(frozen=True)
class ReportOptions(ResultsOptions):
    """Options of ``python -m analysis.report``."""

    TITLE: ClassVar[str] = "report"

    output: str | None = option(None, "the page's file (default: report.html in the results)")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Not one results folder that exists.
        """
        self.check_results()
        check_filled(self, "output")
