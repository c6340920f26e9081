"""Whatever is wrong, the finetune command says so in one line, before it starts to work or touches any result."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.messages import matches
from helpers.small import Example, examples, save_csv, save_model
from helpers.tiny_runs import make_place, words_of

from ntk_lpft.classifier.head_file import save_head
from ntk_lpft.commands.finetune import main, run
from ntk_lpft.finetuning import methods
from ntk_lpft.runs import FinetuneRun, HeadScaleGrid

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run the command, see to it that it refuses as it should, and return what it says."""

    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("long work was started")

    def call(*words: object, standard: bool = True) -> str:
        monkeypatch.setattr(run, "cached_features", no_work)
        monkeypatch.setattr(methods, "linear_probe", no_work)
        monkeypatch.setattr(methods.ClassifierTrainer, "train", no_work)
        out = tmp_path / "out"
        before = {path: path.read_bytes() for path in out.rglob("[!.]*") if path.is_file()} if out.is_dir() else {}
        given = [*words_of(place, "--method", "ft"), "--output_dir", str(out)] if standard else []
        capsys.readouterr()
        assert main([*given, *map(str, words)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        if out.is_dir():
            assert {path: path.read_bytes() for path in out.rglob("[!.]*") if path.is_file()} == before
        return lines[0].removeprefix("error: ")

    return call


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--method lpft", ["unknown method 'lpft'"]),
        ("--output_dir=", ["^--output-dir is empty; give a path, or leave it out$"]),
        ("--model=", ["^--model is empty"]),
        ("--colour red", ["^unrecognized arguments: --colour; --help lists the options"]),
        ("--seed -1", ["--seed -1"]),
        ("--learning_rate nan", ["--learning-rate nan"]),
        ("--learning_rate 1e38", [r"--learning-rate 1e\+38", "overflow"]),
        ("--report_to nobody", ["--report-to nobody"]),
        ("--fsdp full_shard", ["FSDP"]),
        ("--model nobody/no-such-model", ["nobody/no-such-model", "the Hub cannot be reached"]),
        ("--model ./nowhere", ["model folder ./nowhere does not exist"]),
        ("--label_column no", ["train.csv has no column 'no'"]),
        ("--max_length 100", ["max_length=100 exceeds the 23 tokens"]),
        ("--max_length 2", ["max_length=2 leaves no room"]),
        ("--n_train 2", ["2 rows cannot hold 3 classes"]),
        ("--head_init keep", ["has no saved linear head to keep", "--head native"]),
        ("--method lora --lora_targets quarry", ["quarry matches no layer", "dense, key, query, value"]),
        ("--resume", ["no run to go on with", "leave --resume out"]),
        ("--head_scale 1 2 --resume --label_column no", ["no column 'no'"]),
    ],
)
def test_options(refused: Refused, words: str, parts: list[str]) -> None:
    matches(refused(*words.split()), *parts)


def test_unknown_task(refused: Refused, tmp_path: Path) -> None:
    words = ("--dataset", "amazon-snippet", "--output_dir", tmp_path / "out")
    matches(refused(*words, standard=False), "unknown task 'amazon-snippet'", "did you mean amazon-snippets")


@pytest.mark.parametrize(
    ("flag", "rows", "parts"),
    [
        ("--train_file", [], ["no rows"]),
        ("--train_file", [("w1", 0), ("w2", 1)] * 9, ["label '?2'? is"]),
        ("--train_file", [("w1", 1)] * 9, ["every training row is of class|labels go up to"]),
        ("--train_file", [("w1", 0), (" ", 1), ("w2", 2)], ["row 1", "empty text"]),
        ("--validation_file", [], ["no rows"]),
        ("--validation_file", [("w1", 0)], ["1 validation row, too few to choose an epoch", "--validation-file"]),
        ("--validation_file", [("w1", 0), ("w2", 3)], ["row 1", "label '?3'? is"]),
        ("--test_file", [("w1", 0), ("w2", -1)], ["row 1", "label '?-1'? is"]),
        ("--test_file", [], ["no rows"]),
    ],
)
def test_data(refused: Refused, tmp_path: Path, flag: str, rows: list[Example], parts: list[str]) -> None:
    path = save_csv(tmp_path / "bad.csv", rows)
    matches(refused(flag, path), *parts)


@pytest.mark.parametrize("flag", ["--train_file", "--validation_file", "--test_file"])
def test_missing_files(refused: Refused, flag: str) -> None:
    dashed = flag.replace("_", "-")
    matches(refused(flag, "missing.csv"), f"^{dashed} missing.csv: no such file; check the path")


