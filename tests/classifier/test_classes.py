"""Heads whose classes stand in another order than the data's are matched by name, or refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers.small import WORDS, save_csv, save_model, tokens_of
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from ntk_lpft import load_classifier
from ntk_lpft.classifier import Head, LinearHeadClassifier, load_head, save_head
from ntk_lpft.classifier.classes import match_classes, names_of_classes
from ntk_lpft.classifier.head_file import head_from_file, with_class_names
from ntk_lpft.commands import compute, finetune
from ntk_lpft.errors import InputError

NAMES = ("cat", "dog", "eel")
DEFAULT = ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize("head", list(itertools.permutations(NAMES)))
@pytest.mark.parametrize("written", [str, str.upper, "the {}".format, " {} ".format])
def test_the_row_of_each_class_is_found_by_name(head: tuple[str, ...], written: object) -> None:
    renamed = tuple(written(name) for name in head)  # type: ignore[operator]
    data = tuple(f"the_{name}" if renamed[0].startswith("the") else name for name in NAMES)
    match = match_classes(data, renamed)
    assert [head[row] for row in match.order] == list(NAMES)
    assert match.names == data
    assert match.is_same == (head == NAMES)
    assert ("put into the data's order" in match.said) == (head != NAMES)


def test_numbers_are_matched_however_they_are_written() -> None:
    assert match_classes(("1", "2", "10"), ("10.0", "01", "2")).order == (1, 2, 0)


@pytest.mark.parametrize("data", [("0", "1", "2"), DEFAULT])
def test_data_without_names_is_taken_by_number(data: tuple[str, ...]) -> None:
    match = match_classes(data, ("eel", "cat", "dog"))
    assert match.is_same
    assert match.names == ("eel", "cat", "dog")
    assert match.said == "the data has numbers for classes; they are taken for the head's eel, cat, dog"


@pytest.mark.parametrize("head", [None, DEFAULT, ("0", "1", "2")])
def test_a_head_without_names_is_taken_by_number(head: tuple[str, ...] | None) -> None:
    match = match_classes(NAMES, head)
    assert (match.is_same, match.names) == (True, NAMES)
    assert match.said.startswith("the head's classes have no names; its rows are taken for cat, dog, eel")
    assert match_classes(("0", "1", "2"), head).said == ""


@pytest.mark.parametrize(
    ("data", "head"),
    [
        (NAMES, ("cat", "dog", "emu")),
        (("1", "2", "3"), NAMES),
        (NAMES, ("1", "2", "3")),
        (("a", "A", "b"), ("A", "b", "a")),
        (("yes", "no"), ("no", "Yes", "maybe")),
    ],
)
def test_what_cannot_be_matched_is_refused(data: tuple[str, ...], head: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"do not match|classes \("):
        match_classes(data, head)


@pytest.mark.parametrize(
    ("labels", "names"),
    [({0: "a", 1: "b"}, ("a", "b")), ({"1": "b", "0": "a"}, ("a", "b")), ({1: "a", 2: "b"}, None), (["a", "b"], None)],
)
def test_names_in_a_config(labels: object, names: tuple[str, ...] | None) -> None:
    assert names_of_classes(type("Config", (), {"id2label": labels})()) == names


def named_model(folder: Path, names: tuple[str, ...], kind: str) -> Path:
    """Save a model with a native head, or with a linear one beside its body, whose config names its classes."""
    save_model(folder, config={"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}})
    if kind == "linear":
        weight = torch.arange(3.0)[:, None] + torch.rand(3, 20, generator=torch.Generator().manual_seed(0))
        save_head(folder, weight, torch.tensor([1.0, 2.0, 3.0]), {"pooling": "first"})
    return folder


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**{name: torch.tensor([ids]) for name, ids in tokens_of("w1 w2 w3").items()}).logits[0]


@pytest.mark.parametrize("kind", ["native", "linear"])
def test_a_kept_head_gives_the_datas_classes_their_logits(tmp_path: Path, kind: str) -> None:
    folder = named_model(tmp_path / "model", NAMES, kind)
    plain = logits(load_classifier(folder, head=kind, keep_head=True))
    lines: list[str] = []
    for order in itertools.permutations(range(3)):
        names = tuple(NAMES[i] for i in order)
        model = load_classifier(folder, head=kind, keep_head=True, label_names=names, say=lines.append)
        assert logits(model).tolist() == pytest.approx(plain[list(order)].tolist(), rel=1e-5, abs=1e-6)
        assert names_of_classes(model.config) == names
    assert len(lines) == 5
    with pytest.raises(InputError, match="names do not match"):
        load_classifier(folder, head=kind, keep_head=True, label_names=("x", "y", "z"))
    model = load_classifier(folder, head=kind, keep_head=True, label_names=("0", "1", "2"), say=lines.append)
    assert names_of_classes(model.config) == NAMES
    assert "taken for the head's cat, dog, eel" in lines[-1]


def test_a_heads_file_names_its_classes(tmp_path: Path) -> None:
    weight, bias = torch.rand(3, 4), torch.rand(3)
    path = save_head(tmp_path, weight, bias, with_class_names({}, NAMES))
    assert load_head(path).class_names == NAMES
    head = Head("head", nn.Linear(4, 3))
    said: list[str] = []
    head_from_file(head, path, ("eel", "cat", "dog"), said.append)
    assert torch.equal(head.module.weight, weight[[2, 0, 1]])
    assert torch.equal(head.module.bias, bias[[2, 0, 1]])
    assert "matched with the data's by name" in said[0]
    with pytest.raises(InputError, match="names do not match"):
        head_from_file(head, path, ("x", "y", "z"))
    assert load_head(save_head(tmp_path / "old", weight, bias)).class_names is None


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Texts labelled by what a model with a native head of classes eel, cat, dog says of them."""
    folder = named_model(tmp_path / "model", ("eel", "cat", "dog"), "native")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = [f"{one} {two}" for one in WORDS[:12] for two in WORDS[:12]]
    with torch.no_grad():
        rows = [{name: torch.tensor([ids]) for name, ids in tokens_of(text).items()} for text in texts]
        scores = torch.cat([model(**row).logits for row in rows])
        model.classifier.bias -= scores.median(dim=0).values  # so that every class is said of some texts
        model.save_pretrained(folder)
        scores -= scores.median(dim=0).values
    found = [(text, model.config.id2label[int(row.argmax())]) for text, row in zip(texts, scores, strict=True)]
    assert {name for _, name in found} == set(NAMES)
    save_csv(tmp_path / "t.csv", found)  # type: ignore[arg-type]
    return tmp_path


