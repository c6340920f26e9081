"""Tasks from a user's own files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ntk_lpft.class_names import listed
from ntk_lpft.errors import InputError
from ntk_lpft.tasks.labels import LabelColumn, one_class, settle_labels
from ntk_lpft.tasks.sampling import class_tails
from ntk_lpft.tasks.tables import Record, at_row, read_table, text_of
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
    *,
    stratified_validation: bool = False,
) -> Task:
    """Make a task of csv, tsv, jsonl, json (a list, or one object a line) or parquet files.

    All files are read and checked at once, so that a fault in the last one shows before long work starts. csv and tsv
    files have a header line and csv quoting. The classes are those of the training file; all others are read by them.

    Args:
        train: Training rows.
        validation: Validation rows; where None, the last tenth of the training rows, as in the paper's settings.
        test: Test rows; where None, the task has no test split.
        ood: Tests from other sources, by name, with the same columns and labels.
        text_columns: One column, or two for sentence pairs.
        label_column: Column of labels.
        label_names: Classes in the order of their numbers; labels are then names or numbers. Where None, whole
            numbers from 0 stand for themselves, other numbers are names in their order, and words are numbered in
            sorted order.
        metric: ``"accuracy"`` or ``"matthews"``.
        stratified_validation: Take a tenth of each class for validation, chosen by hash, instead of the last tenth;
            for files sorted by class.

    Returns:
        The task; ``label_names`` records which label got which number.

    Raises:
        InputError: Missing or malformed files, columns, texts or labels; or the last tenth of the training rows has
            all rows of some class.
    """
    columns = (text_columns,) if isinstance(text_columns, str) else text_columns
    _check_arguments(columns, label_column, label_names, ood)
    if stratified_validation and validation is not None:
        raise InputError("a stratified validation split is made of training rows; give it or a file of validation rows")
    own = {"train": train, "validation": validation, "test": test}
    files = [
        _File.read(name, path, columns, label_column)
        for name, path in own.items()
        if name == "train" or path is not None
    ]
    others = [_File.read(name, path, columns, label_column) for name, path in (ood or {}).items()]
    names, numbers = settle_labels([LabelColumn.of(f.records, label_column, f.where) for f in (*files, *others)],
                                   label_names)  # fmt: skip
    whole, *read = (file.split(columns, labels) for file, labels in zip((*files, *others), numbers, strict=True))
    _check_classes(whole, names)
    splits = {split.name: split for split in read[: len(files) - 1]}
    if validation is None:
        rest, held = _stratified(whole) if stratified_validation else (without_tail(whole), tail(whole))
        _check_rest(rest, held, names)
        splits = {"train": rest, "validation": held} | splits
    else:
        splits = {"train": whole} | splits
    task = Task(
        name=Path(train).stem,
        label_names=names,
        source=f"files {', '.join(str(path) for path in own.values() if path is not None)}",
        loaders={name: partial(_same, split) for name, split in splits.items()},
        ood_loaders={split.name: partial(_same, split) for split in read[len(files) - 1 :]},
        metric=metric,
    )
    for name in splits:
        task.split(name)
    return task


def _check_arguments(columns: Any, label_column: Any, label_names: Any, ood: Any) -> None:
    for what, values in (("text columns", columns), ("label names", label_names)):
        if values is not None and not _are_texts(values):
            raise InputError(f"{what} {values!r:.60} are no list of texts")
    if columns is None or len(columns) not in (1, 2) or len(set(columns)) != len(columns):
        raise InputError(f"text columns {', '.join(columns or ()) or '(none)'}: give one column, or two different ones")
    if not isinstance(label_column, str):
        raise InputError(f"label column {label_column!r:.60} is no text")
    if label_column in columns:
        raise InputError(f"column {label_column!r} is to be text and label; name two columns")
    if ood is not None and not isinstance(ood, Mapping):
        raise InputError(f"ood {ood!r:.60} is no mapping of names to files")


def _are_texts(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(v, str) for v in values)


def _same(split: Split) -> Split:
    return split


@dataclass(frozen=True)
class _File:
    """A file of rows.

    Attributes:
        name: Of its split.
        where: How messages name it.
        records: Its rows.
    """

    name: str
    where: str
    records: list[Record]

    @classmethod
    def read(cls, name: str, path: str | Path | None, columns: Sequence[str], label_column: str) -> _File:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"file of {name} rows {path!r:.60} is no path; give one as text")
        where, records = str(path), read_table(Path(path))
        if not records:
            raise InputError(f"{where} has no rows; give at least one")
        wanted = (*columns, label_column)
        missing = [column for column in wanted if column not in records[0]]
        if missing:
            known = listed([repr(name) for name in records[0]])
            raise InputError(f"{where} has no column {missing[0]!r}; its columns are {known}")
        for row, record in enumerate(records):
            if all(record.get(column) == column for column in wanted):
                raise InputError(f"{at_row(where, row)} repeats the header line; remove it")
        return cls(name, where, records)

    def split(self, columns: Sequence[str], labels: np.ndarray) -> Split:
        texts = tuple(
            tuple(text_of(record, column, self.where, row) for column in columns)
            for row, record in enumerate(self.records)
        )
        template = tuple(f"{{{column}}}" for column in columns)
        return Split(texts, labels, np.arange(len(texts)), self.name, template, self.where)


def _stratified(whole: Split) -> tuple[Split, Split]:
    held = class_tails(whole.labels, whole.indices)
    rest = np.setdiff1d(np.arange(len(whole)), held)
    return whole.take(rest, "train"), whole.take(held, "validation")


def _check_classes(whole: Split, names: Sequence[str]) -> None:
    if len(np.unique(whole.labels)) < 2:
        raise InputError(f"{whole.source}: {one_class(names[whole.labels[0]])}")


def _check_rest(rest: Split, held: Split, names: Sequence[str]) -> None:
    """Refuse a validation split that has all rows of some class."""
    lost = sorted(set(held.labels.tolist()) - set(rest.labels.tolist()))
    if lost:
        raise InputError(
            f"{held.source}: the last tenth, {len(held)} rows kept for validation, has all rows of class "
            f"{listed([names[number] for number in lost])}, so that none is left to train on; take a tenth of each "
            "class by --stratified-validation, or give a --validation-file"
        )
