"""Names of files and folders made of names that users chose."""

import hashlib
import re
from collections.abc import Container, Sequence

_MOST_BYTES = 200  # of the 255 that file systems take, as files that are being written have longer names
_DIGEST = 8


def short_name(name: str) -> str:
    """Return a name that a file system takes: one that is too long is cut, and bears a digest of the whole."""
    return name if len(name.encode("utf-8", "surrogateescape")) <= _MOST_BYTES else _with_digest(name, name, "")


def file_name(parts: Sequence[str], ending: str, taken: Container[str] = ()) -> str:
    """Make the name of a file out of names.

    Letters, digits, ``.``, ``×``, ``_`` and ``-`` stay; anything else becomes ``-``. Where that changed something, or
    where the name is too long or taken, it bears a digest of what it was made of, so that two of them never meet.

    Args:
        parts: The names, which are joined by ``_``.
        ending: What the name ends with, such as ``.png``.
        taken: Names that other files have.

    Returns:
        The name, of at most 200 bytes.
    """
    wanted = "_".join(parts)
    name = re.sub(r"[^\w.×-]", "-", wanted)
    if name == wanted and len((name + ending).encode()) <= _MOST_BYTES and name + ending not in taken:
        return name + ending
    return _with_digest(name, "\0".join(parts), ending)


def _with_digest(name: str, whole: str, ending: str) -> str:
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    room = _MOST_BYTES - len(ending.encode()) - _DIGEST - 1
    return f"{name.encode('utf-8', 'replace')[:room].decode('utf-8', 'ignore')}-{digest}{ending}"
