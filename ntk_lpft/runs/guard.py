"""What a command must not replace: anything of the user's, anything that it reads, anything behind a link."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ntk_lpft.errors import InputError
from ntk_lpft.runs.ledger import Ledger, entries_of


def check_owned(ledger: Ledger, names: Iterable[str], command: str) -> list[str]:
    """Refuse a folder in which something that the command would write is not its own.

    Args:
        ledger: Whose files are there.
        names: What the command may write, folders with a slash behind.
        command: How the command is called.

    Returns:
        What is there by these names, as paths from the folder; all of it is the command's own.

    Raises:
        InputError: One of the names is a symbolic link or a device, or was written by someone else.
    """
    present: list[str] = []
    for name in names:
        top = name.rstrip("/")
        if not name.endswith("/") and (ledger.folder / top).is_dir():
            raise _not_own(ledger, top, command)
        for entry in entries_of(ledger.folder, top):
            kind = os.lstat(ledger.folder / entry).st_mode
            if stat.S_ISLNK(kind):
                raise InputError(
                    f"output folder {ledger.folder} holds {entry}, a symbolic link, through which nothing is written; "
                    "choose another --output-dir, or move the link away"
                )
            if not stat.S_ISREG(kind):
                raise InputError(
                    f"output folder {ledger.folder} holds {entry}, a device or a pipe; choose another --output-dir, or "
                    "move it away"
                )
            if not ledger.owns(entry):
                raise _not_own(ledger, entry, command)
            present.append(entry)
    return present


def _not_own(ledger: Ledger, entry: str, command: str) -> InputError:
    writer = ledger.writer_of(entry)
    whose = f"which `{writer}` wrote" if writer else f"which no run of `{command}` wrote"
    return InputError(
        f"output folder {ledger.folder} holds {entry}, {whose}, and which would be replaced; choose another "
        "--output-dir, or move it away"
    )


def check_not_an_input(folder: Path, inputs: Iterable[tuple[str, Path]]) -> None:
    """Refuse to write results into a folder that is itself what the command reads.

    Args:
        folder: The folder of results.
        inputs: What the command reads, each with the name of its option.

    Raises:
        InputError: One of the inputs is that folder.
    """
    for flag, path in inputs:
        if path.is_dir() and folder.is_dir() and os.path.samefile(path, folder):
            raise InputError(f"output folder {folder} is what {flag} names; choose another --output-dir")


def check_no_input(folder: Path, names: Iterable[str], inputs: Iterable[tuple[str, Path]]) -> None:
    """Refuse to replace what the command reads.

    Args:
        folder: The folder of results.
        names: What the command replaces in it.
        inputs: What it reads, each with the name of its option.

    Raises:
        InputError: One of the inputs has one of these names, or lies below it.
    """
    targets = {os.path.realpath(folder / name.rstrip("/")): name.rstrip("/") for name in names}
    for flag, path in inputs:
        real = Path(os.path.realpath(path))
        name = next((targets[str(each)] for each in (real, *real.parents) if str(each) in targets), None)
        if name is not None:
            raise InputError(
                f"{flag} {path} is a part of the earlier results in {folder} ({name}), which would be replaced; copy "
                "it elsewhere, or choose another --output-dir"
            )
