"""Logits and labels from files of any origin: safetensors, npy, csv. Never a pickle."""

import math
import tokenize
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import torch
from jaxtyping import Shaped
from safetensors.torch import load_file
from torch import Tensor

from ntk_lpft.calibration.columns import check_columns, labels_of, place_columns
from ntk_lpft.calibration.predictions import Predictions, are_probabilities, to_array
from ntk_lpft.calibration.text_columns import TextColumns, is_number
from ntk_lpft.disk_errors import check_is_file
from ntk_lpft.errors import InputError

FORMATS = (".safetensors", ".npy", ".csv", ".tsv")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def read_predictions(logits: str | Path, labels: str | Path | None, name: str) -> Predictions:
    """Read logits and labels.

    Args:
        logits: A file with the logits, (N, C): safetensors with the tensor ``logits`` or a single one, npy, or csv or
            tsv with one column a class, with or without a header. A first line of 0, 1, …, C − 1 is a header, unless
            there are as many labels as lines. Probabilities (rows that sum to one) become their logarithms.
        labels: A file with the classes, (N,), likewise, as numbers or as the names that head the columns of logits;
            None where the file of logits is a safetensors that also has the tensor ``labels``.
        name: What error messages call the split.

    Returns:
        The predictions.

    Raises:
        InputError: A file is missing, of another format, or damaged, or what it holds is none of these; also a column
            that counts rows or holds labels.

    Warns:
        UserWarning: The file holds probabilities.
    """
    return read_named(logits, labels, name)[0]


def read_named(
    logits: str | Path, labels: str | Path | None, name: str, like: Sequence[str] | None = None
) -> tuple[Predictions, tuple[str, ...] | None]:
    """Read logits and labels, with the names of the classes.

    Args:
        logits: As for ``read_predictions``.
        labels: As for ``read_predictions``.
        name: What error messages call the split.
        like: Names of the classes in the order that is wanted; the columns are put into it where they have names.

    Returns:
        The predictions, and the names of their classes; None where the file does not say.

    Raises:
        InputError: As for ``read_predictions``; also columns of other names than are wanted.

    Warns:
        UserWarning: The file holds probabilities.
    """
    table = read_array(logits, "logits")
    source = logits if labels is None else labels
    if labels is None and Path(logits).suffix.lower() != ".safetensors":
        raise InputError(f"{name}: {logits} has no labels; give them as well")
    found = read_array(source, "labels", alone=labels is not None)
    names, scores = _split_header(table, found, logits) if isinstance(table, TextColumns) else (None, table)
    classes, by_name = labels_of(found, source, names, len(scores) if scores.ndim else 0)
    check_columns(scores, classes, names, logits)
    if like is not None and names is not None:
        order = place_columns(names, like, f"{name} ({logits})")
        if order != list(range(len(order))):
            if not by_name:
                raise InputError(
                    f"columns of {name} ({logits}) are in another order than those of validation, and its labels are "
                    "numbers; give the names of the columns as labels, or bring the columns in order"
                )
            scores, classes, names = scores[:, order], np.argsort(order)[classes], tuple(like)
    if are_probabilities(scores):
        scores = _logarithms(scores, f"{name} ({logits})")
    return Predictions.from_logits(scores, classes, f"logits of {name} ({logits})"), names


def _split_header(
    table: TextColumns, labels: Shaped[np.ndarray, "..."] | TextColumns, where: str | Path
) -> tuple[tuple[str, ...] | None, Shaped[np.ndarray, "n k"]]:
    if isinstance(labels, TextColumns):
        first = str(labels.lines[0, 0])
        return table.numbers(len(labels.lines) - (not is_number(first)), where, sure=first != "0")
    return table.numbers(labels.size, where, sure=True)


def _logarithms(probabilities: Shaped[np.ndarray, "n c"], where: str) -> Shaped[np.ndarray, "n c"]:
    if (probabilities == 0).any():
        raise InputError(
            f"{where} holds probabilities, {int((probabilities == 0).sum())} of them 0, which have no logits; give the "
            "logits, before softmax"
        )
    warnings.warn(f"{where} holds probabilities, not logits; their logarithms are calibrated", stacklevel=3)
    return np.log(probabilities.astype(np.float64))


def read_array(path: str | Path, key: str, *, alone: bool = True) -> Shaped[np.ndarray, "..."] | TextColumns:
    """Read one array.

    Args:
        path: A safetensors, npy, csv or tsv file.
        key: Which tensor of a safetensors file.
        alone: Whether a single tensor of another name will do.

    Returns:
        The array; of a csv or tsv file the cells, as what is a header may depend on the number of rows.

    Raises:
        InputError: The file is missing, of another format, or damaged, or has no such tensor.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{path} is not of a format that can be read; use one of {', '.join(FORMATS)}")
    check_is_file(path)
    if kind == ".safetensors":
        tensors = _read_safetensors(path)
        if key not in tensors and not (alone and len(tensors) == 1):
            raise InputError(f"{path} has no tensor {key!r}; it has {', '.join(sorted(tensors)) or 'none'}")
        return _plain(tensors.get(key, next(iter(tensors.values()))), path)
    if kind == ".npy":
        return _read_npy(path)
    return TextColumns.read(path, "\t" if kind == ".tsv" else ",")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of any origin; those of a run have a checksum, and are read by its folder."""
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is missing, truncated or no safetensors file ({error})") from error


def _plain(tensor: Tensor, path: Path) -> Shaped[np.ndarray, "..."]:
    if tensor.dtype not in (*_FLOATS, *_INTEGERS):
        raise InputError(f"{path} holds numbers of dtype {tensor.dtype}; save them as float32, or labels as int64")
    return to_array(tensor)


def _read_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    try:
        _check_size(path)
        array = np.load(path, allow_pickle=False)
    # The last three are what a damaged header, which is Python text, and a damaged archive end in.
    except (ValueError, OSError, EOFError, OverflowError, SyntaxError, tokenize.TokenError,
            zipfile.BadZipFile) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no npy file of plain numbers ({' '.join(str(error).split())})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of several arrays; save one array by numpy.save")
    return array


def _check_size(path: Path) -> None:
    """Refuse an npy file that claims more numbers than it holds, before memory for them is asked for."""
    with path.open("rb") as file:
        if file.read(2) != b"\x93N":  # the start of an npy file; an archive has another
            return
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        wanted = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and wanted > path.stat().st_size - file.tell():
            raise InputError(f"{path} is cut off: its header tells of {shape} numbers, {wanted} bytes; save it again")
