"""Commands in forked processes that die, as by SIGKILL, just before a chosen operation on files of a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Audit events of CPython that change what is on the disk; ``open`` is one where it is for writing.
_CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.chmod")
_KILLED = 9


def run_apart(main: Callable[[Sequence[str]], int], words: Sequence[object], log: Path) -> int:
    """Run a command in a forked process; its output goes to a file.

    Returns:
        The exit status.
    """
    return _forked(main, words, log, None, None)[0]


def operations(main: Callable[[Sequence[str]], int], words: Sequence[object], log: Path, folder: Path) -> int:
    """Run a command in a forked process, to its end.

    Returns:
        The number of times that it changed something in the folder.
    """
    status, count = _forked(main, words, log, folder, None)
    assert status == 0, log.read_text()
    return count


def kill_at(
    main: Callable[[Sequence[str]], int], words: Sequence[object], log: Path, folder: Path, number: int
) -> None:
    """Run a command in a forked process, and kill it just before its nth change of something in the folder."""
    status, _ = _forked(main, words, log, folder, number)
    assert status == _KILLED, (number, log.read_text())


def _forked(
    main: Callable[[Sequence[str]], int], words: Sequence[object], log: Path, folder: Path | None, number: int | None
) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            calls = [0] if folder is None else _count(os.path.abspath(folder), number)
            status = main([str(word) for word in words])
            sys.stdout.flush()
            os.write(writer, str(calls[0]).encode())
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(said or 0)


def _count(folder: str, number: int | None) -> list[int]:
    """Count changes from now on, and die before the nth."""
    calls = [0]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not arguments or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path == folder or path.startswith(folder + os.sep):
            calls[0] += 1
            if calls[0] == number:
                os._exit(_KILLED)

    sys.addaudithook(watch)
    return calls
