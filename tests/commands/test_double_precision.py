"""Fine-tuning a checkpoint in float64, as a user does."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from helpers.tiny_runs import make_place, words_of
from helpers.zoo import ZOO
from safetensors.torch import load_file

from ntk_lpft import load_classifier
from ntk_lpft.commands.finetune import main


def test_a_run_stays_in_float64(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    ZOO["bert"].build(dtype=torch.float64).save_pretrained(place / "bert")
    words = words_of(place, "--method", "lp-ft", "--num-train-epochs", 1, "--probe-size", 6, "--track-kernel", 2,
                     "--output-dir", tmp_path / "run")  # fmt: skip
    assert main(words) == 0
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float64}
    predictions = load_file(tmp_path / "run" / "predictions.safetensors")
    assert predictions["test/logits"].dtype == torch.float64
    model = load_classifier(tmp_path / "run", keep_head=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["splits"]["test"]["rows"] > 0
