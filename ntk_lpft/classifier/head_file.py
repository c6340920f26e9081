"""Linear heads as files: V and b, with a few words on where they come from."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.classifier.classes import match_classes, reorder
from ntk_lpft.classifier.head import Head
from ntk_lpft.classifier.head_weights import set_head
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import parse_json
from ntk_lpft.storage import read_tensors, write_tensors

FORMAT = "ntk_lpft head 1"
FILE_NAME = "head.safetensors"
CLASSES = "classes"


@dataclass(frozen=True)
class HeadFile:
    """A head as it was saved.

    Attributes:
        weight: V, (C, h).
        bias: b, (C), or None where the head has none.
        metadata: Where the head comes from, as its writer put it.
    """

    weight: Float[Tensor, "c h"]
    bias: Float[Tensor, " c"] | None
    metadata: dict[str, str]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, row by row; None where the file does not say."""
        listed = self.metadata.get(CLASSES)
        return None if listed is None else tuple(map(str, parse_json(listed, "names of classes")))


def with_class_names(metadata: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Add the names of a head's classes to what its file says of it."""
    return {**metadata, CLASSES: json.dumps(list(names))} if names else dict(metadata)


def save_head(
    path: str | Path,
    weight: Float[Tensor, "c h"],
    bias: Float[Tensor, " c"] | None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a head, in the dtype it has, to a safetensors file that appears whole or not at all.

    Args:
        path: The file, or a folder, in which it is called ``head.safetensors``.
        weight: V.
        bias: b, if the head has one.
        metadata: Where the head comes from.

    Returns:
        The file.

    Raises:
        InputError: V and b do not fit each other, or hold NaN or infinite values.
    """
    file = head_path(path)
    tensors = {"weight": weight} | ({} if bias is None else {"bias": bias})
    _check(tensors, f"a head for {file}")
    write_tensors(file, tensors, {"format": FORMAT, "metadata": dict(metadata or {})})
    return file


def load_head(path: str | Path) -> HeadFile:
    """Read what ``save_head`` wrote.

    Args:
        path: The file, or the folder that it is in.

    Returns:
        V, b and where they come from, on the CPU.

    Raises:
        InputError: The file is missing, truncated, altered, or holds no head.
    """
    file = head_path(path)
    tensors, description = read_tensors(file)
    if description.get("format") != FORMAT:
        raise InputError(f"{file} holds no head (format {description.get('format')!r}); give a file of a head")
    _check(tensors, str(file))
    return HeadFile(tensors["weight"], tensors.get("bias"), description["metadata"])


def head_from_file(
    head: Head,
    path: str | Path,
    label_names: Sequence[str] | None = None,
    say: Callable[[str], object] = print,
) -> HeadFile:
    """Copy the V and b of a file into a classifier's head.

    Where the classifier's head has no bias and the file's has, the bias is left out, as by ``set_head``.

    Args:
        head: The classifier's head, which is overwritten.
        path: The file, or the folder that it is in.
        label_names: Classes of the data in the order of their numbers; the rows are put into it where the file names
            its classes, see ``match_classes``.
        say: Called with a line on how classes were matched, where it is not as plain as equal names.

    Returns:
        What the file holds.

    Raises:
        InputError: As for ``load_head``; also a head of another shape, or of classes that do not match.
    """
    saved = load_head(path)
    weight, bias = saved.weight, saved.bias
    try:
        if label_names is not None and len(weight) == len(label_names):
            match = match_classes(label_names, saved.class_names)
            weight, bias = reorder(weight, bias, match.order)
            if match.said:
                say(f"head:   {match.said}")
        set_head(head, weight, bias)
    except InputError as error:
        raise InputError(f"{head_path(path)}: {error}; give a head of this model and this data's classes") from error
    return saved


def head_path(path: str | Path) -> Path:
    """Return the head's file for a file's or folder's name."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / FILE_NAME


def _check(tensors: Mapping[str, Tensor], where: str) -> None:
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or set(tensors) - {"weight", "bias"} or weight.dim() != 2:
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        raise InputError(f"{where} has tensors of shape {shapes}; expected weight (C, h) and bias (C,) or none")
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise InputError(
            f"{where} has weight {tuple(weight.shape)} and bias {tuple(bias.shape)}, which do not fit each other; "
            "expected (C, h) and (C,)"
        )
    for name, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise InputError(f"{where} has a {name} that is NaN or infinite somewhere, or no floating-point number")
