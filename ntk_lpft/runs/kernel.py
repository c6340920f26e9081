"""The folder of ``python -m ntk_lpft.compute``: a kernel, what it says, and pictures of it."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json, without_nan
from ntk_lpft.runs.folder import RunFolder
from ntk_lpft.runs.schemas import KernelSummary, check_json
from ntk_lpft.storage import read_description, read_table, read_tensors, write_json, write_table


def _text(value: Any) -> str:
    return json.dumps(without_nan(value), sort_keys=True)


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
    SCRATCH = (PARTIAL_KERNEL,)
    MARKER = SUMMARY
    COMMAND = "python -m ntk_lpft.compute"

    @property
    def interrupted(self) -> bool:
        """Whether a run was broken off here and can go on."""
        return any(self.file(name).exists() for name in self.partial_kernels())

    def partial_kernels(self, processes: int = 1) -> list[str]:
        """Name the partial kernels of several processes, and of those that an interrupted run had.

        Args:
            processes: Number of processes.

        Returns:
            The first process's, and then the others' that may be there.
        """
        stem, ending = self.PARTIAL_KERNEL.rsplit(".", 1)
        left = [path.name for path in self.path.glob(f"{stem}-*.{ending}")] if self.path.is_dir() else []
        own = [self.PARTIAL_KERNEL, *(f"{stem}-{number}.{ending}" for number in range(1, processes))]
        return [*dict.fromkeys([*own, *sorted(name for name in left if re.fullmatch(rf"{stem}-\d+\.{ending}", name))])]

    def _stays(self, name: str) -> bool:
        return name in self.partial_kernels()  # to the very end

    def _proves_itself(self) -> bool:
        return super()._proves_itself() or self._partial_proves_itself()

    def _partial_proves_itself(self) -> bool:
        """Whether an earlier version of this project was interrupted here before it wrote its settings."""
        if not self.interrupted or any(self.file(name).exists() for name in self.RESULTS):
            return False
        try:
            identity = read_tensors(self.file(self.PARTIAL_KERNEL))[1].get("identity")
        except InputError:
            return False
        return isinstance(identity, dict) and "weights_sha256" in identity

    def drop_partial_kernels(self) -> None:
        """Remove partial kernels, as the run is complete or begins anew."""
        for name in self.partial_kernels():
            self.file(name).unlink(missing_ok=True)

    def write_tables(self, statistics: pd.DataFrame, groups: pd.DataFrame, summary: Mapping[str, Any]) -> None:
        """Write the statistics of P, F and P + F, those of F's parameter groups, and the summary of both."""
        write_table(self.file(self.STATISTICS), statistics)
        write_table(self.file(self.GROUPS), groups)
        write_json(self.file(self.SUMMARY), summary)

    def statistics(self) -> pd.DataFrame:
        """Read the statistics of P, F and P + F.

        Returns:
            A row for each kernel.

        Raises:
            InputError: The table is missing or damaged.
        """
        return read_table(self.believed(self.STATISTICS), ("kernel",))

    def groups(self) -> pd.DataFrame:
        """Read the shares of F's parameter groups.

        Returns:
            A row for each group; none where F is zero.

        Raises:
            InputError: The table is missing or damaged.
        """
        return read_table(self.believed(self.GROUPS), ("group", "trace_share"))

    def summary(self) -> dict[str, Any]:
        """Read the summary.

        Returns:
            The content of ``summary.json``.

        Raises:
            InputError: It is missing, damaged or altered, says what cannot be, or the kernel beside it is another's.
        """
        path = self.believed(self.SUMMARY)
        content = read_json(path)
        check_json(path, content, KernelSummary)
        self._check_kernel(content)
        return content

    def _check_kernel(self, summary: Mapping[str, Any]) -> None:
        """Refuse a kernel of another computation than that of the summary."""
        if not self.file(self.KERNEL).is_file() or "kernel" not in summary:
            return
        parts = read_description(self.believed(self.KERNEL)).get("ntk", {})
        if "train" not in parts or _text(parts["train"].get("metadata")) != _text(summary["kernel"]):
            raise InputError(
                f"{self.path} holds files of two runs: {self.KERNEL} is not of the computation that {self.SUMMARY} "
                "tells of; run it again"
            )
