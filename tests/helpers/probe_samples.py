"""Splits, models and counters that the tests of linear probing share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from helpers.zoo import ZOO, Entry, Row, ragged_rows
from ntk_lpft.classifier import LinearHeadClassifier
from ntk_lpft.tasks import EncodedSplit


def linear_classifier(
    num_labels: int = 3, *, seed: int = 0, pooling: str = "first", dtype: torch.dtype = torch.float64
) -> LinearHeadClassifier:
    """One linear layer on the zoo's BERT."""
    body = ZOO["bert"].build(seed=seed, dtype=dtype).base_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LinearHeadClassifier(body, num_labels, pooling).to(dtype).eval()


def split_of(rows: Sequence[Row], num_labels: int = 3, *, shift: int = 0, name: str = "train") -> EncodedSplit:
    """Rows with labels that go round."""
    labels = (np.arange(len(rows)) + shift) % num_labels
    return EncodedSplit(tuple(rows), labels, np.arange(len(rows)), f"{name}-{shift}", 0, 20, name)


def drawn_split(
    n: int = 30, num_labels: int = 3, *, seed: int = 0, entry: Entry = ZOO["bert"], name: str = "train"
) -> EncodedSplit:
    """Random rows with labels that go round."""
    return split_of(ragged_rows(entry, n=n, seed=seed), num_labels, name=name)


@contextmanager
def counted_rows(module: nn.Module) -> Iterator[list[int]]:
    """Note the batch size of every forward pass."""
    seen: list[int] = []

    def note(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append(len(kwargs["input_ids"] if "input_ids" in kwargs else args[0]))

    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()
