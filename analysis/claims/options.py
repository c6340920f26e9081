"""Options of ``python -m analysis.claims``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ntk_lpft.errors import InputError
from ntk_lpft.options import check_filled, option

PROG = "python -m analysis.claims"
DESCRIPTION = (
    "Measure the paper's qualitative claims on folders of fine-tuning runs, and print each with its value and a "
    "verdict. The runs are of one model and data set, of methods that are to be compared, with as many seeds as there "
    "are. FT ratios need --track-kernel 1 or more, the growth of the norm in a linear probe a run of method lp with "
    "--lp-solver adam. For claims about kernels and calibration see python -m analysis.tables."
)


@dataclass(frozen=True)
class ClaimsOptions:
    """Options of ``python -m analysis.claims``."""

    TITLE: ClassVar[str] = "runs"

    runs: list[str] = option([], "folders that `python -m ntk_lpft.finetune` wrote; the same as words without a flag")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: No folder, or one that does not exist.
        """
        if not self.runs:
            raise InputError("give the folders of one run or more; --help lists the options")
        check_filled(self, "runs")
        missing = [folder for folder in self.runs if not Path(folder).expanduser().is_dir()]
        if missing:
            raise InputError(f"run folder {missing[0]} does not exist; make it by python -m ntk_lpft.finetune")
