"""Which rows belong to a sample: a choice by hash, the same under every version of every library."""

import hashlib

import numpy as np
from jaxtyping import Int

from ntk_lpft.errors import InputError


def hash_order(keys: list[str]) -> list[int]:
    """Positions of ``keys`` in the order of their sha256, ties in the given order."""
    return sorted(range(len(keys)), key=lambda position: hashlib.sha256(keys[position].encode()).digest())


def tail_size(count: int) -> int:
    """Return the number of rows in the last tenth of a split, rounded up.

    Rounding up gives the sizes of seven of the nine split training sets in Tomihari and Sato, NeurIPS 2024,
    table 7 (CB, RTE, BoolQ, WSC, SST-2, MRPC, Amazon). Of the other two, WiC is printed as a tenth of 6000 although
    5428 rows were released (4885 and 543 here), and CoLA as 7695 and 855, one row short of its 8551 (856 here).
    """
    return -(-count // 10)


def class_tails(labels: Int[np.ndarray, " n"], indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Choose a tenth of each class, to the nearest row, and at least one row where the class has two or more.

    Args:
        labels: Class numbers, (N,).
        indices: Row numbers in the source split, (N,), distinct; by their sha256 rows are chosen.

    Returns:
        Positions in ``labels``, ascending; at least one.
    """
    order = np.array(hash_order([f"validation:{index}" for index in indices]))
    chosen = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen.append(members[: max(round(len(members) / 10), int(len(members) > 1))])
    return np.sort(np.concatenate(chosen))


def quotas(counts: Int[np.ndarray, " c"], n: int) -> Int[np.ndarray, " c"]:
    """Divide ``n`` places among classes as equally as their sizes allow.

    Every class is given the same number of places up to its size; the places that are left over at the last level
    go one each to the classes with rows left, lowest class number first.

    Args:
        counts: Rows of each class, (C,).
        n: Places, at most ``counts.sum()``.

    Returns:
        Places of each class, (C,), which sum to ``n``.
    """
    given = np.zeros_like(counts)
    left = n
    while left > 0:
        open_classes = np.flatnonzero(given < counts)
        level = left // len(open_classes)
        if level == 0:
            given[open_classes[:left]] += 1
            break
        more = np.minimum(level, counts[open_classes] - given[open_classes])
        given[open_classes] += more
        left -= int(more.sum())
    return given


def subsample_positions(
    labels: Int[np.ndarray, " n"], indices: Int[np.ndarray, " n"], n: int | None, seed: int, balanced: bool
) -> Int[np.ndarray, " m"]:
    """Choose rows, without replacement, by the sha256 of seed and source row number.

    Rows are ranked by ``sha256(f"{seed}:{index}")``. A uniform sample takes the first ``n`` of the ranking, a balanced
    one takes the first of each class up to its quota (see :func:`quotas`). So a smaller uniform sample lies inside a
    larger one of the same seed, and so does a balanced one.

    Args:
        labels: Class numbers, (N,).
        indices: Row numbers in the source split, (N,), distinct.
        n: Rows wanted; None for all.
        seed: Any integer.
        balanced: Whether classes shall be of equal size.

    Returns:
        Positions in ``labels``, ascending; all of them where ``n`` is None or at least N.

    Raises:
        InputError: ``n`` is not positive, or a balanced sample has fewer rows than there are classes.
    """
    for what, value in (("a sample of", n), ("a seed of", seed)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
            raise InputError(f"{what} {value!r:.60} was asked for; give a whole number")
    if n is not None and n <= 0:
        raise InputError(f"a sample of {n} rows was asked for; give a positive number, or None for every row")
    if n is None or n >= len(labels):
        return np.arange(len(labels))
    order = np.array(hash_order([f"{seed}:{index}" for index in indices]))
    if not balanced:
        return np.sort(order[:n])
    classes, counts = np.unique(labels, return_counts=True)
    if n < len(classes):
        raise InputError(
            f"a balanced sample of {n} rows cannot hold {len(classes)} classes; ask for at least {len(classes)} rows, "
            "or for a sample that is not balanced"
        )
    places = quotas(counts, n)
    chosen = [order[labels[order] == label][:place] for label, place in zip(classes, places, strict=True)]
    return np.sort(np.concatenate(chosen))
