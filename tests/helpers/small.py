"""Small things on disk, as a user has them: a tiny random checkpoint with its tokenizer, and files of labelled text."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast

from helpers.zoo import VOCABULARY, ZOO

# One token a word; the zoo's BERT pads with 0 and closes rows with what its entry says, which random weights ignore.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = tuple(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))
Example = tuple[str, int]


def tokenizer(max_length: int = 23) -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words for the zoo's models."""
    numbers = {name: number for number, name in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(WordLevel(numbers, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True)),
    )


def tokens_of(text: str) -> dict[str, list[int]]:
    """Turn one text into its row, without help of any tokenizer."""
    ids = [2, *(len(SPECIAL) + WORDS.index(word) for word in text.split()), 3]
    return {"input_ids": ids, "token_type_ids": [0] * len(ids)}


def save_model(
    folder: Path,
    name: str = "bert",
    *,
    num_labels: int = 3,
    max_length: int = 23,
    with_tokenizer: bool = True,
    weights: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Save one of the zoo's classifiers in float32.

    Args:
        folder: Where to.
        name: Which.
        num_labels: Number of outputs.
        max_length: Longest row that the tokenizer says the model takes.
        with_tokenizer: Whether to save one beside it.
        weights: Values to put into the first entry of parameters, by name.
        config: Entries of its config to change.

    Returns:
        The folder.
    """
    model: nn.Module = ZOO[name].build(num_labels=num_labels, dtype=torch.float32)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for parameter, value in (weights or {}).items():
            parameters[parameter].view(-1)[0] = value
    for key, setting in (config or {}).items():
        setattr(model.config, key, setting)
    model.save_pretrained(folder)
    if with_tokenizer:
        tokenizer(max_length).save_pretrained(folder)
    return folder


def examples(count: int, num_labels: int = 3, seed: int = 0) -> list[Example]:
    """Texts of two to six words with labels, no two alike, each class about equally often."""
    rng = random.Random(seed)
    return [(" ".join(rng.choices(WORDS, k=2 + i % 5)), (i * 7 + i // 5) % num_labels) for i in range(count)]


def save_csv(path: Path, rows: Sequence[Example], text: str = "text", label: str = "label") -> Path:
    """Write examples as comma-separated values."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([(text, label), *rows])
    return path


def save_jsonl(path: Path, rows: Sequence[Example]) -> Path:
    """Write examples as one JSON object a line."""
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8")
    return path
