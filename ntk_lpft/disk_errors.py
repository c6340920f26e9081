"""What goes wrong on the disk: files that are not there, and refusals in writing, whichever library was at it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntk_lpft.errors import InputError

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def named_disk_errors(path: Path) -> Iterator[None]:
    """Give errors of the file system the name of what was being written, where they have none.

    safetensors and tokenizers, written in Rust, put such errors into words, under types of their own.

    Args:
        path: The file, or the folder, that the block writes.

    Yields:
        Nothing.

    Raises:
        OSError: The file system refused something; with its number and a file's name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        found = _NUMBER.search(str(error))
        if found is None:
            raise
        number = int(found.group(1))
        raise OSError(number, os.strerror(number), str(path)) from error


def check_is_file(path: Path, what: str = "") -> None:
    """Refuse a path that names no regular file: others, such as pipes, may never end.

    Args:
        path: The path.
        what: What messages say before it, such as an option's flag.

    Raises:
        InputError: There is no file of that name, or the file system takes no such name.
    """
    shown = f"{what} {path!s:.200}".strip()
    try:
        there, exists = path.is_file(), path.exists()
    except OSError as error:
        raise InputError(f"{shown}… cannot be read ({error.strerror}); check the path") from error
    if not there:
        raise InputError(f"{shown}{' is not a file' if exists else ': no such file'}; check the path")
