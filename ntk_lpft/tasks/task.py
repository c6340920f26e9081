"""A task is labelled text in splits: train, validation, test, and tests from elsewhere (OOD)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.encoding import EncodedSplit, encode_texts, encoded_fingerprint
from ntk_lpft.tasks.fingerprint import content_fingerprint
from ntk_lpft.tasks.sampling import subsample_positions, tail_size

METRICS = ("accuracy", "matthews")


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Labelled texts in order.

    Attributes:
        texts: One or two segments per example, the same number for all, template applied.
        labels: Class numbers, (N,).
        indices: Row numbers in the source split, (N,), distinct.
        name: Name of the split.
        template: The format strings that made the segments.
        source: Where the rows were read.

    Raises:
        InputError: No rows, an empty text, or columns that do not fit each other.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: Int64[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]
    name: str
    template: tuple[str, ...] = ("{text}",)
    source: str = ""

    def __post_init__(self) -> None:
        where = self.source or self.name
        if any(isinstance(segments, str) for segments in self.texts):
            raise InputError(f"{where}: texts are strings; give a tuple of one or two strings per example")
        object.__setattr__(self, "texts", tuple(tuple(segments) for segments in self.texts))
        for column in ("labels", "indices"):
            values = np.array(getattr(self, column))
            if values.shape != (len(self.texts),) or (len(self.texts) and not np.issubdtype(values.dtype, np.integer)):
                raise InputError(f"{where}: {column} must be one integer for each of the {len(self.texts)} texts")
            values = values.astype(np.int64)
            values.setflags(write=False)
            object.__setattr__(self, column, values)
        if not self.texts:
            raise InputError(f"{where}: there are no rows; give at least one example")
        if len(np.unique(self.indices)) != len(self.indices):
            raise InputError(f"{where}: the same source row occurs twice; give distinct indices")
        self._check_texts(where)

    def _check_texts(self, where: str) -> None:
        segments = len(self.texts[0])
        if segments not in (1, 2):
            raise InputError(f"{where}: examples have {segments} segments; give one text or a pair")
        for index, texts in zip(self.indices, self.texts, strict=True):
            if len(texts) != segments:
                raise InputError(f"{where}, row {index} (the first is 0): {len(texts)} segments, not {segments}")
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise InputError(f"{where}, row {index} (the first is 0) has an empty text; fill it, or remove the row")

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Split({self.name}, {len(self)} rows, fingerprint {self.fingerprint[:12]})"

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 of texts, labels and template."""
        return content_fingerprint(self.texts, self.labels, self.template)

    def take(self, positions: Int64[np.ndarray, " m"], name: str | None = None) -> Split:
        """Keep the rows at ``positions``, in that order, with their source row numbers."""
        texts = tuple(self.texts[position] for position in positions)
        name = self.name if name is None else name
        return replace(self, texts=texts, labels=self.labels[positions], indices=self.indices[positions], name=name)

    def subsample(self, n: int | None, seed: int, balanced: bool = True) -> Split:
        """Choose rows at random, without replacement, and leave them in order.

        The choice depends on the seed and the rows' source numbers alone, by the sha256 of both, so it is the same
        everywhere and under every library version; :func:`ntk_lpft.tasks.sampling.subsample_positions` says how.

        Args:
            n: Rows wanted; None, or as many as there are or more, gives every row.
            seed: Any integer.
            balanced: Classes as equal in size as their counts allow; else uniformly at random.

        Returns:
            The chosen rows, with their source row numbers.

        Raises:
            InputError: ``n`` is not positive, or a balanced sample is smaller than the number of classes.
        """
        return self.take(subsample_positions(self.labels, self.indices, n, seed, balanced))

    def encode(self, tokenizer: Any, max_length: int = 128, truncate: bool = True) -> EncodedSplit:
        """Tokenise without padding.

        Args:
            tokenizer: A Hugging Face tokenizer.
            max_length: Longest row in tokens, special tokens included; the paper uses 128.
            truncate: Whether longer examples are cut, token by token from the longer segment.

        Returns:
            The token rows, with the labels and source row numbers of the examples.

        Raises:
            InputError: An example is too long and shall not be truncated, has no token at all, or ``max_length`` does
                not fit the tokenizer.
        """
        rows, n_truncated = encode_texts(self.texts, tokenizer, max_length, truncate, self.source or self.name)
        return EncodedSplit(
            rows=rows,
            labels=self.labels,
            indices=self.indices,
            fingerprint=encoded_fingerprint(self.fingerprint, tokenizer, max_length),
            n_truncated=n_truncated,
            max_length=max_length,
            name=self.name,
        )


