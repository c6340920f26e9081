"""One file beside results that says what is in them, so that what was altered since is not believed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.storage import OWN_METADATA, write_json

CHECKSUMS = "checksums.json"
_FILES = "files"
_SEAL = "sha256"
_BLOCK = 2**20


def file_checksum(path: Path) -> str:
    """Return the sha256 of a file; of tensors with a checksum of their own, that one, which reading them verifies.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return _own_checksum(path) or _digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def _own_checksum(path: Path) -> str | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, framework="np") as handle:
            metadata = handle.metadata() or {}
    except safetensors.SafetensorError:
        return None  # not tensors any more; its bytes will tell
    return metadata["sha256"] if set(metadata) == OWN_METADATA else None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of files in a folder, by their paths from there."""
    write_json(folder / CHECKSUMS, {_FILES: {name: file_checksum(folder / name) for name in names}})


def read_checksums(folder: Path) -> Mapping[str, str]:
    """Read the checksums of files in a folder.

    Args:
        folder: The folder.

    Returns:
        Checksums by the files' paths from there.

    Raises:
        InputError: They are missing or damaged.
    """
    path = folder / CHECKSUMS
    files = read_json(path).get(_FILES)
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise InputError(f"{path} is damaged")
    return files


def check_file(folder: Path, name: str, known: Mapping[str, str]) -> Path:
    """Make sure that a file is as it was written.

    Args:
        folder: Where it is.
        name: Its path from there.
        known: What `read_checksums` returns.

    Returns:
        Its path.

    Raises:
        InputError: It is missing, was altered, or has no checksum.
    """
    path = folder / name
    if name not in known:
        raise InputError(f"{path} has no checksum in {CHECKSUMS}; one of the two was altered or is of another run")
    if not path.is_file():
        raise InputError(f"{path} is gone")
    if file_checksum(path) != known[name]:
        raise InputError(f"{path} was altered after it was written (its checksum in {CHECKSUMS} is another)")
    return path


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a checksum inside, for files that change on their own."""
    plain = json.loads(json.dumps(content))
    write_json(path, {**plain, _SEAL: _content_digest(plain)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Args:
        path: The file.

    Returns:
        The content, without the checksum; of a file of an earlier version, which has none, as it is.

    Raises:
        InputError: The file is missing, no JSON object, or was altered.
    """
    content = read_json(path)
    written = content.pop(_SEAL, None)
    if written is not None and written != _content_digest(content):
        raise InputError(f"{path} was altered after it was written (its checksum does not fit)")
    return content


def _content_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