def test_a_kept_head_in_another_order_is_right_on_its_own_data(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", files / "model", "--head", "native", "--head-init", "keep", "--train-file", files / "t.csv",
             "--max-length", 12, "--stratified-validation"]  # fmt: skip
    trained = [*words, "--method", "ft", "--max_steps", 1, "--learning_rate", 1e-12, "--no-track",
               "--output-dir", files / "ft"]  # fmt: skip
    assert finetune.main([str(word) for word in trained]) == 0
    assert "its rows put into the data's order (were eel, cat, dog)" in capsys.readouterr().out
    metrics = json.loads((files / "ft" / "metrics.json").read_text())
    assert metrics["splits"]["train"]["accuracy"] == 1
    config = json.loads((files / "ft" / "model" / "config.json").read_text())
    assert list(config["id2label"].values()) == list(NAMES)
    kernel = [*words, "--eval-split", "validation", "--n-train", 6, "--n-eval", 4, "--output-dir", files / "kernel"]
    assert compute.main([str(word) for word in kernel]) == 0
    assert "its rows put into the data's order (were eel, cat, dog)" in capsys.readouterr().out
    renamed = (files / "t.csv").read_text().replace("eel", "emu")
    (files / "u.csv").write_text(renamed)
    for command in (finetune, compute):
        other = [str(word) for word in [*words, "--train-file", files / "u.csv", "--output-dir", files / "other"]]
        assert command.main([*other, *(["--eval-split", "validation"] if command is compute else [])]) == 2
        assert "classes are eel, cat, dog, the data's cat, dog, emu" in capsys.readouterr().err


def test_a_trained_head_of_other_classes_is_not_kept_unasked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "u.csv").write_text((files / "t.csv").read_text().replace("eel", "emu"))
    words = ["--model", files / "model", "--max-length", 12, "--stratified-validation", "--eval-split", "validation",
             "--n-train", 6, "--n-eval", 4, "--no-kernel-classifier"]  # fmt: skip
    for name, said in (("t", "its rows put into the data's order"), ("u", "a linear probe takes its place")):
        given = [*words, "--train-file", files / f"{name}.csv", "--output-dir", files / name]
        assert compute.main([str(word) for word in given]) == 0
        assert said in capsys.readouterr().out


def test_the_names_of_a_kept_head_are_not_overwritten_by_numbers(files: Path) -> None:
    text = (files / "t.csv").read_text()
    for number, name in enumerate(("eel", "cat", "dog")):
        text = text.replace(f",{name}\n", f",{number}\n")
    (files / "n.csv").write_text(text)
    words = ["--model", files / "model", "--head", "native", "--head-init", "keep", "--train-file", files / "n.csv",
             "--max-length", 12, "--method", "ft", "--max_steps", 1, "--learning_rate", 1e-12, "--no-track",
             "--stratified-validation", "--output-dir", files / "ft"]  # fmt: skip
    assert finetune.main([str(word) for word in words]) == 0
    assert json.loads((files / "ft" / "metrics.json").read_text())["splits"]["train"]["accuracy"] == 1
    config = json.loads((files / "ft" / "model" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["eel", "cat", "dog"]


def test_a_linear_head_keeps_its_kind(tmp_path: Path) -> None:
    folder = named_model(tmp_path / "model", NAMES, "linear")
    assert isinstance(load_classifier(folder, keep_head=True, label_names=NAMES[::-1]), LinearHeadClassifier)
