"""Options that would do nothing are refused, or said to do nothing, and --help shows what is really used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.small import examples, save_csv, save_model

from analysis.experiments.embedding_sampling import main as embedding_sampling
from analysis.experiments.lora_scaling import main as lora_scaling
from ntk_lpft.commands.calibrate import main as calibrate
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main as finetune
from ntk_lpft.commands.finetune.training_flags import REFUSED, training_flags
from ntk_lpft.finetuning.defaults import training_defaults


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "bert")
    save_csv(folder / "train.csv", examples(12))
    return folder


FILES = "--train-file {place}/train.csv --model {place}/bert"
SHARED = [
    (f"{FILES} --dataset cb", "--dataset does nothing beside --train-file"),
    (f"{FILES} --data-dir .", "--data-dir does nothing beside --train-file"),
    ("--text-columns a", "--text-columns does nothing without --train-file"),
    ("--label-column a", "--label-column does nothing without --train-file"),
    (f"{FILES} --head native --pooling mean", "--pooling does nothing for --head native"),
    (f"{FILES} --head-init keep --pooling mean", "--pooling does nothing with --head-init keep"),
    ("--scale-bias", "--scale-bias does nothing without --head-scale"),
]
OF_COMPUTE = [
    ("--lora-rank 4", "--lora-rank does nothing without --lora"),
    ("--lora-alpha 4", "--lora-alpha does nothing without --lora"),
    ("--lora-targets query", "--lora-targets does nothing without --lora"),
    ("--head-init random --fold-draws 2", "--fold-draws does nothing with --head-init random"),
    ("--head-init random --lp-solver logistic", "--lp-solver does nothing with --head-init random"),
    ("--no-kernel-classifier --max-iter 5", "--max-iter does nothing without the kernel classifier"),
    ("--outputs class_trace --max-iter 5", "--max-iter does nothing for --outputs class_trace"),
    (
        "--outputs pseudo --kernel-classifier --head-init random",
        "--kernel-classifier does nothing for --outputs pseudo",
    ),
]
OF_FINETUNE = [
    ("--method ft --lora-rank 4", "--lora-rank does nothing for method ft"),
    ("--method ft --fold-draws 2", "--fold-draws does nothing for method ft"),
    ("--no-track --probe-size 5", "--probe-size does nothing with --no-track"),
    ("--kernel-size 5", "--kernel-size does nothing without --track-kernel"),
    ("--predict-size 5", "--predict-size does nothing without --predict"),
    *((f"--{name.replace('_', '-')} true", f"--{name.replace('_', '-')} {why[:20]}") for name, why in REFUSED.items()),
]


@pytest.mark.parametrize(
    ("main", "words", "says"),
    [(compute, *case) for case in (*SHARED, *OF_COMPUTE)] + [(finetune, *case) for case in (*SHARED, *OF_FINETUNE)],
)
def test_refused(place: Path, capsys: pytest.CaptureFixture[str], main: object, words: str, says: str) -> None:
    assert main(words.format(place=place).split()) == 2  # type: ignore[operator]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {says}")
    assert line.endswith("leave it out")


@pytest.mark.parametrize("main", [lora_scaling, embedding_sampling])
def test_refused_by_experiments(capsys: pytest.CaptureFixture[str], main: object) -> None:
    assert main(["--label-names", "a", "b"]) == 2  # type: ignore[operator]
    assert capsys.readouterr().err == "error: --label-names does nothing without --train-file; leave it out\n"


def test_intervals_that_are_not_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(place / "train.csv")
    assert calibrate(["--logits", file, "--labels", file, "--resamples", "0", "--level", "0.9"]) == 2
    assert capsys.readouterr().err.startswith("error: --level does nothing with --resamples 0")


def test_training_settings_of_a_probe_alone(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FILES.format(place=place).split(), "--method", "lp", "--no-track", "--max-length", "12",
             "--test-file", str(place / "train.csv"),
             "--validation-file", str(place / "train.csv"), "--output-dir", str(tmp_path / "o"),
             "--learning-rate", "0.1", "--num-train-epochs", "3"]  # fmt: skip
    assert finetune(words) == 0
    assert "notice: --num-train-epochs, --learning-rate do nothing for method lp\n" in capsys.readouterr().out


def test_help_shows_the_defaults_that_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        finetune(["--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 160
    squeezed = re.sub(r"\s+", "", text)  # lines are broken at hyphens as well
    for name, value in training_defaults("lp-ft", "amazon-snippets").items():
        assert f"--{name.replace('_', '-')}{value}" in squeezed
    assert text.index("--method") < text.index("TrainingArguments")
    shown = set(re.findall(r"--[a-z0-9-]+", squeezed.partition("Alsotaken")[2]))
    assert shown.isdisjoint(f"--{name.replace('_', '-')}" for name in REFUSED)
    assert set(REFUSED) <= set(training_flags())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--warmup-steps nan", "--warmup-steps nan must be a finite number"),
        ("--warmup-steps inf", "--warmup-steps inf must be a finite number"),
        ("--data-seed 99999999999999999999", "--data-seed 99999999999999999999 is too large"),
        ("--data-seed -1", "--data-seed -1 must be a finite number, 0 or more"),
        ("--optim lomo", "--optim lomo needs the package lomo_optim"),
        ("--accelerator-config x.json", "--accelerator-config: x.json does not exist"),
        ("--dataloader-num-workers -1", "--dataloader-num-workers -1 must be"),
        ("--neftune-noise-alpha nan", "--neftune-noise-alpha nan must be"),
        ("--torch-compile-mode foo", "unknown --torch-compile-mode 'foo'"),
        ("--eval-accumulation-steps 0", "--eval-accumulation-steps 0 must be"),
        ("--use-liger-kernel true", "--use-liger-kernel needs the package liger_kernel"),
    ],
)
def test_training_settings(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    given = [*FILES.format(place=place).split(), "--max-length", "12", "--method", "ft", "--no-track", "--max-steps",
             "1", "--output-dir", str(tmp_path / "o")]  # fmt: skip
    assert finetune([*given, *words.split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {says}")
