"""The folder of ``python -m analysis.run``: a suite's jobs, each with a folder, a record and a log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.storage import write_json


class SuiteFolder:
    """Results of a suite.

    Args:
        path: The folder; it need not exist.
    """

    SUITE: ClassVar[str] = "suite.json"
    JOBS: ClassVar[str] = "jobs"
    TABLES: ClassVar[str] = "tables"
    FIGURES: ClassVar[str] = "figures"
    REPORT: ClassVar[str] = "report.html"
    LAUNCHER: ClassVar[str] = ".submitit"  # the launcher's own files, which go when all is done
    COMMAND: ClassVar[str] = "python -m analysis.run"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @property
    def begun(self) -> bool:
        """Whether a suite has been run here."""
        return (self.path / self.SUITE).is_file()

    @property
    def lock(self) -> Path:
        """File that is locked while a process runs the suite."""
        return self.path / f".{self.SUITE}.lock"

    @property
    def launcher(self) -> Path:
        """Folder of the launcher's own files."""
        return self.path / self.JOBS / self.LAUNCHER

    def job(self, name: str) -> Path:
        """Folder of a job's results."""
        return self.path / name

    def record(self, name: str) -> Path:
        """File that says how a job went."""
        return self.path / self.JOBS / f"{name}.json"

    def log(self, name: str) -> Path:
        """File of what a job printed."""
        return self.path / self.JOBS / f"{name}.log"

    def job_lock(self, name: str) -> Path:
        """File that is locked while a process runs the job."""
        return self.path / self.JOBS / f"{name}.lock"

    def write(self, content: Mapping[str, Any]) -> None:
        """Write what the suite is, and which jobs were asked for."""
        write_json(self.path / self.SUITE, content)

    def read(self) -> dict[str, Any]:
        """Read what the suite is, and which jobs were asked for.

        Returns:
            The content of ``suite.json``.

        Raises:
            InputError: There is no suite here, or its description is damaged.
        """
        path = self.path / self.SUITE
        if not path.is_file():
            raise InputError(f"{self.path} holds no results of a suite (no {self.SUITE}); make them by {self.COMMAND}")
        return read_json(path)
