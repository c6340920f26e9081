"""The sound inputs that are spoilt: a model, data, runs of each command, a suite's results, files of numbers."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from helpers.small import examples, save_csv, save_jsonl, save_model
from helpers.small_results import make_data, make_results
from safetensors.torch import save_file

from ntk_lpft.commands.calibrate import main as calibrate
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main as finetune

DATA = ["--train-file", "{in}/train.csv", "--validation-file", "{in}/validation.csv", "--test-file", "{in}/test.csv",
        "--max-length", "12"]  # fmt: skip
COMPUTE = ["--model", "{in}/bert", *DATA, "--n-train", "5", "--n-eval", "3", "--head-init", "random",
           "--no-kernel-classifier"]  # fmt: skip
FINETUNE = ["--model", "{in}/bert", *DATA, "--max-steps", "2", "--eval-strategy", "steps", "--save-strategy", "steps",
            "--eval-steps", "1", "--save-steps", "1", "--probe-size", "4", "--per-device-train-batch-size", "4",
            "--method", "ft"]  # fmt: skip
CALIBRATE = ["--logits", "{in}/logits.npy", "--labels", "{in}/labels.csv", "--test-logits", "{in}/more.csv",
             "--test-labels", "{in}/labels.csv", "--resamples", "0"]  # fmt: skip


def make_world(folder: Path, *, suite: bool) -> Path:
    """Make all inputs in a folder: ``plain`` for compute, finetune and calibrate, ``suite`` for the analysis."""
    plain = folder / "plain"
    save_model(plain / "bert")
    for seed, (name, rows) in enumerate({"train": 16, "validation": 8, "test": 6}.items()):
        save_csv(plain / f"{name}.csv", examples(rows, seed=seed))
    save_jsonl(plain / "train.jsonl", examples(16))
    (plain / "train.tsv").write_text((plain / "train.csv").read_text().replace(",", "\t"))
    (plain / "train.json").write_text(json.dumps([{"text": text, "label": label} for text, label in examples(16)]))
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(12, 3)), np.arange(12) % 3
    np.save(plain / "logits.npy", logits)
    np.savetxt(plain / "labels.csv", labels, fmt="%d")
    np.savetxt(plain / "more.csv", logits, delimiter=",")
    save_file({"logits": torch.from_numpy(logits), "labels": torch.from_numpy(labels)}, plain / "both.safetensors")
    for main, words, name in ((compute, COMPUTE, "kernel"), (finetune, FINETUNE, "run"), (calibrate, CALIBRATE, "cal")):
        given = [word.replace("{in}", str(plain)) for word in words]
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*given, "--output-dir", str(plain / name)]) == 0, name
    if suite:
        (folder / "suite").mkdir()
        make_results(folder / "suite" / "results", make_data(folder / "data"))
    return folder
