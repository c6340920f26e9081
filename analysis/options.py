"""What the commands on a suite's results share: which results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ntk_lpft.errors import InputError
from ntk_lpft.options import check_filled, option


@dataclass(frozen=True)
class ResultsOptions:
    """The results of a suite."""

    TITLE: ClassVar[str] = "results"

    results: list[str] = option([], "results folder of `python -m analysis.run`; the same as the word without a flag")

    def check_results(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Not one results folder, or one that does not exist.
        """
        if len(self.results) != 1:
            raise InputError(f"give one results folder, not {len(self.results)}; --help lists the options")
        check_filled(self, "results")
        if not Path(self.results[0]).expanduser().is_dir():
            raise InputError(f"results folder {self.results[0]} does not exist; make it by python -m analysis.run")
