"""Runs a command: what the user gave wrong, and what the machine lacks, becomes one line; nothing else is caught."""

import errno
import io
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from ntk_lpft.commands.launched import number_of_process
from ntk_lpft.errors import FailedElsewhereError, InputError
from ntk_lpft.interrupts import STOPPED, work_begins
from ntk_lpft.library_errors import lacks_memory

# Exit statuses: one line said what to give otherwise; as shells count it, the reader of the output left.
REFUSED, UNHEARD = 2, 141
_LONGEST = 1000  # letters of a message
_PATIENCE = 5.0  # seconds

# What a path that was given can be refused for.
_OF_PATHS = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ETXTBSY,
    errno.ENXIO,
    errno.ENODEV,
    errno.EINVAL,
)
_OF_THE_MACHINE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "the file is larger than files may be there; choose another folder",
    errno.EIO: "the disk or the network below it fails; choose another folder",
    errno.ESTALE: "the network below it fails; choose another folder",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "allow more processes (ulimit -u)",
}


def run_command(
    prepare: Callable[[], Callable[[], object]],
    to_go_on: str | Callable[[], str] = "the same command begins again",
    less_memory: str = "give fewer or smaller files",
) -> int:
    """Run a command; bad input, a full disk and exhausted memory become one line on standard error.

    Args:
        prepare: Reads the options, imports what does the work, and returns it.
        to_go_on: What to say when it is stopped from the keyboard, or for want of disk; a function is asked then.
        less_memory: Which options need less memory.

    Returns:
        The exit status: 0; 2 after bad input, or where the machine lacks disk or memory; 130 after Ctrl-C; 141 where
        nobody reads the output any more.
    """
    _print_any_text()
    prepared = False
    try:
        work = prepare()
        prepared = True
        work_begins()
        work()
        sys.stdout.flush()
    except FailedElsewhereError:
        return _leave_word_to_others()
    except InputError as error:
        # What is wrong with the options is wrong in all processes; the first says so.
        return _leave_word_to_others() if number_of_process() > 0 and not prepared else _say(error)
    except KeyboardInterrupt:
        print(f"stopped; {_text(to_go_on)}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        _hush()
        return UNHEARD
    except MemoryError as error:
        return _say(f"{_memory(error)}; {less_memory}")
    except OSError as error:
        if error.errno not in (*_OF_PATHS, *_OF_THE_MACHINE):
            raise
        return _say_disk(error, _text(to_go_on))
    except RuntimeError as error:
        if not lacks_memory(error):  # torch has no other kind for it
            raise
        return _say(f"{_memory(error)}; {less_memory}")
    return 0


def _leave_word_to_others() -> int:
    """Say nothing, and wait a little: launchers end all processes once one has ended, perhaps before it has spoken."""
    time.sleep(_PATIENCE)
    return REFUSED


def _text(said: str | Callable[[], str]) -> str:
    return said if isinstance(said, str) else said()


def _say(what: object) -> int:
    text = " ".join(str(what).split())
    if len(text) > _LONGEST:  # as of a name or a cell that is no name: what is wrong stands first, what to do last
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    print(f"error: {text}", file=sys.stderr)
    return REFUSED


def _memory(error: Exception) -> str:
    asked = re.search(r"to allocate ([\d.]+ \w+)", str(error))
    return f"memory is exhausted ({asked.group(1)} more were needed)" if asked else "memory is exhausted"


def _say_disk(error: OSError, to_go_on: str) -> int:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = (names[-1] if names else "standard output")[:200]
    reason = error.strerror or os.strerror(error.errno or 0)
    if error.errno in _OF_THE_MACHINE:
        _hush_if_full()
        return _say(f"{where}: {reason}; {_OF_THE_MACHINE[error.errno]}; then {to_go_on}")
    return _say(f"{where}: {reason}; give another path")


def _print_any_text() -> None:
    """Let names with letters that the terminal does not have be printed in escapes, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hush() -> None:
    """Send the rest of standard output nowhere, as Python would fail on it once more when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hush_if_full() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _hush()


def quiet_libraries() -> None:
    """Keep transformers from printing notices and bars of its own."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
