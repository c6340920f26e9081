"""What stands in a file of logits beside logits: indices, ids, labels; and which column is of which class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from ntk_lpft.calibration.text_columns import TextColumns, class_numbers, is_number
from ntk_lpft.class_names import listed
from ntk_lpft.classifier.classes import match_classes
from ntk_lpft.errors import InputError

# Names under which tables hold something else than logits.
_OTHERS = frozenset(
    ("index", "idx", "id", "ids", "row", "row_id", "rowid", "sample_id", "example_id", "guid", "uid", "unnamed: 0",
     "label", "labels", "target", "targets", "y", "gold", "gold_label", "y_true", "pred", "prediction", "predicted",
     "y_pred")
)  # fmt: skip
_FEW = 5  # rows, in which whole numbers may stand by chance


def check_columns(
    scores: Shaped[np.ndarray, "..."],
    labels: Shaped[np.ndarray, "..."],
    names: Sequence[str] | None,
    where: str | Path,
) -> None:
    """Refuse a column that holds no logits.

    Such a column bears the name of an index or of labels, counts the rows, is equal to the labels, or has whole numbers
    that differ where the other columns have none such (a masked class is one number in all rows).

    Args:
        scores: The numbers, (N, K).
        labels: Classes, (N,).
        names: Names of the columns, if they have some.
        where: How messages name the file.

    Raises:
        InputError: There is one.
    """
    for place, name in enumerate(names or ()):
        if name.casefold() in _OTHERS:
            raise InputError(_refusal(where, place, names, "its name says so"))
    if scores.ndim != 2 or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        return
    whole = (scores == np.floor(scores)).all(axis=0)
    varied = (scores != scores[:1]).any(axis=0) if len(scores) else whole
    for place in np.flatnonzero(whole & varied).tolist():
        column = scores[:, place]
        if len(column) > 2 and (np.diff(column) == 1).all() and column[0] in (0, 1):
            raise InputError(_refusal(where, place, names, "it counts the rows"))
        if len(column) >= _FEW and labels.shape == column.shape and (column == labels).all():
            raise InputError(_refusal(where, place, names, "it is equal to the labels"))
        if len(column) >= _FEW and not whole.all():
            raise InputError(_refusal(where, place, names, "it has whole numbers alone, other columns have not"))


def _refusal(where: str | Path, place: int, names: Sequence[str] | None, why: str) -> str:
    called = f" ({names[place]!r})" if names else ""
    return f"{where}: column {place}{called} holds an index, ids or labels, no logits: {why}; leave it out"


def place_columns(names: Sequence[str], like: Sequence[str], where: str) -> list[int]:
    """Find which column is of which class.

    Args:
        names: Names of the columns.
        like: Names of the classes in the order that is wanted.
        where: How messages name the file.

    Returns:
        The column of each class.

    Raises:
        InputError: The names do not match.
    """
    try:
        return list(match_classes(like, names).order)
    except InputError as error:
        raise InputError(
            f"columns of {where} are {listed(names)}, those of validation {listed(like)}; name them alike, or leave "
            "the header lines out"
        ) from error


def labels_of(
    found: Shaped[np.ndarray, "..."] | TextColumns, source: str | Path, names: Sequence[str] | None, count: int
) -> tuple[Shaped[np.ndarray, "..."], bool]:
    """Read class numbers.

    Args:
        found: What the file holds.
        source: How messages name the file.
        names: Names of the classes in the order of their numbers, if they are known.
        count: Rows of logits.

    Returns:
        The labels, (N,) where they are in order; a second axis of one is dropped, and whole numbers that a format
        holds as floats become integers. And whether they were found by name.

    Raises:
        InputError: They are no whole numbers and no names.
    """
    if not isinstance(found, TextColumns):
        return _as_classes(found, source), False
    if found.lines.shape[1] != 1:
        raise InputError(f"labels in {source} have {found.lines.shape[1]} columns; give one, without an index")
    cells = [str(cell) for cell in found.lines[:, 0]]
    first = cells[0]
    known = names is not None and first in names
    # A number may head the column, as pandas writes 0 over a column that nobody named.
    if (not is_number(first) and not known) or (first == "0" and len(cells) == count + 1):
        cells = cells[1:]
    numbers, by_name = class_numbers(cells, names, source)
    return np.array(numbers, dtype=np.int64), by_name


def _as_classes(values: Shaped[np.ndarray, "..."], source: str | Path) -> Shaped[np.ndarray, "..."]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise InputError(f"labels in {source} are not all whole numbers; give class indices 0, 1, …")
    return values.astype(np.int64)
