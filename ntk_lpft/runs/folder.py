"""A folder of results: what it may hold, what may be replaced in it, and when it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ntk_lpft.checksums import CHECKSUMS, check_file, read_checksums, write_checksums
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.storage import remove_partials, write_json

_PROMISE = "checksums"  # the setting that tells a run that is not complete from one of a version without checksums


class RunFolder:
    """The folder of one run of a command. Subclasses name its files, and read and write them.

    Args:
        path: The folder; it need not exist.

    Attributes:
        path: The folder.
        CONFIG: Settings, versions and data of the run, which replay it by ``--config``.
        RESULTS: Names of all files that the command writes.
        MARKER: The last of the results; the run is complete once their checksums are written, after it.
        COMMAND: How the command is called.
    """

    CONFIG: ClassVar[str] = "config.json"
    RESULTS: ClassVar[Sequence[str]] = ()
    MARKER: ClassVar[str]
    COMMAND: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.path / name

    @property
    def begun(self) -> bool:
        """Whether a run has begun in the folder."""
        return self.file(self.CONFIG).is_file()

    @property
    def finished(self) -> bool:
        """Whether the folder holds a run that came to its end."""
        return self.file(self.MARKER).is_file() and (self.file(CHECKSUMS).is_file() or not self._promises_checksums())

    def _promises_checksums(self) -> bool:
        """Whether the run was to write checksums; those of earlier versions were not."""
        path = self.file(self.CONFIG)
        try:
            return path.is_file() and _PROMISE in read_json(path)
        except InputError:
            return True

    def seal(self) -> None:
        """Write the checksums of all files that are there: the run is complete, and they will not change any more."""
        write_checksums(self.path, self.sealed_files())

    def sealed_files(self) -> list[str]:
        """Paths, from the folder, of the files that get a checksum."""
        return [name for name in self.RESULTS if self.file(name).is_file()]

    def sealed(self, name: str) -> bool:
        """Whether the complete run had a file of that name."""
        return self.file(CHECKSUMS).is_file() and name in read_checksums(self.path)

    def believed(self, name: str) -> Path:
        """Find a file, and make sure that it is as the run wrote it.

        Args:
            name: The file's path from the folder.

        Returns:
            Its path; without a look at it where the run is not complete, or of a version that wrote no checksums.

        Raises:
            InputError: A complete run's file is gone or was altered, or the checksums are.
        """
        if self.file(CHECKSUMS).is_file():
            return check_file(self.path, name, read_checksums(self.path))
        if self.file(self.MARKER).is_file() and self._promises_checksums():
            raise InputError(
                f"{self.path} has no {CHECKSUMS}, so that nobody knows whether its files are as they were written; "
                f"run `{self.COMMAND}` again"
            )
        return self.file(name)

    def written(self) -> list[str]:
        """Names of the results that are there."""
        return [name for name in self.RESULTS if self.file(name).exists()]

    def open(self, *, overwrite: bool, more: Iterable[str] = ()) -> None:
        """Make the folder, and make sure that nothing in it gets lost; no file in it is changed.

        Args:
            overwrite: Whether results of an earlier run may be replaced.
            more: Names of files that are written besides `RESULTS`.

        Raises:
            InputError: The folder cannot be written, or holds results.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".{os.getpid()}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"output folder {self.path} cannot be written ({error.strerror})") from error
        used = [name for name in (*self.RESULTS, *more) if self.file(name).exists()]
        if used and not overwrite:
            raise InputError(
                f"output folder {self.path} already holds {', '.join(used[:3])}; "
                "choose another --output-dir, or give --overwrite"
            )

    def clear(self) -> None:
        """Remove what an earlier run wrote, and what killed processes left; not each file is written again."""
        for name in (CHECKSUMS, *self.RESULTS):
            self.file(name).unlink(missing_ok=True)
        remove_partials(self.path)

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write the settings of the run, under the name of its command."""
        write_json(self.file(self.CONFIG), {"command": self.COMMAND, _PROMISE: CHECKSUMS, **content})

    def config(self) -> dict[str, Any]:
        """Read the settings of the run.

        Returns:
            The content of ``config.json``: ``command``, and what ``write_config`` was given.

        Raises:
            InputError: They are missing, damaged or altered.
        """
        return read_json(self.believed(self.CONFIG))

    def check_same(self, content: Mapping[str, Any], parts: Sequence[str]) -> None:
        """Refuse to go on with a run under other settings.

        Args:
            content: What `write_config` would now be given.
            parts: Which parts of it to compare, such as ``options``.

        Raises:
            InputError: They differ, or the config is damaged.
        """
        path = self.file(self.CONFIG)
        try:
            before = self.config() if self.finished else read_json(path)
            stored = {part: dict(before[part]) for part in parts}
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"--resume: {path} is damaged; start anew with --overwrite") from error
        for part in parts:
            old, new = stored[part], json.loads(json.dumps(content[part]))
            different = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            if different:
                name = different[0]
                raise InputError(
                    f"--resume: the run in {self.path} began with other {part}: {name} was {old.get(name)!r}, is now "
                    f"{new.get(name)!r}; use the same, or --overwrite"
                )
