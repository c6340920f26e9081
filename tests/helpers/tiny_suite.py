"""A suite that runs in seconds: a tiny BERT on a few made-up sentence pairs in CB's file format."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

from analysis.run import main
from analysis.suite.definitions import SUITES, DataSettings, Suite
from helpers.small import WORDS, save_model

LABELS = ("entailment", "contradiction", "neutral")


def make_data(folder: Path) -> Path:
    """Write training and validation files of CB's form, in which a word tells the label."""
    (folder / "cb").mkdir(parents=True)
    for name, count in (("train", 40), ("val", 9)):
        rows = [
            {"premise": f"{WORDS[i % 3]} {WORDS[3 + i % 5]}", "hypothesis": f"{WORDS[i % 7]} {WORDS[i % 3]}",
             "label": LABELS[i % 3]}
            for i in range(count)
        ]  # fmt: skip
        (folder / "cb" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tiny_suite(folder: Path, **changes: object) -> Suite:
    """Make the suite, and its model where there is none yet."""
    if not (folder / "bert").is_dir():
        save_model(folder / "bert", config={"hidden_dropout_prob": 0.1})
    settings: dict[str, object] = {
        "name": "tiny",
        "says": "for tests",
        "model": str(folder / "bert"),
        "datasets": {"cb": DataSettings(epochs=1, kernel_rows=(8, 6), scale_seeds=1, scale_epochs=1)},
        "seeds": (1, 2),
        "kernel_seeds": 1,
        "head_scales": (0.5, 2.0),
        "probe_iterations": 20,
        "probe_size": 6,
        "max_length": 20,
        "resamples": 40,
        "experiments": (),
    }
    return Suite(**{**settings, **changes})  # type: ignore[arg-type]


def run(suite: Suite, *words: object) -> int:
    """Run the command on a suite that only the tests know."""
    with mock.patch.dict(SUITES, {suite.name: suite}):
        return main(["--suite", suite.name, *map(str, words)])
