"""Features before and after a run, against plain transformers and against what the run itself wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.small import examples, save_csv, tokens_of
from helpers.tiny_runs import TEXTS, make_place, words_of
from helpers.zoo import HIDDEN
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from analysis.experiments.features import main
from ntk_lpft.classifier.head_file import load_head, save_head
from ntk_lpft.commands.finetune import main as finetune
from ntk_lpft.runs import FinetuneRun

pytestmark = pytest.mark.slow

GIVEN = torch.arange(3.0 * HIDDEN).view(3, HIDDEN) / 100


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def runs(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train by several methods, from several heads, on the same texts."""
    folder = tmp_path_factory.mktemp("runs")
    save_head(folder / "given.safetensors", GIVEN, torch.ones(3))
    quick = ("--no_track", "--num-train-epochs", 1, "--seed", 3)
    for name, more in {
        "ft": ("--method", "ft"),
        "lp": ("--method", "lp"),
        "lp-ft": ("--method", "lp-ft", "--head-scale", 2, "--scale-bias"),
        "lora": ("--method", "lora", "--head-init", folder / "given.safetensors", "--n-eval", 5),
    }.items():
        assert finetune(words_of(place, *quick, *more, "--output-dir", folder / name)) == 0
    assert finetune(words_of(place, *quick, "--method", "ft", "--output-dir", folder / "gpt2", model="gpt2")) == 0
    return folder


def first_tokens(model: Path, texts: list[str], position: int = 0) -> Tensor:
    """One position's last hidden state of every text, alone, by plain transformers."""
    body = AutoModel.from_pretrained(model)
    wanted = {"gpt2": ("input_ids",)}.get(body.config.model_type, ("input_ids", "token_type_ids"))
    with torch.no_grad():
        return torch.stack(
            [
                body.eval()(**{k: torch.tensor([v]) for k, v in tokens_of(text).items() if k in wanted})
                .last_hidden_state[0, position]
                for text in texts
            ]
        )  # fmt: skip


def of(runs: Path, name: str, out: Path, *more: object) -> dict[str, Tensor]:
    given = ["--run", runs / name, "--output-dir", out, *more]
    assert main([str(word) for word in given]) == 0
    return load_file(out / "features.safetensors")


@pytest.mark.parametrize(("name", "model", "position"), [("ft", "bert", 0), ("lp-ft", "bert", 0), ("gpt2", "gpt2", -1)])
@pytest.mark.parametrize("split", ["test", "train"])
def test_features_are_those_of_plain_transformers(
    runs: Path, place: Path, tmp_path: Path, name: str, model: str, position: int, split: str
) -> None:
    found = of(runs, name, tmp_path, "--split", split)
    texts = [text for text, _ in TEXTS[split]]
    assert torch.allclose(found["features"], first_tokens(runs / name / "model", texts, position), atol=1e-5)
    assert torch.allclose(found["pretrained_features"], first_tokens(place / model, texts, position), atol=1e-5)
    assert (found["features"] - found["pretrained_features"]).norm() > 1e-2
    assert found["labels"].tolist() == [label for _, label in TEXTS[split]]
    assert found["features"].dtype == torch.float32


@pytest.mark.parametrize("name", ["ft", "lp", "lp-ft", "lora"])
def test_features_and_head_make_the_runs_own_logits(runs: Path, tmp_path: Path, name: str) -> None:
    found = of(runs, name, tmp_path)
    predictions = load_file(runs / name / "predictions.safetensors")
    logits = found["features"] @ found["head_weight"].T + found["head_bias"]
    assert torch.allclose(logits, predictions["test/logits"], atol=1e-4)
    assert torch.equal(found["labels"], predictions["test/labels"])
    assert len(logits) == (5 if name == "lora" else 7)


