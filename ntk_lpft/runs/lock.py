"""One command at a time in a folder of results."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json

LOCK = ".ntk_lpft.lock"


@contextmanager
def folder_lock(folder: Path, command: str) -> Iterator[None]:
    """Keep every other command out of a folder; a lock that a killed process left holds nobody up.

    The operating system frees the lock with its process, whatever ends it. The file is removed at the end, and says
    meanwhile who holds it.

    Args:
        folder: The folder; it is made.
        command: Who holds the lock, for the message that another command gives.

    Yields:
        Nothing.

    Raises:
        InputError: The folder cannot be written, or another process is at work in it.
    """
    made = not folder.exists()
    file = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(file)
    except Timeout as error:
        raise InputError(
            f"output folder {folder} is in use by {_holder(file)}; wait for its end, or choose another --output-dir"
        ) from error
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be written ({error.strerror or error})") from error
    try:
        _write_holder(file, command)
        yield
    finally:
        with suppress(OSError):  # a file in use cannot be removed everywhere; it stays, and does no harm
            file.unlink()
        lock.release()
        if made:
            with suppress(OSError):  # results are in it
                folder.rmdir()


def _acquired(file: Path) -> FileLock:
    while True:
        lock = FileLock(file, timeout=0)
        lock.acquire()
        if file.exists():
            return lock
        lock.release()  # that of a process which has just ended, and removed the file


def _write_holder(file: Path, command: str) -> None:
    said = {
        "command": command,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    file.write_text(json.dumps(said), encoding="utf-8")


def _holder(file: Path) -> str:
    try:
        said = read_json(file)
        return f"`{said['command']}` (process {said['pid']} on {said['host']}, since {said['since']})"
    except (InputError, KeyError):
        return "another command"  # which has not yet said who it is