def test_a_validation_split_that_is_too_small(refused: Refused, place: Path, tmp_path: Path) -> None:
    words = ("--train_file", save_csv(tmp_path / "nine.csv", examples(9)), "--model", place / "bert",
             "--max_length", 20, "--output_dir", tmp_path / "out")  # fmt: skip
    matches(refused(*words, standard=False), "nine has 1 validation row, too few", "--validation-file")


def test_rows_longer_than_the_models_positions(refused: Refused, tmp_path: Path) -> None:
    long = save_csv(tmp_path / "long.csv", [("w1 w2", 0), (" ".join(["w1"] * 30), 1)])
    folder = save_model(tmp_path / "model", max_length=1000)
    matches(refused("--model", folder, "--max_length", 100, "--test_file", long),
            "test, row 1 has 32 tokens", "positions for 23", "max_length=23")  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 20), (3, 19)])
def test_heads_of_another_shape(refused: Refused, tmp_path: Path, shape: tuple[int, int]) -> None:
    file = save_head(tmp_path / "head", torch.randn(shape), None)
    matches(refused("--head_init", file), r"head\.safetensors", re.escape(str(shape)), r"\(3, 20\)")


def test_files_that_are_no_heads(refused: Refused, tmp_path: Path, place: Path) -> None:
    file = save_head(tmp_path / "head", torch.randn(3, 20), None)
    file.write_bytes(file.read_bytes()[:-9])
    matches(refused("--head_init", file), r"head\.safetensors is truncated or no safetensors file")
    matches(refused("--head_init", place / "bert" / "model.safetensors"), "was not written by ntk_lpft")
    matches(refused("--head_init", place / "train.csv"), "train.csv")


def test_broken_weights(refused: Refused, tmp_path: Path) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    folder = save_model(tmp_path / "model", weights={name: float("nan")})
    matches(refused("--model", folder), "encoder.layer.1.output.dense.weight", "NaN or infinite")


def test_architectures_without_default_targets(refused: Refused, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "distilbert")
    matches(refused("--model", folder, "--method", "lora"), "no default LoRA targets", "q_lin")


@pytest.mark.parametrize("kind", ["file", "below a file", "not writable"])
def test_output_folders_that_cannot_be_written(refused: Refused, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "taken"
    if kind == "not writable":
        path.mkdir(mode=0o500)
        if os.access(path, os.W_OK):
            pytest.skip("this user may write everywhere")
    else:
        path.write_text("mine")
    matches(refused("--output_dir", path / "below" if kind == "below a file" else path), "cannot be written")


def test_a_folder_of_another_run(refused: Refused, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    FinetuneRun(out).claim()  # as if a run had written what follows
    (out / "tracking.csv").write_text("mine")
    matches(refused(), "already holds tracking.csv", "--overwrite")
    FinetuneRun(out).claim()
    (out / "config.json").write_text("{}")
    matches(refused(), "holds an interrupted run; give --resume to go on, --overwrite to start anew")
    matches(refused("--resume"), r"config\.json is damaged; start anew with --overwrite")
    (out / "config.json").write_text('{"options": {')
    matches(refused("--resume"), r"config\.json is damaged")
    (out / "config.json").write_text(json.dumps({"options": {"seed": 3}, "data": {}, "versions": {}}))
    matches(refused("--resume"), "began with other options", "use the same, another --output-dir, or --overwrite")
    FinetuneRun(out).claim()
    (out / "metrics.json").write_text("{}")
    matches(refused("--resume"), "began with other options")
    matches(refused(), "already holds config.json, metrics.json, tracking.csv")
    # Even with leave to overwrite, bad input overwrites nothing.
    for words in ("--label_column no", "--max_length 100", "--method lora --lora_targets x", "--head_init keep"):
        refused("--overwrite", *words.split())
    assert (out / "tracking.csv").read_text() == "mine"


def test_folders_of_a_grid(refused: Refused, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "head-scale-2").mkdir(parents=True)
    HeadScaleGrid(out).claim()
    FinetuneRun(out / "head-scale-2").claim()
    (out / "head-scale-2" / "config.json").write_text("{}")
    # The second is found out before the first is trained.
    matches(refused("--head_scale", 1, 2), "head-scale-2 holds an interrupted run")
    HeadScaleGrid(out).claim()
    (out / "head_scale.csv").write_text("mine")
    matches(refused("--head_scale", 3, 4), "already holds head_scale.csv")
