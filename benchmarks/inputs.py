"""Models and real text that the benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaModel

from ntk_lpft import load_classifier, load_task, load_tokenizer
from ntk_lpft.classifier import LinearHeadClassifier
from ntk_lpft.probing import linear_probe

Row = dict[str, list[int]]


def text_of_length(count: int, length: int) -> list[Row]:
    """Rows of exactly ``length`` tokens, each of several Amazon review sentences one after the other."""
    tokenizer = load_tokenizer("minilm")
    texts = [" ".join(segments) for segments in load_task("amazon-snippets").split("train").texts]
    rows: list[Row] = []
    at = 0
    while len(rows) < count:
        joined: list[str] = []
        ids: list[int] = []
        while len(ids) < length:
            joined.append(texts[at % len(texts)])
            at += 1
            ids = tokenizer(" ".join(joined), truncation=True, max_length=length)["input_ids"]
        rows.append({"input_ids": ids, "token_type_ids": [0] * length})
    return rows


def ragged_text(count: int, longest: int) -> list[Row]:
    """Rows of one, two or three Amazon review sentences, cut at ``longest`` tokens, in all lengths up to it."""
    tokenizer = load_tokenizer("minilm")
    texts = iter(load_task("amazon-snippets").split("train").texts)
    rows: list[Row] = []
    for number in range(count):
        joined = " ".join(" ".join(next(texts)) for _ in range(number % 3 + 1))
        ids = tokenizer(joined, truncation=True, max_length=longest)["input_ids"]
        rows.append({"input_ids": ids, "token_type_ids": [0] * len(ids)})
    return rows


def cb_train() -> list[Row] | None:
    """All 250 rows of CB's original training split, or None where NTK_LPFT_DATA names no data."""
    if not os.environ.get("NTK_LPFT_DATA"):
        return None
    task = load_task("cb")
    tokenizer = load_tokenizer("minilm")
    return [row for name in ("train", "validation") for row in task.split(name).encode(tokenizer)]  # type: ignore[misc]


def minilm(num_labels: int) -> nn.Module:
    """Load the pretrained MiniLM with a new linear head."""
    return load_classifier("minilm", num_labels)


def probed_head(model: nn.Module) -> tuple[Tensor, Tensor]:
    """V and b of the library's linear probe, logistic regression on all Amazon review sentences for training."""
    train = load_task("amazon-snippets").split("train").encode(load_tokenizer("minilm"), 64)
    probe = linear_probe(model, train, 2, say=lambda line: None)
    assert probe.bias is not None
    return probe.weight.float(), probe.bias.float()


def roberta_base_size(num_labels: int) -> nn.Module:
    """Make a random model of roberta-base's size: 124 million parameters."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
    )
    return LinearHeadClassifier(RobertaModel(config, add_pooling_layer=False), num_labels, "first").eval()


def without_segments(rows: Sequence[Row]) -> list[Row]:
    """Token ids alone, kept clear of RoBERTa's padding id."""
    return [{"input_ids": [i if i > 1 else 2 for i in row["input_ids"]]} for row in rows]
