"""Which files in a folder of results were written by which command: a command replaces only its own."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.storage import write_json

FORMAT = "ntk_lpft files 1"
_SAYS = "files that commands of ntk_lpft wrote in this folder; each replaces only its own, and nothing else here"


class Ledger:
    """The file ``.ntk_lpft.json`` of a folder.

    A command enters all names that it may write before it writes the first, so that a kill at any moment leaves
    nothing of its own unnamed; where it ends, the names are narrowed to the files that are there. A name that ends in
    ``/`` stands for a folder and all below it.

    Args:
        folder: The folder; it need not exist.
        writer: The command.

    Raises:
        InputError: The file is damaged.
    """

    NAME = ".ntk_lpft.json"

    def __init__(self, folder: Path, writer: str) -> None:
        self.folder = folder
        self.writer = writer
        self.file = folder / self.NAME
        self._entries = self._read() if os.path.lexists(self.file) else {}

    def _read(self) -> dict[str, list[str]]:
        damaged = f"{self.file} is damaged, so that it cannot be told whose files are there; choose another folder"
        if self.file.is_symlink():
            raise InputError(
                f"{self.file} is a symbolic link, and none of this project makes one; choose another folder"
            )
        try:
            content = read_json(self.file)
        except InputError as error:
            raise InputError(f"{damaged} ({error})") from error
        entries: Any = content.get("writers")
        if (
            content.get("format") != FORMAT
            or not isinstance(entries, dict)
            or not all(map(_is_names, entries.values()))
        ):
            raise InputError(damaged)
        return {writer: list(names) for writer, names in entries.items()}

    @property
    def known(self) -> bool:
        """Whether the command has an entry."""
        return self.writer in self._entries

    @property
    def names(self) -> tuple[str, ...]:
        """What the command has written, or may have."""
        return tuple(self._entries.get(self.writer, ()))

    def writer_of(self, name: str) -> str | None:
        """Which command wrote a file, by its path from the folder; None for none."""
        return next((writer for writer, names in self._entries.items() if _covers(names, name)), None)

    def owns(self, name: str) -> bool:
        """Whether the command wrote a file, or may have."""
        return _covers(self.names, name)

    def assume(self, names: Iterable[str]) -> None:
        """Take names for the command's own that are not on record, without putting them there."""
        self._entries[self.writer] = sorted(names)

    def enter(self, names: Iterable[str]) -> None:
        """Put names among the command's own, on the disk, before any of them is written."""
        self._entries[self.writer] = sorted({*self.names, *names})
        self._write()

    def settle(self, open_folders: Iterable[str] = ()) -> None:
        """Narrow the command's names to the files that are there.

        Args:
            open_folders: Folders that another process of the same run may still write to, which stay as they are.
        """
        kept = {f"{name}/" for name in open_folders if (self.folder / name).is_dir()}
        names = sorted({*kept, *(name for name in self.present() if not _covers(kept, name))})
        if names and names != self._entries.get(self.writer):
            self._entries[self.writer] = names
            self._write()
        elif not names:  # a run that was refused before it wrote anything
            del self._entries[self.writer]
            if self._entries:
                self._write()
            else:
                self.file.unlink()

    def present(self) -> list[str]:
        """Paths of the command's files that are there, from the folder; of folders, all that is below."""
        return sorted({each for name in self.names for each in entries_of(self.folder, name.rstrip("/"))})

    def _write(self) -> None:
        write_json(self.file, {"format": FORMAT, "says": _SAYS, "writers": self._entries})


def entries_of(folder: Path, name: str) -> Iterator[str]:
    """Paths, from a folder, of a file in it, or of all that is in a folder below, links not followed."""
    top = folder / name
    if top.is_dir() and not top.is_symlink():
        for place, folders, files in os.walk(top):
            links = [each for each in folders if os.path.islink(os.path.join(place, each))]
            yield from (Path(place, each).relative_to(folder).as_posix() for each in (*files, *links))
    elif os.path.lexists(top):
        yield name


def _covers(names: Iterable[str], name: str) -> bool:
    return any(name == each or (each.endswith("/") and name.startswith(each)) for each in names)


def _is_names(names: object) -> bool:
    """Whether an entry is a list of paths that lead nowhere but into the folder."""
    return isinstance(names, list) and all(
        isinstance(name, str) and name and not name.startswith("/") and ".." not in PurePosixPath(name).parts
        for name in names
    )
