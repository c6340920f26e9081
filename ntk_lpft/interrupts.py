"""Ctrl-C at any moment is one line: a program's first import comes from here, and nothing heavy comes with it."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

STOPPED = 130  # exit status of a program that was stopped from the keyboard, as shells have it


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function as the whole of a process, and end it with the status.

    An import that is interrupted may end in any exception, from C code that turns one into another above all. So until
    `work_begins` is called, and again when all is done, Ctrl-C ends the process at once: there is nothing to clean up.

    Args:
        main: The function, which returns the exit status. It imports what it needs when it is called.
    """
    # Under nohup, or in the background of a script, it is ignored and stays so.
    catches = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if catches:
        signal.signal(signal.SIGINT, _leave)
    status = main()
    if catches:
        signal.signal(signal.SIGINT, _leave)
    sys.exit(status)


def work_begins() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, as what is being written is then to be left whole."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stdout.flush()
    os.write(2, b"stopped\n")
    os._exit(STOPPED)
