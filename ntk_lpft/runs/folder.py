"""A folder of results: what it may hold, what may be replaced in it, and when it is complete."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from ntk_lpft.checksums import CHECKSUMS, check_file, read_checksums, write_checksums
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import plain, read_json
from ntk_lpft.runs.guard import check_no_input, check_not_an_input, check_owned
from ntk_lpft.runs.ledger import Ledger
from ntk_lpft.runs.lock import folder_lock
from ntk_lpft.storage import remove_partials, write_json

_PROMISE = "checksums"  # the setting that tells a run that is not complete from one of a version without checksums
_LATER = ("model",)  # parts of settings that earlier versions did not write
Inputs = Iterable[tuple[str, Path]]


class RunFolder:
    """The folder of one run of a command. Subclasses name its files, and read and write them.

    A command works in it between ``opened`` and its end: alone, and on files alone that a run of its own wrote.

    Args:
        path: The folder; it need not exist.

    Attributes:
        path: The folder.
        CONFIG: Settings, versions and data of the run, which replay it by ``--config``.
        RESULTS: Names of all files that the command writes.
        FOLDERS: Names of folders that it writes besides.
        SCRATCH: Those of files and folders that are there only while a run is not complete.
        MARKER: The last of the results; the run is complete once their checksums are written, after it.
        COMMAND: How the command is called.
        WRITER: How its files are told from those of others; the command, but where it has folders of two kinds.
    """

    CONFIG: ClassVar[str] = "config.json"
    RESULTS: ClassVar[Sequence[str]] = ()
    FOLDERS: ClassVar[Sequence[str]] = ()
    SCRATCH: ClassVar[Sequence[str]] = ()
    MARKER: ClassVar[str]
    COMMAND: ClassVar[str]
    WRITER: ClassVar[str | None] = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._more: tuple[str, ...] = ()

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

    @contextmanager
    def opened(
        self,
        *,
        overwrite: bool,
        more: Iterable[str] = (),
        inputs: Inputs = (),
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Make the folder, keep other commands out of it, and see to it that nothing in it gets lost.

        Only what killed processes left of files that they were writing is removed.

        Args:
            overwrite: Whether results of an earlier run may be replaced.
            more: Names of files that are written besides `RESULTS`.
            inputs: What the run reads, each with the name of its option; none of it is replaced.
            options: Those of the run, as a config holds them; a finished run of the same is let be, for the caller to
                look at.

        Yields:
            Nothing.

        Raises:
            InputError: The folder cannot be written, is in use by another process, holds results, or holds something
                of the user's by a name that the command uses; or an input would be replaced.
        """
        inputs, more = list(inputs), list(more)
        check_not_an_input(self.path, inputs)  # before the lock is written into it
        with folder_lock(self.path, self.COMMAND):
            self.check(overwrite=overwrite, more=more, inputs=inputs, options=options)
            remove_partials(self.path, [Ledger.NAME, *(name.rstrip("/") for name in self._names())])
            try:
                yield
            except BaseException:
                with suppress(OSError):  # of two faults of the disk, the first is told
                    self._settle()
                raise
            self._settle()

    def check(
        self,
        *,
        overwrite: bool,
        more: Iterable[str] = (),
        inputs: Inputs = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse what ``opened`` would refuse, but for the lock; nothing is made.

        Args:
            overwrite: As there.
            more: As there.
            inputs: As there.
            options: As there.

        Raises:
            InputError: As there.
        """
        self._more, inputs = tuple(more), list(inputs)
        check_not_an_input(self.path, inputs)
        present = check_owned(self._ledger(), self._names(), self.COMMAND)
        if not present:
            return
        if not overwrite and self.holds(options):
            for name in read_checksums(self.path) if self.file(CHECKSUMS).is_file() else ():
                self.believed(name)
            return
        # What the same command left undone is not lost by doing it.
        if not overwrite and (self.finished or not self._began_with(options)):
            raise InputError(
                f"output folder {self.path} already holds {', '.join(self._listed(present)[:3]) or CHECKSUMS}; "
                "choose another --output-dir, or give --overwrite"
            )
        check_no_input(self.path, self._names(), inputs)

    def _names(self) -> list[str]:
        """All that the command may write: files, and folders with a slash behind."""
        folders = {*self.FOLDERS}
        names = dict.fromkeys((*self.RESULTS, *self._more, CHECKSUMS, *self.SCRATCH, *self.FOLDERS))
        return [f"{name}/" if name in folders else name for name in names]

    def _listed(self, present: Iterable[str]) -> list[str]:
        """Order paths as the names that they belong to, folders by theirs."""
        there = {path.split("/")[0] for path in present}
        return [name for name in self._names() if name.rstrip("/") in there and name != CHECKSUMS]

    def _ledger(self) -> Ledger:
        """Read whose files are there; where an earlier version of this project wrote them, they say so themselves."""
        ledger = Ledger(self.path, self.WRITER or self.COMMAND)
        if not ledger.known and not ledger.file.exists() and self._proves_itself():
            ledger.assume(self._adopted())
        return ledger

    def _adopted(self) -> list[str]:
        """Name what an earlier version of this project wrote in a folder that proves itself."""
        return self._names()

    def _proves_itself(self) -> bool:
        """Whether a run of the command began here before there were ledgers."""
        try:
            config = read_json(self.file(self.CONFIG))
        except InputError:
            return False
        known = config.get("versions")
        return config.get("command") == self.COMMAND and isinstance(known, dict) and "ntk_lpft" in known

    def holds(self, options: Mapping[str, Any] | None) -> bool:
        """Whether a finished run of these options is there.

        Args:
            options: As a config holds them; None for none.

        Returns:
            Whether it is.
        """
        return self.finished and self._began_with(options)

    def _began_with(self, options: Mapping[str, Any] | None) -> bool:
        try:
            # Of a run that is not complete, no checksums are there to hold its settings to.
            config = self.config() if self.finished else read_json(self.file(self.CONFIG))
            return options is not None and config.get("options") == plain(options)
        except InputError:
            return False

    def claim(self) -> None:
        """Put all that the command may write on record as its own, before it writes any of it."""
        self._ledger().enter(self._names())

    def clear(self) -> None:
        """Claim the folder, and remove what earlier runs of the command wrote; not each file is written again."""
        ledger = self._ledger()
        ledger.enter(self._names())
        own = [name for name in ledger.present() if not self._stays(name)]
        # First what says that a run is complete, then what says that it has begun.
        first = {CHECKSUMS: 0, self.MARKER: 1, self.CONFIG: 2}
        for name in sorted(own, key=lambda name: first.get(name, 3)):
            self.file(name).unlink()
        for folder in self.FOLDERS:
            for place, _, _ in os.walk(self.file(folder), topdown=False):
                if not os.listdir(place):
                    os.rmdir(place)

    def _stays(self, name: str) -> bool:
        """Whether a file is kept when the folder is cleared."""
        return False

    def _settle(self) -> None:
        ledger = Ledger(self.path, self.WRITER or self.COMMAND)
        if ledger.known:
            ledger.settle(() if self.finished else [name for name in self.FOLDERS if name in self.SCRATCH])

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

    def check_same(self, content: Mapping[str, Any], parts: Sequence[str], ignored: Sequence[str] = ()) -> None:
        """Refuse to go on with a run under other settings.

        Args:
            content: What `write_config` would now be given.
            parts: Which parts of it to compare, such as ``options``.
            ignored: Names within the parts that may differ.

        Raises:
            InputError: They differ, or the config is damaged.
        """
        path = self.file(self.CONFIG)
        try:
            before = self.config() if self.finished else read_json(path)
            parts = [part for part in parts if part in before or part not in _LATER]
            stored = {part: dict(before[part]) for part in parts}
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged; start anew with --overwrite") from error
        for part in parts:
            old, new = stored[part], plain(content[part])
            different = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and key not in ignored)
            if different:
                name = different[0]
                raise InputError(
                    f"the run in {self.path} began with other {part}: {name} was {old.get(name)!r}, is now "
                    f"{new.get(name)!r}; use the same, another --output-dir, or --overwrite"
                )
