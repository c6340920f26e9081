"""The folder of ``python -m analysis.run``: a suite's jobs, each with a folder, a record and a log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ntk_lpft.checksums import read_sealed, write_sealed
from ntk_lpft.errors import InputError
from ntk_lpft.runs.folder import RunFolder
from ntk_lpft.runs.ledger import Ledger


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

    def check_own(self, names: Iterable[str]) -> None:
        """Refuse a folder in which something that a suite would write is not a suite's.

        Args:
            names: Folders that it writes, besides that of its records.

        Raises:
            InputError: One is there though no suite was run, or is a symbolic link.
        """
        for name in (self.SUITE, self.JOBS, *names):
            path = self.path / name
            if path.is_symlink():
                raise InputError(
                    f"output folder {self.path} holds {name}, a symbolic link, through which nothing is written; "
                    "choose another --output-dir, or move the link away"
                )
            if path.exists() and not self.begun:
                raise InputError(
                    f"output folder {self.path} holds {name}, which no run of `{self.COMMAND}` wrote (there is no "
                    f"{self.SUITE}); choose another --output-dir, or move it away"
                )

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
        write_sealed(self.path / self.SUITE, content)

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
        return read_sealed(path)


class DrawnFolder(RunFolder):
    """A folder of tables or figures, which are made anew whenever they are asked for.

    Args:
        path: The folder; it need not exist.
        suite: The suite whose results they show.
    """

    MARKER = Ledger.NAME  # there is no end to come to

    def __init__(self, path: str | Path, suite: SuiteFolder) -> None:
        super().__init__(path)
        self._own = suite.begun and self.path in (suite.path / suite.TABLES, suite.path / suite.FIGURES)

    def _proves_itself(self) -> bool:
        return self._own  # the suite's own place for them

    def _adopted(self) -> list[str]:
        return [*self._names(), *(path.name for path in self.path.glob("[!.]*") if path.is_file())]


class TablesFolder(DrawnFolder):
    """The folder of ``python -m analysis.tables``."""

    COMMAND = "python -m analysis.tables"


class FiguresFolder(DrawnFolder):
    """The folder of ``python -m figures``."""

    COMMAND = "python -m figures"
