"""Tasks from a user's own files."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.labels import choose_label_names, label_values, to_numbers
from ntk_lpft.tasks.tables import Record, read_table, text_of
from ntk_lpft.tasks.task import Split, Task, tail, without_tail


def load_files(
    train: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    ood: Mapping[str, str | Path] | None = None,
    text_columns: Sequence[str] = ("text",),
    label_column: str = "label",
    label_names: Sequence[str] | None = None,
    metric: str = "accuracy",
) -> Task:
    """Make a task of csv, tsv, jsonl, json (a list, or one object a line) or parquet files.

    All files are read and checked at once, so that a fault in the last one shows before long work starts. csv and tsv
    files have a header line and csv quoting.

    Args:
        train: Training rows.
        validation: Validation rows; where None, the last tenth of the training rows, as in the paper's settings.
        test: Test rows; where None, the task has no test split.
        ood: Tests from other sources, by name, with the same columns and labels.
        text_columns: One column, or two for sentence pairs.
        label_column: Column of labels.
        label_names: Classes in the order of their numbers; labels are then names or numbers. Where None, whole
            numbers stand for themselves and words are numbered in sorted order.
        metric: ``"accuracy"`` or ``"matthews"``.

    Returns:
        The task; ``label_names`` records which label got which number.

    Raises:
        InputError: Missing or malformed files, columns, texts or labels.
    """
    columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
    if len(columns) not in (1, 2) or len(set(columns)) != len(columns):
        raise InputError(f"text columns {', '.join(columns) or '(none)'}: give one column, or two different ones")
    records = read_table(Path(train))
    _check_columns(records, (*columns, label_column), str(train))
    if label_names is None:
        label_names = choose_label_names(label_values(records, label_column, str(train)), str(train))
    if len(label_names) < 2:
        raise InputError(
            f"{train}: every training row is of class {label_names[0]!r}; give rows of two classes or more"
        )
    to_split = partial(_to_split, columns=columns, label_column=label_column, label_names=label_names)

    whole = to_split(records, train, "train")
    splits = {"train": whole if validation is not None else without_tail(whole)}
    splits["validation"] = tail(whole) if validation is None else to_split(None, validation, "validation")
    if test is not None:
        splits["test"] = to_split(None, test, "test")
    others = {name: to_split(None, path, name) for name, path in (ood or {}).items()}
    task = Task(
        name=Path(train).stem,
        label_names=tuple(label_names),
        source=f"files {', '.join(str(path) for path in (train, validation, test) if path is not None)}",
        loaders={name: partial(_same, split) for name, split in splits.items()},
        ood_loaders={name: partial(_same, split) for name, split in others.items()},
        metric=metric,
    )
    for name in splits:
        task.split(name)
    return task


def _same(split: Split) -> Split:
    return split


def _check_columns(records: Sequence[Record], columns: Sequence[str], where: str) -> None:
    if not records:
        raise InputError(f"{where} has no rows; give at least one")
    missing = [column for column in columns if column not in records[0]]
    if missing:
        raise InputError(f"{where} has no column {missing[0]!r}; its columns are {', '.join(map(repr, records[0]))}")


def _to_split(
    records: list[Record] | None,
    path: str | Path,
    name: str,
    columns: tuple[str, ...],
    label_column: str,
    label_names: Sequence[str],
) -> Split:
    where = str(path)
    if records is None:
        records = read_table(Path(path))
    _check_columns(records, (*columns, label_column), where)
    texts = tuple(
        tuple(text_of(record, column, where, row) for column in columns) for row, record in enumerate(records)
    )
    return Split(
        texts=texts,
        labels=to_numbers(label_values(records, label_column, where), label_names, where),
        indices=np.arange(len(records)),
        name=name,
        template=tuple(f"{{{column}}}" for column in columns),
        source=where,
    )
