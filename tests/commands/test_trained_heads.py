"""A trained classification head is kept by default, whoever trained it; what is put in its place is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.small import save_model, tokens_of
from helpers.tiny_runs import TEXTS, make_place, words_of
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from ntk_lpft.classifier.trained_head import TrainedHead, trained_head
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main as finetune


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


def logits_of(place: Path, out: Path, *words: object) -> torch.Tensor:
    given = ["--train-file", place / "train.csv", "--test-file", place / "test.csv", "--n-train", 6, "--n-eval", 7,
             "--max-length", 20, "--no-kernel-classifier", "--output-dir", out, *words]  # fmt: skip
    assert compute([str(word) for word in given]) == 0
    return load_file(out / "kernel.safetensors")["eval/row_logits"]


def plain_logits(folder: Path) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = [torch.tensor([tokens_of(text)["input_ids"]]) for text, _ in TEXTS["test"]]
        return torch.cat([model(input_ids=row).logits for row in rows])


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_head_of_a_checkpoint_of_transformers_is_kept(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    found = logits_of(place, tmp_path / "out", "--model", place / name)
    torch.testing.assert_close(found, plain_logits(place / name), rtol=1e-4, atol=1e-5)
    assert f"head:   the trained one of {place / name} (native)" in capsys.readouterr().out
    options = json.loads((tmp_path / "out" / "config.json").read_text())["options"]
    assert (options["head"], options["head_init"]) == ("native", "keep")


def test_another_head_is_made_where_it_is_asked_for(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = plain_logits(place / "bert")
    for number, words in enumerate((["--head", "linear"], ["--head-init", "lp"], ["--head-init", "random"])):
        assert not torch.allclose(logits_of(place, tmp_path / str(number), "--model", place / "bert", *words), own)
        options = json.loads((tmp_path / str(number) / "config.json").read_text())["options"]
        assert options["head"] == "linear"
        assert options["head_init"] == (words[1] if words[0] == "--head-init" else "lp")
        assert "the trained one" not in capsys.readouterr().out


def test_a_head_of_other_classes_is_replaced_with_a_notice(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = save_model(tmp_path / "two", num_labels=2)
    logits_of(place, tmp_path / "out", "--model", two)
    printed = capsys.readouterr().out
    assert f"notice: the head of {two} has 2 classes, the data 3 (0, 1, 2); a linear probe takes its place" in printed
    assert "head:   logistic regression" in printed


@pytest.mark.parametrize("head", ["linear", "native"])
def test_the_head_of_a_run_is_kept_whatever_its_kind(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    run = tmp_path / "run"
    words = words_of(
        place, "--method", "ft", "--head", head, "--num_train_epochs", 1, "--no_track", "--output_dir", run
    )
    assert finetune(words) == 0
    assert f"notice: {place / 'bert'} has a trained head" in capsys.readouterr().out
    expected = load_file(run / "predictions.safetensors")["test/logits"]
    torch.testing.assert_close(logits_of(place, tmp_path / "out", "--model", run), expected, rtol=1e-4, atol=1e-5)
    assert f"head:   the trained one of {run} ({head})" in capsys.readouterr().out


def test_what_counts_as_a_trained_head(place: Path, tmp_path: Path) -> None:
    assert trained_head(place / "bert") == TrainedHead("native", 3, ("LABEL_0", "LABEL_1", "LABEL_2"))
    body = tmp_path / "body"
    AutoModel.from_pretrained(place / "bert", add_pooling_layer=False).save_pretrained(body)
    assert trained_head(body) is None
    for changes in ({"problem_type": "multi_label_classification"}, {"problem_type": "regression"}):
        assert trained_head(save_model(tmp_path / changes["problem_type"], config=changes)) is None
    assert trained_head(save_model(tmp_path / "one", num_labels=1)) is None
    assert trained_head("no-such/model-on-the-hub") is None  # loading it says so
