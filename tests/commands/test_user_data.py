"""Commands on a user's own files: what is said of the data, and the options that settle its classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.small import WORDS, save_model

from ntk_lpft.commands import compute, finetune


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "bert", num_labels=2)
    return folder


def rows(path: Path, labels: list[Any], first: int = 0) -> Path:
    lines = [f"{WORDS[(first + i) % len(WORDS)]} {WORDS[i // 3]},{label}\n" for i, label in enumerate(labels)]
    path.write_text("text,label\n" + "".join(lines))
    return path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(command: Any, *words: object) -> tuple[int, str, str]:
        common = ("--model", place / "bert", "--output-dir", tmp_path / "out", "--max-length", 10)
        capsys.readouterr()
        status = command.main([str(word) for word in (*common, *words)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_compute_says_which_classes_there_are(call: Call, tmp_path: Path) -> None:
    train = rows(tmp_path / "t.csv", ["b"] * 15 + ["a"] * 15)
    common = ("--train-file", train, "--eval-split", "validation", "--head-init", "random", "--no-kernel-classifier")
    status, out, _ = call(compute, *common, "--stratified-validation", "--n-train", 4, "--n-eval", 2)
    assert status == 0
    assert "labels: 0 a (13 train, 2 validation), 1 b (13, 2)" in out.splitlines()
    assert "note:   the training rows are sorted by class, and the validation split" not in out
    status, out, _ = call(compute, *common, "--label-names", "b", "a", "--n-train", 4, "--n-eval", 2, "--overwrite")
    assert status == 0
    assert "labels: 0 b (15 train, 0 validation), 1 a (12, 3)" in out.splitlines()
    assert "note:   validation has no row of class b" in out
    assert "note:   the training rows are sorted by class" in out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"] == ["b", "a"]


def test_finetune_says_which_classes_there_are(call: Call, tmp_path: Path) -> None:
    train = rows(tmp_path / "t.csv", [1, "1.0", -1, "-1.0"] * 6)
    status, out, _ = call(finetune, "--train-file", train, "--test-file", train, "--method", "lp", "--no-track",
                          "--stratified-validation")  # fmt: skip
    assert status == 0
    assert "labels: 0 -1 (11 train, 1 validation, 12 test), 1 1 (11, 1, 12)" in out.splitlines()
    assert (
        "note:   24 of the 24 rows of test have a text that is a training row's as well" not in out
    )  # two are held out
    assert "note:   22 of the 24 rows of test have a text that is a training row's as well" in out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"] == ["-1", "1"]


@pytest.mark.parametrize("command", [compute, finetune])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--label-names", "a", "b"), "--label-names does nothing without --train-file"),
        (("--stratified-validation",), "--stratified-validation does nothing without --train-file"),
        (("--train-file", "T", "--validation-file", "T", "--stratified-validation"),
         "--stratified-validation does nothing beside --validation-file"),
        (("--train-file", "T", "--label-names", "a"), "give two classes or more"),
        (("--train-file", "T", "--label-names", "a", "c"), "row 1 (the first is 0): label 'b' is neither one of a, c"),
        (("--train-file", "T"), "has all rows of class c, so that none is left to train on"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Call, tmp_path: Path, command: Any, words: tuple[str, ...], message: str) -> None:
    train = rows(tmp_path / "t.csv", ["a", "b"] * 9 + ["c"])
    status, out, err = call(command, *(str(train) if word == "T" else word for word in words))
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*"))
