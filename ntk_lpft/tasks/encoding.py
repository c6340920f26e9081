"""Texts become token rows, without padding."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.fingerprint import digest, tokenizer_fingerprint
from ntk_lpft.tasks.sampling import subsample_positions

KEPT = ("input_ids", "attention_mask", "token_type_ids")
CHUNK = 1000


@dataclass(frozen=True, eq=False, repr=False)
class EncodedSplit(Sequence[Mapping[str, list[int]]]):
    """Tokenised examples, each of its own length.

    Attributes:
        rows: Per example the ``input_ids``, the ``attention_mask`` and, where the tokenizer makes them, the
            ``token_type_ids``.
        labels: Class numbers, (N,).
        indices: Row numbers in the source split, (N,).
        fingerprint: A sha256 of content, template, tokenizer and ``max_length``.
        n_truncated: Number of examples that were longer than ``max_length``.
        max_length: Longest allowed row, in tokens.
        name: Name of the split.
    """

    rows: tuple[Mapping[str, list[int]], ...]
    labels: Int64[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]
    fingerprint: str
    n_truncated: int
    max_length: int
    name: str = "data"

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.labels) == len(self.indices):
            raise InputError(
                f"{self.name}: {len(self.rows)} rows, {len(self.labels)} labels and {len(self.indices)} indices; "
                "give one of each for every example"
            )
        for position, row in enumerate(self.rows):
            length = len(row["input_ids"])
            if length == 0:
                raise InputError(
                    f"{self.name}, row {position} (the first is 0) has no token; use a tokenizer that adds special "
                    "tokens, or leave the row out"
                )
            if length > self.max_length:
                raise InputError(
                    f"{self.name}, row {position} (the first is 0) has {length} tokens, more than the "
                    f"{self.max_length} allowed; let it be truncated, or raise max_length"
                )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: SupportsIndex) -> dict[str, list[int]]: ...
    @overload
    def __getitem__(self, position: slice) -> list[dict[str, list[int]]]: ...
    def __getitem__(self, position: SupportsIndex | slice) -> dict[str, list[int]] | list[dict[str, list[int]]]:
        # Copies, so that a collator that edits its rows leaves these as the fingerprint describes them.
        if isinstance(position, slice):
            return [_copy(row) for row in self.rows[position]]
        return _copy(self.rows[operator.index(position)])

    def subsample(self, n: int | None, seed: int, balanced: bool = True) -> EncodedSplit:
        """Choose rows as ``Split.subsample`` does; the fingerprint then tells of the choice.

        Args:
            n: Rows wanted; None, or as many as there are or more, gives every row.
            seed: Any integer.
            balanced: Classes as equal in size as their counts allow; else uniformly at random.

        Returns:
            The chosen rows, in their order.

        Raises:
            InputError: ``n`` is not positive, or a balanced sample is smaller than the number of classes.
        """
        positions = subsample_positions(self.labels, self.indices, n, seed, balanced)
        if len(positions) == len(self):
            return self
        return replace(
            self,
            rows=tuple(self.rows[position] for position in positions),
            labels=self.labels[positions],
            indices=self.indices[positions],
            fingerprint=digest([{"rows": self.fingerprint, "positions": positions.tolist()}]),
            n_truncated=sum(len(self.rows[position]["input_ids"]) == self.max_length for position in positions),
        )

    def description(self) -> dict[str, Any]:
        """Say, in plain data, which rows these are: fingerprint, row numbers, labels, and how many were cut."""
        return {
            "fingerprint": self.fingerprint,
            "indices": self.indices.tolist(),
            "labels": self.labels.tolist(),
            "truncated": self.n_truncated,
        }

    def __repr__(self) -> str:
        return f"EncodedSplit({self.name}, {len(self)} rows, fingerprint {self.fingerprint[:12]})"


def _copy(row: Mapping[str, list[int]]) -> dict[str, list[int]]:
    return {name: list(values) for name, values in row.items()}


def encode_texts(
    texts: Sequence[tuple[str, ...]], tokenizer: Any, max_length: int, truncate: bool, name: str
) -> tuple[tuple[dict[str, list[int]], ...], int]:
    """Tokenise one- or two-segment examples without padding.

    Args:
        texts: Segments of each example.
        tokenizer: A Hugging Face tokenizer.
        max_length: Longest allowed row, special tokens included.
        truncate: Whether longer examples are cut, the longer segment first.
        name: How messages name these examples.

    Returns:
        The rows, and the number of examples that were longer than ``max_length``.

    Raises:
        InputError: ``max_length`` leaves no room for text or exceeds what the tokenizer allows, or an example is longer
            and ``truncate`` is False.
    """
    pairs = len(texts[0]) == 2
    _check_length(tokenizer, max_length, pairs)
    rows = _tokenise(texts, tokenizer)
    long = [position for position, row in enumerate(rows) if len(row["input_ids"]) > max_length]
    if long and not truncate:
        raise InputError(
            f"{name}, row {long[0]} (the first is 0) has {len(rows[long[0]]['input_ids'])} tokens, more than "
            f"max_length={max_length}, and so have {len(long) - 1} others; truncate them, or raise max_length"
        )
    if long:
        # Only the long rows are tokenised again, since a truncated row does not tell how long it was.
        cut = _tokenise(
            [texts[position] for position in long], tokenizer, truncation="longest_first", max_length=max_length
        )
        for position, row in zip(long, cut, strict=True):
            rows[position] = row
    return tuple(rows), len(long)


def _check_length(tokenizer: Any, max_length: int, pairs: bool) -> None:
    if not callable(tokenizer) or not hasattr(tokenizer, "num_special_tokens_to_add"):
        raise InputError(f"{tokenizer!r:.60} is no tokenizer of transformers; load one by load_tokenizer")
    if isinstance(max_length, bool) or not isinstance(max_length, int):
        raise InputError(f"max_length={max_length!r:.60} is no whole number of tokens; give one, such as 128")
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    if max_length <= special:
        raise InputError(
            f"max_length={max_length} leaves no room for text, as the tokenizer adds {special} special tokens; raise it"
        )
    limit = getattr(tokenizer, "model_max_length", None)
    if limit is not None and max_length > limit:
        raise InputError(
            f"max_length={max_length} exceeds the {limit} tokens that this tokenizer's model takes; lower it"
        )


def _tokenise(texts: Sequence[tuple[str, ...]], tokenizer: Any, **options: Any) -> list[dict[str, list[int]]]:
    rows: list[dict[str, list[int]]] = []
    for start in tqdm(range(0, len(texts), CHUNK), desc="tokenising", unit=f"×{CHUNK} rows", delay=2, disable=None):
        segments = [list(column) for column in zip(*texts[start : start + CHUNK], strict=True)]
        # verbose=False: a row longer than the model's limit is cut or refused later, so its warning would mislead.
        batch = tokenizer(*segments, padding=False, return_attention_mask=True, verbose=False, **options)
        names = [name for name in KEPT if name in batch]
        rows.extend({name: list(batch[name][place]) for name in names} for place in range(len(segments[0])))
    return rows


def encoded_fingerprint(content: str, tokenizer: Any, max_length: int) -> str:
    """Fingerprint of token rows from that of their texts, the tokenizer and the greatest length."""
    return digest([{"content": content, "tokenizer": tokenizer_fingerprint(tokenizer), "max_length": max_length}])
