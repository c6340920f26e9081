"""What goes wrong on the disk, as ``OSError`` with the file's name, whichever library was writing."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
