"""Whatever is wrong, the compute command says so in one line before it starts to work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.messages import matches
from helpers.small import Example, examples, save_csv, save_model
from helpers.zoo import ZOO, ragged_rows
from torch import nn

from ntk_lpft import NTKDecomposition, compute_ntk
from ntk_lpft.commands.compute import main
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.passes import PassRunner
from ntk_lpft.runs import KernelRun
from ntk_lpft.storage import write_tensors

Refused = Callable[..., str]
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "bert")
    save_csv(folder / "train.csv", examples(30))
    save_csv(folder / "eval.csv", examples(8, seed=1))
    return folder


@pytest.fixture
def refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run the command, see to it that it refuses as it should, and return what it says."""

    def no_work(*_: object) -> None:
        raise AssertionError("a pass over the data was started")

    def call(*words: object, standard: bool = True, left: tuple[str, ...] = ()) -> str:
        monkeypatch.setattr(PassRunner, "run", no_work)
        out = tmp_path / "out"
        given: list[object] = ["--model", place / "bert", "--train-file", place / "train.csv", "--eval-file",
                               place / "eval.csv", "--max-length", 20, "--n-train", 7, "--n-eval", 4,
                               "--head-init", "random", "--output-dir", out]  # fmt: skip
        capsys.readouterr()
        assert main([str(word) for word in [*(given if standard else []), *words]]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert not out.is_dir() or {path.name for path in out.glob("[!.]*")} == set(left)
        return lines[0].removeprefix("error: ")

    return call


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--n-train 0", ["^--n-train 0 must be 2 or more"]),
        ("--n-train 1", ["^--n-train 1 must be 2 or more"]),
        ("--n-eval 0", ["^--n-eval 0 must be 1 or more"]),
        ("--n-train many", ["--n-train", "invalid int value: 'many'", "--help"]),
        ("--n-train", ["--n-train", "expected one argument"]),
        ("--head-scale nan", ["--head-scale nan", "finite"]),
        ("--head-scale inf", ["--head-scale inf", "finite"]),
        ("--max-iter 0", ["^--max-iter 0 must be 1 or more"]),
        ("--max-length 0", ["^--max-length 0 must be 1 or more"]),
        ("--lora --lora-rank 0", ["^--lora-rank 0 must be 1 or more"]),
        ("--lora --lora-alpha nan", ["--lora-alpha nan", "finite"]),
        ("--lora --lora-targets quarry", ["quarry", "matches no layer", "query"]),
        ("--seed -1", ["--seed -1"]),
        ("--seed 99999999999999999999", ["--seed 9+"]),
        ("--engine steam", ["unknown engine 'steam'", "structured, functional, per_example"]),
        ("--precision float16", ["unknown precision 'float16'", "float32"]),
        ("--precision tf32 --device cpu", ["tf32 needs a CUDA device", "use float32"]),
        ("--outputs some", ["unknown outputs 'some'", "class_trace"]),
        ("--outputs pseudo --head-init lp", ["--outputs pseudo", "class_trace"]),
        ("--head-init best", ["unknown --head-init 'best'", "auto, lp, random, keep"]),
        ("--head linear --head-init keep", ["no saved linear head to keep", "--head native"]),
        ("--head cubic", ["unknown --head 'cubic'", "linear, native"]),
        ("--pooling max", ["unknown --pooling 'max'", "first, last, mean"]),
        ("--device tpu9", ["unknown device 'tpu9'", "cuda"]),
        ("--memory-budget lots", ["memory budget 'lots'", "4GiB"]),
        ("--memory-budget 4XiB", ["memory budget '4XiB'", "4GiB"]),
        ("--memory-budget 0GiB", ["memory budget '0GiB'", "not positive"]),
        ("--memory-budget 1KB", ["1000 bytes is too small for one layer", "at least .* MiB|at least .* KiB"]),
        ("--eval-split tset", ["no split 'tset'", "choose one of"]),
        ("--groups perhaps", ["--groups", "perhaps"]),
        ("--colour red", ["unrecognized arguments: --colour", "--help"]),
        ("--n-tra 5", ["unrecognized arguments: --n-tra;"]),
        ("--config", ["--config", "expected one argument"]),
    ],
)
def test_options(refused: Refused, words: str, parts: list[str]) -> None:
    matches(refused(*words.split()), *parts)


