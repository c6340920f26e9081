"""Kernels on disk: several parts in one file, each as plain tensors with a description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.runs.kernel import KernelRun
from ntk_lpft.storage import read_tensors, write_tensors

# What the second has beyond the first: kernels in rank form.
FORMAT = "ntk_lpft kernel 2"
_FORMATS = ("ntk_lpft kernel 1", FORMAT)


class StoredPart(NamedTuple):
    """One kernel of a file.

    Attributes:
        tensors: By name.
        description: All else that is known of it, as JSON holds it.
    """

    tensors: dict[str, Tensor]
    description: dict[str, Any]


def kernel_file(path: str | Path) -> Path:
    """Return the kernel's file for a file's or folder's name.

    Args:
        path: The file, or its folder.

    Returns:
        The file, which need not be there.

    Raises:
        InputError: A name that the file system refuses, or that of a folder where a file belongs.
    """
    path = Path(path)
    file = path if path.suffix == ".safetensors" else path / KernelRun.KERNEL
    try:
        taken = file.is_dir()
    except OSError as error:
        raise InputError(f"{str(file)[:200]}: {error.strerror}; give another path") from error
    if taken:
        raise InputError(f"{file} is a folder, where a kernel's file belongs; give another path")
    return file


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
    form = description.get("format") if isinstance(description, dict) else None
    if form not in _FORMATS:
        raise InputError(f"{file} holds no kernel (format {form!r})")
    described = _in_order(description.get("ntk"), description.get("parts"), file)
    chosen = next(iter(described)) if part is None else part
    if chosen not in described:
        raise InputError(f"{file} has no part {chosen!r}; it has {', '.join(described)}")
    own = {name.removeprefix(f"{chosen}/"): value for name, value in tensors.items() if name.startswith(f"{chosen}/")}
    return StoredPart(own, described[chosen])


def _in_order(described: Any, order: Any, file: Path) -> dict[str, Any]:
    """Return the descriptions of the parts in their order, which JSON with sorted names does not keep."""
    named = isinstance(order, list) and all(isinstance(name, str) for name in order)
    if not isinstance(described, dict) or not named or not order or set(order) != set(described):
        raise InputError(f"{file} is damaged: its description names no parts, or others; compute it again")
    return {name: described[name] for name in order}
