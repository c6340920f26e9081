"""Files that appear whole or not at all: text, JSON, tables, and tensors with a checksum over all that they hold."""

import glob
import hashlib
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from ntk_lpft.csv_cells import guarded, unguarded
from ntk_lpft.disk_errors import check_is_file, named_disk_errors
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import parse_json

PARTIAL = ".partial"
OWN_METADATA = {"description", "sha256"}  # names of the metadata in files of tensors that `write_tensors` makes
_DEAD_AFTER = 3600.0  # seconds


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Let a file be written beside its place, and put it there when it is complete and on the disk.

    Args:
        path: Where the file belongs; missing folders are made, and a file that is there is replaced.

    Yields:
        The path to write to, where nothing is yet. Where the block raises, nothing is left of it, and ``path`` is as
        it was.

    Raises:
        OSError: The file cannot be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{_short(path.name)}.{os.getpid()}{PARTIAL}")
    try:
        with named_disk_errors(path):
            _remove_dead(path)
            mode = _mode_of_new_files(partial)
            yield partial
            partial.chmod(mode)
            with open(partial, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _short(name: str) -> str:
    """Shorten the longest names that files may have, which leave no room for an ending."""
    return name if len(os.fsencode(name)) < 200 else hashlib.sha256(os.fsencode(name)).hexdigest()


def _remove_dead(path: Path) -> None:
    """Remove what processes that were killed while writing a file have left of it, in a folder that others may use."""
    for left in path.parent.glob(f".{glob.escape(_short(path.name))}.*{PARTIAL}"):
        with suppress(OSError):  # another process has done the same
            pid = left.name.removesuffix(PARTIAL).rpartition(".")[2]
            # The number may be that of a process of another machine, which has written a moment ago.
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and time.time() - left.stat().st_mtime > _DEAD_AFTER:
                left.unlink()


def _mode_of_new_files(probe: Path) -> int:
    """Find what the umask lets files be, by one that is made and removed; to read the umask is to change it."""
    try:
        probe.touch()
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)


def let_umask_decide(folder: Path) -> None:
    """Give the files in a folder the mode of new files: safetensors makes its own readable by their owner alone."""
    mode = _mode_of_new_files(folder / f".{os.getpid()}{PARTIAL}")
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def remove_partials(folder: Path, names: Iterable[str]) -> None:
    """Remove what processes that were killed while writing have left; none must be writing there.

    Args:
        folder: Where.
        names: Files that they may have been writing, and folders of such.
    """
    for name in names:
        if (folder / name).is_dir():
            _remove_matching(folder / name, r"\..*\.\d+\.partial|\.\d+\.partial")
        _remove_matching(folder, rf"\.{re.escape(_short(name))}\.\d+\.partial")
    _remove_matching(folder, r"\.\d+\.probe")  # of earlier versions


def _remove_matching(folder: Path, pattern: str) -> None:
    for path in folder.iterdir():
        if re.fullmatch(pattern, path.name) and path.is_file() and not path.is_symlink():
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as csv, with all digits, and no name that a spreadsheet would run as a formula."""
    write_text(path, guarded(table).to_csv(index=False, lineterminator="\n"))


def read_table(path: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a csv file.

    Args:
        path: The file.
        columns: Names of columns that it must have.
        numbers: Those of them that must hold numbers alone.

    Returns:
        The table, with all its columns.

    Raises:
        InputError: The file is missing, no csv, or lacks one of the columns.
    """
    try:
        # A cell without text is missing; NA and the like are names, as of data sets.
        table = unguarded(pd.read_csv(path, keep_default_na=False, na_values=[""]))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({' '.join(str(error).split())})") from error
    if not {*columns} <= {*table.columns} or any(table[name].dtype.kind not in "fi" for name in numbers):
        raise InputError(f"{path} is damaged: it needs the columns {', '.join(columns)}")
    return table


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, dtypes, shapes and contents, whatever the order they are given in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor], description: str) -> str:
    return hashlib.sha256((tensor_digest(tensors) + description).encode()).hexdigest()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors of which none shares memory with another, as safetensors wants them; others are copied.

    Kernels may take most of the memory, so that nothing else is.
    """
    places = Counter(value.untyped_storage().data_ptr() for value in tensors.values())
    return {
        name: value
        if value.is_contiguous() and places[value.untyped_storage().data_ptr()] == 1
        else value.clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a safetensors file with its description and a checksum inside."""
    plain = _unshared({name: value.detach().cpu() for name, value in tensors.items()})
    text = json.dumps(description, sort_keys=True)
    with whole_file(path) as partial:
        save_file(plain, partial, metadata={"description": text, "sha256": _checksum(plain, text)})


@contextmanager
def _opened(path: Path, device: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a file that `write_tensors` made; gives safetensors' handle, and the metadata."""
    check_is_file(path)
    try:
        with safetensors.safe_open(path, framework="pt", device=device) as handle:
            metadata = handle.metadata() or {}
            if set(metadata) != OWN_METADATA:
                raise InputError(f"{path} was not written by ntk_lpft (it has no description)")
            yield handle, metadata
    except OSError as error:  # of another user's, say, which is none to delete
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is truncated or no safetensors file ({error}); delete it and compute it again"
        ) from error


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write_tensors`` wrote.

    Args:
        path: The file.
        device: Where the tensors go.

    Returns:
        The tensors by name, and their description.

    Raises:
        InputError: The file is missing, truncated, of another kind, or altered.
    """
    with _opened(path, device) as (handle, metadata):
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    if _checksum(tensors, metadata["description"]) != metadata["sha256"]:
        raise InputError(f"{path} was altered after it was written (its checksum does not fit); compute it again")
    return tensors, _description(path, metadata)


def read_description(path: Path) -> dict[str, Any]:
    """Read the description of tensors alone, as it stands: without the tensors, it cannot be compared with a checksum.

    Args:
        path: The file.

    Returns:
        The description.

    Raises:
        InputError: The file is missing, truncated, or of another kind.
    """
    with _opened(path, "cpu") as (_, metadata):
        return _description(path, metadata)


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    return parse_json(metadata["description"], f"the description in {path}")
