"""Options of ``python -m analysis.run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from analysis.catalogue import kinds_for
from analysis.suite.definitions import SUITES, suite_of
from ntk_lpft.errors import InputError
from ntk_lpft.options import check_filled, option

PROG = "python -m analysis.run"
DESCRIPTION = "Run the paper's experiments, or go on with them: a suite of runs, each in a folder of its own."
LAUNCHERS = ("local", "slurm")


@dataclass(frozen=True)
class SuiteOptions:
    """Options of ``python -m analysis.run``."""

    TITLE: ClassVar[str] = "suite"

    suite: str = option("smoke", f"what to run: {'; '.join(f'{s.name} ({s.says})' for s in SUITES.values())}")
    only: list[str] = option([], "tables and figures to make the runs for, such as table2 figure7 (default: all)")
    datasets: list[str] = option([], "which of the suite's data sets (default: all)")
    methods: list[str] = option([], "which of lp, ft, lp-ft, lora, lp-lora (default: all)")
    seeds: list[int] = option([], "which of the suite's seeds (default: all)")
    launcher: str = option("local", "local (processes of this machine) or slurm")
    parallel: int | None = option(None, "most jobs at a time (default: one a GPU, else two; slurm: 100)")
    hours: float = option(48.0, "time limit of a job")
    slurm: list[str] = option([], "settings of submitit's Slurm executor: partition=NAME gpus_per_node=1 …")
    dry_run: bool = option(False, "list what would run, with an estimate, and stop")
    retry: bool = option(False, "run jobs again that failed")
    output_dir: str | None = option(None, "folder for the results (default: runs/SUITE)")

    def check(self) -> None:
        """Refuse what can be seen to be wrong at once.

        Raises:
            InputError: Some option makes no sense.
        """
        check_filled(self, "output_dir")
        suite_of(self.suite)
        if self.only:
            kinds_for(self.only)
        if self.launcher not in LAUNCHERS:
            raise InputError(f"unknown --launcher {self.launcher!r}; choose {' or '.join(LAUNCHERS)}")
        if self.parallel is not None and self.parallel < 1:
            raise InputError(f"--parallel {self.parallel} must be 1 or more")
        if not self.hours > 0:
            raise InputError(f"--hours {self.hours:g} must be more than 0")
        wrong = [word for word in self.slurm if "=" not in word]
        if wrong:
            raise InputError(f"--slurm {wrong[0]!r} must be NAME=VALUE")
        if self.slurm and self.launcher != "slurm":
            raise InputError("--slurm does nothing without --launcher slurm; leave it out")