def test_heads_before_training(runs: Path, tmp_path: Path) -> None:
    ft, lpft, lora, lp = (of(runs, name, tmp_path / name) for name in ("ft", "lp-ft", "lora", "lp"))
    drawn = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(3)) * 0.02
    for found in (ft, lpft, lp):
        assert torch.allclose(found["pretrained_head_weight"], drawn)
        assert not found["pretrained_head_bias"].any()
    assert torch.allclose(ft["start_head_weight"], drawn)
    probe = load_head(runs / "lp-ft" / "probe_head.safetensors")
    assert probe.bias is not None
    assert torch.allclose(lpft["start_head_weight"].double(), 2 * probe.weight.double())
    assert torch.allclose(lpft["start_head_bias"].double(), 2 * probe.bias.double())
    assert torch.allclose(lora["start_head_weight"], GIVEN)
    # A probe is where its method ends, and leaves the features alone.
    assert "start_head_weight" not in lp
    assert torch.allclose(lp["features"], lp["pretrained_features"], atol=1e-6)


def test_a_head_that_is_not_the_runs_is_left_out_and_said_so(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "lp-ft", tmp_path / "run")
    path = tmp_path / "run" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["head"]["norm_before"] *= 1.1
    path.write_text(json.dumps(metrics))
    (tmp_path / "run" / "probe_head.safetensors").unlink()
    FinetuneRun(tmp_path / "run").seal()
    found = of(tmp_path, "run", tmp_path / "out")
    assert set(found) == {"features", "labels", "head_weight", "head_bias", "pretrained_features"}
    said = json.loads((tmp_path / "out" / "config.json").read_text())["left_out"]
    assert "pretrained_head" in said
    assert "probe_head.safetensors" in said
    assert said in capsys.readouterr().out


def test_rows_are_drawn_from_those_of_the_run(runs: Path, tmp_path: Path) -> None:
    whole, few = of(runs, "ft", tmp_path / "a"), of(runs, "ft", tmp_path / "b", "--n-eval", 4)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    indices = config["data"]["test"]["indices"]
    assert len(indices) == 4
    assert torch.allclose(few["features"], whole["features"][indices], atol=1e-5)
    assert few["labels"].tolist() == config["data"]["test"]["labels"] == [TEXTS["test"][i][1] for i in indices]
    again = of(runs, "ft", tmp_path / "c", "--config", tmp_path / "b" / "config.json")
    assert torch.equal(again["features"], few["features"])


def test_bad_input_is_one_line_and_writes_nothing(
    runs: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(runs / "ft", begun, ignore=shutil.ignore_patterns("metrics.json"))
    damaged = tmp_path / "damaged"
    shutil.copytree(runs / "ft", damaged)
    (damaged / "config.json").write_text('{"options": 3}')
    FinetuneRun(damaged).seal()
    altered = tmp_path / "altered"
    shutil.copytree(runs / "ft", altered)
    (altered / "config.json").write_text("{}")
    moved = tmp_path / "moved"
    shutil.copytree(runs / "ft", moved)
    save_csv(tmp_path / "test.csv", examples(7, seed=9))
    config = json.loads((moved / "config.json").read_text())
    config["options"]["test_file"] = str(tmp_path / "test.csv")
    (moved / "config.json").write_text(json.dumps(config))
    FinetuneRun(moved).seal()
    out = tmp_path / "out"
    for words, part in (
        (["--run", tmp_path / "no"], "does not exist"),
        (["--run", begun], "no finished run"),
        (["--run", damaged], "is damaged"),
        (["--run", altered], "config.json was altered after it was written"),
        (["--run", moved], "has changed since"),
        (["--run", runs / "ft", "--split", "ood.x"], "choose one of train, validation, test"),
        (["--run", runs / "ft", "--n-eval", 0], "--n-eval 0 must be 1 or more"),
        ([], "--run is needed"),
    ):
        capsys.readouterr()
        assert main([str(word) for word in [*words, "--output-dir", out]]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert part in lines[0]
        assert not out.exists()
    of(runs, "ft", out)
    before = (out / "features.safetensors").read_bytes()
    assert main(["--run", str(runs / "lp-ft"), "--output-dir", str(out)]) == 2
    assert (out / "features.safetensors").read_bytes() == before
    of(runs, "lp-ft", out, "--overwrite")
    assert (out / "features.safetensors").read_bytes() != before
