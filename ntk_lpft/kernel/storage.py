"""Kernels on disk: several parts in one file, each as plain tensors with a description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.runs.kernel import KernelRun
from ntk_lpft.storage import read_tensors, write_tensors

FORMAT = "ntk_lpft kernel 1"


class StoredPart(NamedTuple):
    """One kernel of a file.

    Attributes:
        tensors: By name.
        description: All else that is known of it, as JSON holds it.
    """

    tensors: dict[str, Tensor]
    description: dict[str, Any]


def kernel_file(path: str | Path) -> Path:
    """Return the kernel's file for a file's or folder's name."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / KernelRun.KERNEL


def write_parts(path: str | Path, parts: Mapping[str, StoredPart]) -> Path:
    """Write several kernels, by name, into one file, and return it."""
    tensors = {f"{part}/{name}": value for part, stored in parts.items() for name, value in stored.tensors.items()}
    described = {part: stored.description for part, stored in parts.items()}
    file = kernel_file(path)
    write_tensors(file, tensors, {"format": FORMAT, "parts": list(parts), "ntk": described})
    return file


def read_part(path: str | Path, part: str | None = None) -> StoredPart:
    """Read one kernel of a file.

    Args:
        path: The file, or its folder.
        part: Name of the kernel in the file; None takes the first.

    Returns:
        The kernel's tensors by name, and its description.

    Raises:
        InputError: As for ``read_tensors``; also a file of another format, or without that part.
    """
    file = kernel_file(path)
    if file != Path(path):
        KernelRun(path).believed(KernelRun.KERNEL)
    tensors, description = read_tensors(file)
    if description.get("format") != FORMAT:
        raise InputError(f"{file} holds no kernel (format {description.get('format')!r})")
    chosen = description["parts"][0] if part is None else part
    if chosen not in description["ntk"]:
        raise InputError(f"{file} has no part {chosen!r}; it has {', '.join(description['parts'])}")
    own = {name.removeprefix(f"{chosen}/"): value for name, value in tensors.items() if name.startswith(f"{chosen}/")}
    return StoredPart(own, description["ntk"][chosen])
