"""What the calibrate command cannot use: one line that says why, exit status 2, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ntk_lpft.commands.calibrate import main
from ntk_lpft.storage import write_tensors

N, C = 30, 3


def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, C)), rng.integers(0, C, N)


def files(folder: Path, logits: np.ndarray, labels: np.ndarray, name: str = "validation") -> tuple[str, str]:
    np.save(folder / f"{name}.npy", logits)
    np.save(folder / f"{name}_labels.npy", labels)
    return str(folder / f"{name}.npy"), str(folder / f"{name}_labels.npy")


def run_folder(folder: Path, tensors: dict[str, torch.Tensor] | None, metrics: str | None = None) -> Path:
    folder.mkdir()
    if tensors is not None:
        write_tensors(folder / "predictions.safetensors", tensors, {})
    text = json.dumps({"method": "ft", "dataset": "cb", "model": "minilm", "seed": 1, "head": {}})
    (folder / "metrics.json").write_text(text if metrics is None else metrics)
    return folder


def split(name: str, classes: int = C) -> dict[str, torch.Tensor]:
    return {f"{name}/logits": torch.randn(N, classes), f"{name}/labels": torch.arange(N) % classes}


def given(logits: np.ndarray, labels: np.ndarray) -> Callable[[Path], list[str]]:
    def words(folder: Path) -> list[str]:
        first, second = files(folder, logits, labels)
        return ["--logits", first, "--labels", second]

    return words


def good(*more: str) -> Callable[[Path], list[str]]:
    return lambda folder: [*given(*arrays())(folder), *(word.replace("FOLDER", str(folder)) for word in more)]


def run_of(tensors: dict[str, torch.Tensor] | None, metrics: str | None = None) -> Callable[[Path], list[str]]:
    return lambda folder: [str(run_folder(folder / "run", tensors, metrics))]


def with_entry(value: float) -> np.ndarray:
    logits, _ = arrays()
    logits[7, 1] = value
    return logits


def other_classes(folder: Path) -> list[str]:
    wide, labels = files(folder, np.zeros((5, C + 1)), np.zeros(5, dtype=int), "test")
    return [*given(*arrays())(folder), "--test-logits", wide, "--test-labels", labels]


LOGITS, LABELS = arrays()
CASES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "fewer labels": (given(LOGITS, LABELS[:-1]), "29 labels of logits of validation"),
    "more labels": (given(LOGITS[:-1], LABELS), "for 29 rows; pass one label a row"),
    "a label too large": (given(LOGITS, LABELS + 1), "run from 1 to 3; expected class indices from 0 to 2"),
    "a label below zero": (given(LOGITS, LABELS - 1), "run from -1 to 1; expected class indices"),
    "labels that are no classes": (given(LOGITS, LABELS + 0.5), "not all whole numbers"),
    "NaN": (given(with_entry(np.nan), LABELS), "1 entries that are NaN or infinite, the first in row 7"),
    "infinity": (given(with_entry(-np.inf), LABELS), "NaN or infinite, the first in row 7"),
    "one column": (given(LOGITS[:, :1], LABELS * 0), "have 1 column; softmax needs one a class"),
    "no axis of classes": (given(LOGITS[:, 0], LABELS), "expected (N, C)"),
    "no rows": (given(LOGITS[:0], LABELS[:0]), "have no rows"),
    "no labels": (lambda folder: given(LOGITS, LABELS)(folder)[:2], "has no labels; give them as well"),
    "no such file": (lambda folder: ["--logits", str(folder / "x.npy"), "--labels", str(folder / "x.npy")],
                     "x.npy: no such file"),
    "other classes in the test": (other_classes, "logits of test have 4 classes, those of validation 3"),
    "no such file of labels": (good("--test-logits", "FOLDER/validation.npy", "--test-labels", "y.npy"),
                               "--test-labels y.npy: no such file; check the path"),
    "no such file of an OOD test": (
        good("--ood-logits", "x=y.npy", "--ood-labels", "FOLDER/validation_labels.npy"),
        "--ood-logits y.npy: no such file; check the path"),
    "labels alone": (good("--test-labels", "FOLDER/validation_labels.npy"), "--test-labels needs --test-logits"),
    "fewer OOD labels": (good("--ood-logits", "a.npy", "b.npy", "--ood-labels", "c.npy"),
                         "--ood-logits names 2 files and --ood-labels 1"),
    "two OOD tests of a name": (
        good("--ood-logits", "x=FOLDER/validation.npy", "x=FOLDER/validation.npy",
             "--ood-labels", "FOLDER/validation_labels.npy", "FOLDER/validation_labels.npy"),
        "two OOD tests are called 'x'"),
    "no bins": (good("--bins", "0"), "0 bins are too few"),
    "a million bins": (good("--bins", "1000000"), "1000000 bins are too many; use a number from 1 to 1000"),
    "bins beyond all": (good("--bins", "99999999999999999999"), "--bins 99999999999999999999 is too large"),
    "resamples without end": (good("--resamples", "1000000000"),
                              "1000000000 resamples would take hours and gigabytes; use 10000000 or fewer"),
    "probabilities of 0": (given(np.eye(3)[np.arange(N) % 3], LABELS), "60 of them 0, which have no logits"),
    "an index": (given(np.insert(LOGITS, 0, np.arange(N), axis=1), LABELS), "column 0 holds an index"),
    "labels among logits": (given(np.insert(LOGITS, 3, LABELS, axis=1), LABELS), "column 3 holds an index"),
    "few resamples": (good("--resamples", "10"), "10 resamples are too few"),
    "no level": (good("--level", "1.5"), "confidence level 1.5"),
    "a seed below zero": (good("--seed", "-1"), "--seed -1"),
    "runs and files": (lambda folder: [str(folder), *given(LOGITS, LABELS)(folder)], "not both"),
    "nothing": (lambda folder: [], "nothing to calibrate"),
    "no folder": (lambda folder: [str(folder / "nowhere")], "nowhere does not exist"),
    "a folder without logits": (run_of(None), "has no predictions.safetensors, so no logits"),
    "predictions without logits": (run_of({"validation/labels": torch.zeros(3)}), "holds no logits"),
    "no validation split": (run_of(split("test") | split("train")), "has no validation split to fit the temperature"),
    "logits without labels": (
        run_of(split("validation") | {"test/logits": torch.zeros(3, C)}), "has logits of test but no labels"),
    "NaN in a run": (
        run_of(split("validation") | split("test") | {"test/logits": torch.full((N, C), torch.nan)}),
        "90 entries that are NaN"),
    "a run with other classes": (run_of(split("validation") | split("ood.x", 2)),
                                 "logits of ood.x have 2 classes, those of validation 3"),
    "metrics that are no JSON": (run_of(split("validation"), "{"), "cannot be read as JSON"),
    "metrics of something else": (run_of(split("validation"), "{}"),
                                  "metrics.json is damaged, or was not written by `python -m ntk_lpft.finetune`"),
    "a run twice": (lambda folder: [*run_of(split("validation"))(folder), str(folder / "." / "run")],
                    "is given twice"),
}  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.unchecked
@pytest.mark.parametrize("explicit", [True, False], ids=["--output-dir", "default folder"])
@pytest.mark.parametrize("case", CASES)
def test_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str, explicit: bool
) -> None:
    words, part = CASES[case]
    arguments = words(tmp_path)
    monkeypatch.chdir(tmp_path)  # the default folder is relative
    there = everything(tmp_path)
    assert main([*arguments, *(["--output-dir", str(tmp_path / "out")] if explicit else [])]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert line.startswith("error: ")
    assert part in line
    assert printed.out == ""
    assert everything(tmp_path) == there


def test_results_are_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*given(LOGITS, LABELS)(tmp_path), "--resamples", "0", "--output-dir", str(tmp_path / "out")]
    assert main(words) == 0
    there = everything(tmp_path)
    capsys.readouterr()
    assert main([*words, "--bins", "7"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--overwrite" in line
    assert everything(tmp_path) == there
    assert main([*words, "--bins", "7", "--overwrite"]) == 0
    assert everything(tmp_path) != there


def test_what_is_doubtful_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, C, 100)
    logits = rng.standard_normal((100, C)) + 3 * np.eye(C)[labels]
    common = ["--resamples", "0", "--output-dir", str(tmp_path / "out"), "--overwrite"]
    assert main([*given(logits, labels)(tmp_path), *common]) == 0
    said = capsys.readouterr().out
    assert "T is fitted on validation (N = 100 samples, C = 3 classes): above 1" in said
    assert "warning" not in said
    assert main([*given(-logits, labels)(tmp_path), *common]) == 0
    assert "predictions are right, far fewer than chance (33) would be; are the columns" in capsys.readouterr().out
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert main([*given(p, labels)(tmp_path), *common]) == 0
    assert "holds probabilities, not logits; their logarithms are calibrated" in capsys.readouterr().out