def test_cuda_where_there_is_none(refused: Refused) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    matches(refused("--device", "cuda"), "device cuda", "no CUDA device", "--device cpu")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "does not exist"),
        ("{", "is no config.json"),
        ("[1]", "is no config.json"),
        ('{"options": [1]}', "is no config.json"),
        ('{"options": {"n_trian": 3}}', "options that this command does not have: n_trian"),
        ('{"options": {"n_train": [3]}}', r"option n_train cannot be \[3\]"),
        ('{"options": {"n_train": true}}', "option n_train cannot be True"),
        ('{"options": {"lora_targets": [1]}}', "option lora_targets cannot be"),
    ],
)
def test_config_files(refused: Refused, tmp_path: Path, content: str | None, part: str) -> None:
    path = tmp_path / "earlier.json"
    if content is not None:
        path.write_text(content)
    matches(refused("--config", path), re.escape(str(path)), part)


def test_unknown_task(refused: Refused, tmp_path: Path) -> None:
    words = ("--dataset", "amazon-snippet", "--output-dir", tmp_path / "out")
    matches(refused(*words, standard=False), "unknown task 'amazon-snippet'", "did you mean amazon-snippets")


@pytest.mark.parametrize("flag", ["--text-columns", "--label-column"])
def test_unknown_columns(refused: Refused, flag: str) -> None:
    matches(refused(flag, "body"), "train.csv has no column 'body'", "its columns are 'text', 'label'")


@pytest.mark.parametrize("flag", ["--train-file", "--validation-file", "--test-file"])
def test_missing_files(refused: Refused, flag: str) -> None:
    matches(refused(flag, "missing.csv"), f"^{flag} missing.csv: no such file; check the path")
    matches(refused("--eval-file", "missing.csv"), "^--test-file missing.csv: no such file")


def test_evaluation_without_training_data(refused: Refused, tmp_path: Path) -> None:
    words = ("--eval-file", "x.csv", "--output-dir", tmp_path / "out")
    matches(refused(*words, standard=False), "^--validation-file and --test-file need --train-file")


@pytest.mark.parametrize(
    ("flag", "rows", "parts"),
    [
        ("--train-file", [("w1", 0), ("w2", 1), ("w3", -1)], ["row 2", "label -1 beside 0 to 1"]),
        ("--train-file", [("w1", 0), ("w2", 4), ("w3", 1)], ["labels go up to 4 but none is"]),
        ("--eval-file", [("w1", 0), ("w2", 3)], ["bad.csv, row 1", "label '?3'? is"]),
        ("--train-file", [("w1", 1), ("w2", 1), ("w3", 1)], ["every training row is of class|labels go up to"]),
        ("--train-file", [("w1", 0), ("w2", 1)], ["last tenth.* has all rows of class 1"]),
        ("--train-file", [("w1", 0), ("  ", 1), ("w2", 2)], ["row 1", "empty text"]),
        ("--eval-file", [("w1", 0), ("", 1)], ["row 1", "empty text"]),
        ("--train-file", [], ["no rows"]),
    ],
)
def test_data(refused: Refused, tmp_path: Path, flag: str, rows: list[Example], parts: list[str]) -> None:
    path = save_csv(tmp_path / "bad.csv", rows)
    matches(refused("--eval-file", path, flag, path), "bad.csv", *parts)


def test_too_few_samples_of_a_class_for_a_probe(refused: Refused, tmp_path: Path) -> None:
    rows = [*(row for row in examples(20) if row[1] != 2), ("w1", 2)]
    path = save_csv(tmp_path / "bad.csv", rows[::-1])
    matches(refused("--train-file", path, "--head-init", "lp"), "2 or more samples of each of 3 classes", "random")


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model"])
def test_unknown_model(refused: Refused, name: str) -> None:
    matches(refused("--model", name), name, "not in the local cache and the Hub cannot be reached", "give a folder")


def test_missing_folder(refused: Refused, tmp_path: Path) -> None:
    matches(refused("--model", tmp_path / "nowhere"), "model folder .*nowhere does not exist")


