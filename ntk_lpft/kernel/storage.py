"""Kernels on disk: safetensors with a checksum over tensors and description, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.kernel.decomposition import NTKDecomposition

FORMAT = "ntk_lpft kernel 1"
FILE_NAME = "kernel.safetensors"


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, dtypes, shapes and contents, whatever the order they are given in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a safetensors file that appears whole or not at all, with its description and a checksum inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Copies, as safetensors refuses tensors that share memory, and slices of one kernel do.
    plain = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    text = json.dumps(description, sort_keys=True)
    checksum = hashlib.sha256((tensor_digest(plain) + text).encode()).hexdigest()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(plain, partial, metadata={"description": text, "sha256": checksum})
        with open(partial, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write_tensors`` wrote.

    Raises:
        InputError: The file is missing, truncated, of another kind, or altered.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt", device=device) as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as problem:
        raise InputError(
            f"{path} is truncated or no safetensors file ({problem}); delete it and compute it again"
        ) from problem
    if set(metadata) != {"description", "sha256"}:
        raise InputError(f"{path} was not written by ntk_lpft (it has no description)")
    expected = hashlib.sha256((tensor_digest(tensors) + metadata["description"]).encode()).hexdigest()
    if expected != metadata["sha256"]:
        raise InputError(f"{path} was altered after it was written (its checksum does not fit); compute it again")
    return tensors, json.loads(metadata["description"])


def kernel_file(path: str | Path) -> Path:
    """Return the kernel's file for a file's or folder's name."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / FILE_NAME


def save_parts(path: str | Path, parts: Mapping[str, NTKDecomposition]) -> Path:
    """Write several kernels, by name, into one file."""
    tensors: dict[str, Tensor] = {}
    described: dict[str, Any] = {}
    for part, ntk in parts.items():
        tensors[f"{part}/feature_kernel"] = ntk.feature_kernel
        tensors[f"{part}/row_logits"] = ntk.row_logits
        tensors[f"{part}/column_logits"] = ntk.column_logits
        tensors.update({f"{part}/ft/{group}": value for group, value in ntk.ft_groups.items()})
        described[part] = {
            "outputs": ntk.outputs,
            "symmetric": ntk.symmetric,
            "groups": list(ntk.ft_groups),
            "parameter_groups": ntk.parameter_groups,
            "metadata": ntk.metadata,
        }
    file = kernel_file(path)
    write_tensors(file, tensors, {"format": FORMAT, "parts": list(parts), "ntk": described})
    return file


def load_parts(path: str | Path, part: str | None = None) -> NTKDecomposition:
    """Read one kernel of a file; the first where no name is given.

    Raises:
        InputError: See ``read_tensors``; also a file of another format, or without that part.
    """
    file = kernel_file(path)
    tensors, description = read_tensors(file)
    if description.get("format") != FORMAT:
        raise InputError(f"{file} holds no kernel (format {description.get('format')!r})")
    chosen = description["parts"][0] if part is None else part
    if chosen not in description["ntk"]:
        raise InputError(f"{file} has no part {chosen!r}; it has {', '.join(description['parts'])}")
    about = description["ntk"][chosen]
    return NTKDecomposition(
        feature_kernel=tensors[f"{chosen}/feature_kernel"],
        ft_groups={group: tensors[f"{chosen}/ft/{group}"] for group in about["groups"]},
        row_logits=tensors[f"{chosen}/row_logits"],
        column_logits=tensors[f"{chosen}/column_logits"],
        outputs=about["outputs"],
        symmetric=about["symmetric"],
        parameter_groups=about["parameter_groups"],
        metadata=about["metadata"],
    )
