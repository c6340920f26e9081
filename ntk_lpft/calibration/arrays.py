"""Logits and labels from files of any origin: safetensors, npy, csv. Never a pickle."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
from jaxtyping import Shaped
from safetensors.torch import load_file
from torch import Tensor

from ntk_lpft.calibration.predictions import Predictions, to_array
from ntk_lpft.errors import InputError

FORMATS = (".safetensors", ".npy", ".csv", ".tsv")


def read_predictions(logits: str | Path, labels: str | Path | None, name: str) -> Predictions:
    """Read logits and labels.

    Args:
        logits: A file with the logits, (N, C): safetensors with the tensor ``logits`` or a single one, npy, or csv or
            tsv with one column a class, with or without a header.
        labels: A file with the classes, (N,), likewise; None where the file of logits is a safetensors that also has
            the tensor ``labels``.
        name: What error messages call the split.

    Returns:
        The predictions.

    Raises:
        InputError: A file is missing, of another format, or damaged, or what it holds is none of these.
    """
    scores = read_array(logits, "logits")
    source = logits if labels is None else labels
    if labels is None and Path(logits).suffix.lower() != ".safetensors":
        raise InputError(f"{name}: {logits} has no labels; give them as well")
    classes = _as_classes(read_array(source, "labels", alone=labels is not None), source)
    return Predictions.from_logits(scores, classes, f"logits of {name} ({logits})")


def read_array(path: str | Path, key: str, *, alone: bool = True) -> Shaped[np.ndarray, "..."]:
    """Read one array.

    Args:
        path: A safetensors, npy, csv or tsv file.
        key: Which tensor of a safetensors file.
        alone: Whether a single tensor of another name will do.

    Returns:
        The array.

    Raises:
        InputError: The file is missing, of another format, or damaged, or has no such tensor.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{path} is not of a format that can be read; use one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if kind == ".safetensors":
        tensors = _read_safetensors(path)
        if key not in tensors and not (alone and len(tensors) == 1):
            raise InputError(f"{path} has no tensor {key!r}; it has {', '.join(sorted(tensors)) or 'none'}")
        return to_array(tensors.get(key, next(iter(tensors.values()))))
    if kind == ".npy":
        return _read_npy(path)
    return _read_table(path, "\t" if kind == ".tsv" else ",")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of any origin; those of a run have a checksum, and are read by its folder."""
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is missing, truncated or no safetensors file ({error})") from error


def _read_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is no npy file of plain numbers ({error})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of several arrays; save one array by numpy.save")
    return array


def _read_table(path: Path, separator: str) -> Shaped[np.ndarray, "n k"]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file, delimiter=separator), [])
        header = not all(_is_number(cell) for cell in first)
        if header and not first[0].strip():
            raise InputError(f"{path}: the first column has no name, as if it counted rows; write it without an index")
        # NaN stays a number, to be refused with its row; anything else that is no number fails here.
        table = pd.read_csv(path, sep=separator, header=0 if header else None, encoding="utf-8-sig",
                            keep_default_na=False, na_values=["nan", "NaN", "NAN"], skip_blank_lines=True,
                            index_col=False, on_bad_lines="error")  # fmt: skip
        return table.to_numpy(dtype=np.float64)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no table of numbers ({reason})") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _as_classes(values: Shaped[np.ndarray, "..."], source: str | Path) -> Shaped[np.ndarray, "..."]:
    """Drop a table's second axis, and turn whole numbers that a format holds as floats into integers."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise InputError(f"labels in {source} are not all whole numbers; give class indices 0, 1, …")
    return values.astype(np.int64)
