"""The folder of ``python -m ntk_lpft.compute``: a kernel, what it says, and pictures of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd

from ntk_lpft.json_files import read_json
from ntk_lpft.runs.folder import RunFolder
from ntk_lpft.storage import write_json, write_table


class KernelRun(RunFolder):
    """P and F of a classifier on a data set."""

    KERNEL: ClassVar[str] = "kernel.safetensors"
    SUMMARY: ClassVar[str] = "summary.json"
    STATISTICS: ClassVar[str] = "statistics.csv"
    GROUPS: ClassVar[str] = "groups.csv"
    SINGULAR_VALUES: ClassVar[str] = "singular_values.png"
    BLOCK_NORMS: ClassVar[str] = "block_norms.png"
    GROUP_SHARES: ClassVar[str] = "group_shares.png"
    PARTIAL_KERNEL: ClassVar[str] = "partial.safetensors"  # of an interrupted run; it is removed at the very end
    RESULTS = (
        RunFolder.CONFIG,
        KERNEL,
        SUMMARY,
        STATISTICS,
        GROUPS,
        SINGULAR_VALUES,
        BLOCK_NORMS,
        GROUP_SHARES,
    )
    MARKER = SUMMARY
    COMMAND = "python -m ntk_lpft.compute"

    @property
    def interrupted(self) -> bool:
        """Whether a run was broken off here and can go on."""
        return self.file(self.PARTIAL_KERNEL).exists()

    def drop_partial_kernel(self) -> None:
        """Remove the partial kernel, as the run is complete or begins anew."""
        self.file(self.PARTIAL_KERNEL).unlink(missing_ok=True)

    def write_tables(self, statistics: pd.DataFrame, groups: pd.DataFrame, summary: Mapping[str, Any]) -> None:
        """Write the statistics of P, F and P + F, those of F's parameter groups, and the summary of both."""
        write_table(self.file(self.STATISTICS), statistics)
        write_table(self.file(self.GROUPS), groups)
        write_json(self.file(self.SUMMARY), summary)

    def summary(self) -> dict[str, Any]:
        """Read the summary.

        Returns:
            The content of ``summary.json``.

        Raises:
            InputError: It is missing, damaged or altered.
        """
        return read_json(self.believed(self.SUMMARY))
