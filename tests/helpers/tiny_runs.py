"""Small runs of the finetune command: a model, files of text that can be learned, and what a run made of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from helpers.small import WORDS, Example, save_csv, save_model

SPLITS = ("train", "validation", "test")


def labelled(count: int, seed: int) -> list[Example]:
    """Texts in which a word tells the class, among others that do not."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        words = [*rng.choices(WORDS, k=3 + i % 4), WORDS[i % 3], WORDS[i % 3]]
        rng.shuffle(words)
        rows.append((" ".join(words), i % 3))
    return rows


TEXTS = {"train": labelled(30, 0), "validation": labelled(9, 1), "test": labelled(7, 2)}


def make_place(folder: Path) -> Path:
    """Put a BERT, a GPT-2 and the texts of each split into a folder."""
    save_model(folder / "bert", config={"hidden_dropout_prob": 0.1})
    save_model(folder / "gpt2", name="gpt2")
    for name, rows in TEXTS.items():
        save_csv(folder / f"{name}.csv", rows)
    return folder


def words_of(place: Path, *more: object, model: str = "bert") -> list[str]:
    """Make a command line for a model and the texts of a place."""
    files = [word for name in SPLITS for word in (f"--{name}_file", place / f"{name}.csv")]
    given = ["--model", place / model, *files, "--max_length", 20, "--num_train_epochs", 2, "--learning_rate", 3e-3,
             *(() if "--no_track" in more else ("--probe_size", 6))]  # fmt: skip
    return [str(word) for word in (*given, *more)]


def metrics_of(folder: Path) -> dict[str, Any]:
    """Read ``metrics.json``."""
    return json.loads((folder / "metrics.json").read_text())


def contents(folder: Path) -> dict[str, object]:
    """Read what training made, bit by bit: weights, head, logits and measurements."""
    found: dict[str, object] = {"tracking.csv": (folder / "tracking.csv").read_bytes()}
    for name in ("predictions.safetensors", "model/model.safetensors", "model/head.safetensors"):
        for key, value in load_file(folder / name).items():
            found[f"{name}/{key}"] = value.numpy().tobytes()
    return found