class Task:
    """A classification task whose splits are read when they are first asked for.

    Args:
        name: Name of the task.
        label_names: Names of the classes, in the order of their numbers; two or more.
        source: Where the data is read.
        loaders: What reads each of the task's own splits, by name.
        ood_loaders: What reads each test from another source, by name; None for none.
        metric: ``"accuracy"`` or ``"matthews"`` (Matthews correlation).

    Attributes:
        name: Name of the task.
        label_names: Names of the classes, in the order of their numbers.
        source: Where the data is read.
        metric: ``"accuracy"`` or ``"matthews"`` (Matthews correlation).

    Raises:
        InputError: An unknown metric, label names that are not distinct, or fewer than two of them.
    """

    def __init__(
        self,
        name: str,
        label_names: tuple[str, ...],
        source: str,
        loaders: Mapping[str, Callable[[], Split]],
        ood_loaders: Mapping[str, Callable[[], Split]] | None = None,
        metric: str = "accuracy",
    ) -> None:
        if metric not in METRICS:
            raise InputError(f"task {name}: unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
        if len(set(label_names)) != len(label_names) or len(label_names) < 2:
            raise InputError(f"task {name}: label names {list(label_names)} must be two or more, and distinct")
        self.name = name
        self.label_names = label_names
        self.source = source
        self.metric = metric
        self._loaders = dict(loaders)
        self._ood_loaders = dict(ood_loaders or {})
        self._read: dict[tuple[str, str], Split] = {}

    def __repr__(self) -> str:
        return f"Task({self.name}, {self.num_labels} labels, from {self.source})"

    @property
    def num_labels(self) -> int:
        """Number of classes C."""
        return len(self.label_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the task's own splits; your own files may have no ``"test"``."""
        return tuple(self._loaders)

    @property
    def ood(self) -> tuple[str, ...]:
        """Names of the tests from other sources, with the same labels."""
        return tuple(self._ood_loaders)

    @property
    def splits_read(self) -> dict[str, Split]:
        """The splits that have been read so far, tests from other sources as ``ood.NAME``."""
        return {f"ood.{name}" if kind == "OOD test" else name: split for (kind, name), split in self._read.items()}

    def split(self, name: str) -> Split:
        """Return one of the task's own splits, read at the first call.

        Args:
            name: One of :attr:`splits`.

        Returns:
            The split.

        Raises:
            InputError: No such split, its files are missing or malformed, or a training split lacks classes or rows.
        """
        return self._get("split", name, self._loaders)

    def ood_split(self, name: str) -> Split:
        """Return a test from another source, read at the first call.

        Args:
            name: One of :attr:`ood`.

        Returns:
            The test.

        Raises:
            InputError: No such test, or its files are missing or malformed.
        """
        return self._get("OOD test", name, self._ood_loaders)

    def _get(self, kind: str, name: str, loaders: Mapping[str, Callable[[], Split]]) -> Split:
        if name not in loaders:
            offered = f"choose one of {', '.join(loaders)}" if loaders else "it has none"
            raise InputError(f"task {self.name} has no {kind} {name!r}; {offered}")
        if (kind, name) not in self._read:
            split = loaders[name]()
            self._check(split, is_train=kind == "split" and name == "train")
            self._read[kind, name] = split
        return self._read[kind, name]

    def _check(self, split: Split, is_train: bool) -> None:
        where = split.source or f"task {self.name}, {split.name}"
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= self.num_labels))
        if len(wrong):
            raise InputError(
                f"{where}, row {split.indices[wrong[0]]} (the first is 0): label {split.labels[wrong[0]]} is outside "
                f"0 to {self.num_labels - 1}; correct it, or name {self.num_labels} labels or more"
            )
        if not is_train:
            return
        if len(split) < self.num_labels:
            raise InputError(f"{where}: {len(split)} training rows for {self.num_labels} classes; give more rows")
        if len(np.unique(split.labels)) < 2:
            only = self.label_names[split.labels[0]]
            raise InputError(f"{where}: every training row is of class {only!r}; give rows of two classes or more")


def without_tail(split: Split) -> Split:
    """Return the training rows that remain once the last tenth is kept for validation, as in the paper's settings."""
    return split.take(np.arange(len(split) - tail_size(len(split))), "train")


def tail(split: Split) -> Split:
    """Return the last tenth of the original training rows, unshuffled: the paper's validation split."""
    return split.take(np.arange(len(split) - tail_size(len(split)), len(split)), "validation")
