"""What is to be said of a task's data before work starts: its classes with their counts, and what looks odd."""

from collections.abc import Sequence

import numpy as np

from ntk_lpft.class_names import listed, shortened
from ntk_lpft.tasks.task import Split, Task

_SHOWN = 20  # classes in the line


def describe_classes(task: Task) -> str:
    """Name the classes in one line, each with its number and its rows in every split that has been read.

    Args:
        task: The task.

    Returns:
        As in ``0 bad (45 train, 5 validation), 1 good (45, 5)``.
    """
    counts = {name: np.bincount(split.labels, minlength=task.num_labels) for name, split in task.splits_read.items()}
    plain = task.label_names == tuple(str(number) for number in range(task.num_labels))
    parts = []
    for number, name in enumerate(task.label_names[:_SHOWN]):
        rows = ", ".join(f"{count[number]}{'' if number else f' {split}'}" for split, count in counts.items())
        title = name if plain else f"{number} {shortened(name)}"
        parts.append(f"{title} ({rows})" if rows else title)
    return ", ".join(parts) + (f" and {task.num_labels - _SHOWN} others" if task.num_labels > _SHOWN else "")


def doubts(task: Task) -> list[str]:
    """Say what looks odd about the splits that have been read.

    Args:
        task: The task.

    Returns:
        A line each: classes that a split lacks, training rows sorted by class, one text under two labels, and texts of
        training that are in another split too.
    """
    splits = task.splits_read
    lines = [line for name, split in splits.items() for line in _lacking(task, name, split)]
    train = splits.get("train")
    if train is None:
        return lines
    if "validation" in splits and _is_sorted(train) and _follows(splits["validation"], train):
        lines.append(
            "the training rows are sorted by class, and the validation split is cut off from their end; "
            "--stratified-validation takes a tenth of each class of your own file"
        )
    labels: dict[tuple[str, ...], set[int]] = {}
    for segments, label in zip(train.texts, train.labels.tolist(), strict=True):
        labels.setdefault(segments, set()).add(label)
    torn = sum(len(found) > 1 for found in labels.values())
    if torn:
        lines.append(f"{_texts(torn)} of the training rows stand under more than one label")
    for name, split in splits.items():
        shared = sum(segments in labels for segments in split.texts)
        if name != "train" and shared:
            lines.append(f"{shared} of the {len(split)} rows of {name} have a text that is a training row's as well")
    return lines


def _lacking(task: Task, name: str, split: Split) -> list[str]:
    present = set(split.labels.tolist())
    lacking = [label for number, label in enumerate(task.label_names) if number not in present]
    return [f"{name} has no row of class {_few(lacking)}"] if lacking else []


def _few(names: Sequence[str]) -> str:
    return listed(names, 6)


def _is_sorted(split: Split) -> bool:
    """Whether each class is one run of rows, and there is more than a row of each."""
    changes = int(np.count_nonzero(np.diff(split.labels)))
    classes = len(np.unique(split.labels))
    return changes == classes - 1 and len(split) >= 4 * classes


def _follows(validation: Split, train: Split) -> bool:
    """Whether validation was cut off from the end of the training rows."""
    return validation.source == train.source and bool(validation.indices.min() > train.indices.max())


def _texts(count: int) -> str:
    return "1 text" if count == 1 else f"{count} texts"