def test_folder_without_weights(refused: Refused, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    matches(refused("--model", folder), re.escape(str(folder)), "no weights", "safetensors is needed")
    (folder / "pytorch_model.bin").write_bytes(b"")
    matches(refused("--model", folder), "only .bin weights", "convert them to safetensors")


def test_folder_without_tokenizer(refused: Refused, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", with_tokenizer=False)
    matches(refused("--model", folder), "has no tokenizer", "tokenizer.save_pretrained")


def test_rows_longer_than_the_models_positions(refused: Refused, tmp_path: Path) -> None:
    path = save_csv(tmp_path / "long.csv", [(" ".join(["w1"] * (20 + i)), i % 3) for i in range(12)])
    folder = save_model(tmp_path / "model", max_length=1000)
    for flag in ("--train-file", "--eval-file"):
        message = refused("--model", folder, "--max-length", 100, flag, path)
        matches(message, r"row \d+ has \d+ tokens", "positions for 23", "max_length=23")


def test_max_length_beyond_what_the_tokenizer_allows(refused: Refused) -> None:
    matches(refused("--max-length", 100), "max_length=100 exceeds the 23 tokens", "lower it")


@pytest.mark.parametrize("init", ["keep", "lp"])
def test_regression_model(refused: Refused, tmp_path: Path, init: str) -> None:
    folder = save_model(tmp_path / "model", num_labels=1)
    matches(refused("--model", folder, "--head", "native", "--head-init", init), "regression", "--head linear")


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_models_set_up_for_something_else(refused: Refused, tmp_path: Path, problem: str) -> None:
    folder = save_model(tmp_path / "model", config={"problem_type": problem})
    message = refused("--model", folder, "--head", "native", "--head-init", "keep")
    matches(message, problem.replace("_", " "), "--head linear")


def test_head_of_other_classes_cannot_be_kept(refused: Refused, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", num_labels=4)
    message = refused("--model", folder, "--head", "native", "--head-init", "keep")
    matches(message, "no head of 3 classes to keep", "classifier.weight", "new head")


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
@pytest.mark.parametrize("words", [("--head-init", "lp"), (), ("--head", "native", "--head-init", "keep")])
def test_broken_weights(refused: Refused, tmp_path: Path, value: float, words: tuple[str, ...]) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    folder = save_model(tmp_path / "model", weights={name: value})
    matches(refused("--model", folder, *words), r"weight \S*encoder.layer.1.output.dense.weight", "NaN or infinite")


def test_corrupt_weights(refused: Refused, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    matches(refused("--model", folder), "cannot load model .*model", "safetensors|[Ii]ncomplete")


def test_linear_head_on_an_encoder_decoder(refused: Refused, tmp_path: Path) -> None:
    matches(refused("--model", save_model(tmp_path / "model", "t5")), "encoder or a decoder", "--head native")


def test_file_in_place_of_the_output_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    matches(refused(), "output folder .*out cannot be written", "exists")
    matches(refused("--output-dir", tmp_path / "out" / "below"), "below cannot be written")
    assert (tmp_path / "out").read_text() == "mine"


def test_used_output_folder(refused: Refused, tmp_path: Path) -> None:
    KernelRun(tmp_path / "out").claim()  # as if a run had written what follows
    (tmp_path / "out" / "summary.json").write_text("old")
    matches(refused(left=("summary.json",)), "already holds summary.json", "--overwrite", "--output-dir")
    # Even with leave to overwrite, bad input overwrites nothing.
    refused("--overwrite", "--label-column", "no", left=("summary.json",))
    assert (tmp_path / "out" / "summary.json").read_text() == "old"


def test_interrupted_run_with_other_settings(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "out" / KernelRun.PARTIAL_KERNEL
    identity = {"identity": {"engine": "functional"}, "done": 1, "plan": {}, "self_check": {}}
    KernelRun(path.parent).claim()
    write_tensors(path, {"body": torch.zeros(1)}, identity)
    matches(refused(left=(path.name,)), "interrupted run with other settings", "engine", "--overwrite")


def test_truncated_checkpoint_of_an_interrupted_run(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "out" / KernelRun.PARTIAL_KERNEL
    KernelRun(path.parent).claim()
    path.write_bytes(b"\x10\0\0")
    matches(refused(left=(path.name,)), re.escape(str(path)), "truncated")


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    entry = ZOO["bert"]
    return compute_ntk(entry.build(dtype=torch.float32), ragged_rows(entry, n=2)).save(tmp_path)


def test_truncated_kernel_file(kernel_file: Path) -> None:
    whole = kernel_file.read_bytes()
    for length in (0, 5, 200, len(whole) - 1):
        kernel_file.write_bytes(whole[:length])
        with pytest.raises(InputError, match="truncated or no safetensors file"):
            NTKDecomposition.load(kernel_file)


def test_altered_kernel_file(kernel_file: Path) -> None:
    whole = bytearray(kernel_file.read_bytes())
    whole[-3] ^= 1
    kernel_file.write_bytes(whole)
    with pytest.raises(InputError, match=r"was altered after it was written .* compute it again"):
        NTKDecomposition.load(kernel_file)


def test_nothing_trainable() -> None:
    entry = ZOO["bert"]
    model = entry.build().requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameter; set requires_grad"):
        compute_ntk(model, ragged_rows(entry))


def test_no_head() -> None:
    entry = ZOO["bert"]
    model = entry.build()
    model.classifier = nn.Sequential(model.classifier, nn.Tanh())
    with pytest.raises(InputError, match=r"no head found: .* \(tried classifier.0\)"):
        compute_ntk(model, ragged_rows(entry))


def test_replayed_options_are_checked_as_well(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps({"options": {"engine": "steam"}}))
    matches(refused("--config", path), "unknown engine 'steam'")
