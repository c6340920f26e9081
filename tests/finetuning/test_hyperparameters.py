"""Defaults of training, what overrides them, and settings that are refused before anything starts."""

from __future__ import annotations

import csv
import dataclasses
import json
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import examples, save_csv

from ntk_lpft.choices import METHODS
from ntk_lpft.commands.finetune import parse
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.finetune.training import RunSettings, parse_training, resolve
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.defaults import hyperparameters, training_defaults
from ntk_lpft.runs import HeadScaleGrid

DATASETS = ("cb", "rte", "boolq", "wic", "wsc", "cola", "sst2", "mrpc", "amazon", "pubmed20k")


@pytest.mark.parametrize(
    ("dataset", "method", "batch_size", "learning_rate"),
    [  # Tomihari and Sato, NeurIPS 2024, table 6
        ("cb", "ft", 16, 5e-5),
        ("wsc", "ft", 16, 1e-3),
        ("pubmed20k", "ft", 8, 5e-6),
        ("boolq", "lora", 32, 5e-4),
        ("wsc", "lora", 16, 1e-4),
        ("amazon", "lp-ft", 8, 1e-6),
        ("cola", "lp-ft", 8, 1e-5),
        ("rte", "lp-lora", 8, 5e-4),
        ("pubmed20k", "lp-lora", 8, 1e-3),
    ],
)
def test_defaults_of_the_paper(dataset: str, method: str, batch_size: int, learning_rate: float) -> None:
    found = hyperparameters(method, dataset)
    assert (found.batch_size, found.learning_rate, found.epochs) == (batch_size, learning_rate, 10.0)
    defaults = training_defaults(method, dataset)
    assert defaults["per_device_train_batch_size"] == batch_size
    assert defaults["learning_rate"] == learning_rate
    assert defaults["num_train_epochs"] == 10
    assert (defaults["weight_decay"], defaults["lr_scheduler_type"], defaults["optim"]) == (
        0.0, "linear", "adamw_torch")  # fmt: skip


def test_the_paper_has_every_data_set_and_method() -> None:
    with files("ntk_lpft.finetuning").joinpath("hyperparameters.csv").open(encoding="utf-8") as stream:
        listed = [(row["dataset"], row["method"]) for row in csv.DictReader(stream)]
    assert sorted(listed) == sorted(product(DATASETS, METHODS[1:]))


def test_other_data_get_the_projects_defaults() -> None:
    expected = {"ft": (16, 1e-5), "lora": (16, 1e-3), "lp-ft": (8, 1e-5), "lp-lora": (8, 5e-4)}
    for method in METHODS[1:]:
        found = hyperparameters(method, "mine")
        assert (found.batch_size, found.learning_rate, found.epochs) == (*expected[method], 10)
    assert training_defaults("lp", "mine") == training_defaults("lp-ft", "mine")


def test_the_score_of_the_task_chooses_the_epoch() -> None:
    assert training_defaults("ft", "cola", "matthews")["metric_for_best_model"] == "eval_matthews"
    assert training_defaults("ft", "cb")["metric_for_best_model"] == "eval_accuracy"


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    return save_csv(tmp_path / "mine.csv", examples(30))


def settings_of(*words: object, config: Path | None = None) -> RunSettings:
    given = [str(word) for word in words] + ([] if config is None else ["--config", str(config)])
    options, rest, stored = parse(given)
    return resolve(options, parse_training(rest), stored)[0]


def test_the_command_line_overrides_a_config_which_overrides_defaults(train_file: Path, tmp_path: Path) -> None:
    plain = settings_of("--train_file", train_file)
    assert plain.training == training_defaults("lp-ft", "mine")
    first = settings_of("--train_file", train_file, "--method", "lora", "--learning_rate", 0.02, "--lora-rank", 3,
                        "--no_track", "--lr_scheduler_type", "cosine", "--seed", 9)  # fmt: skip
    assert first.training["learning_rate"] == 0.02
    assert first.training["num_train_epochs"] == 10
    assert (first.options.lora_rank, first.options.track) == (3, False)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"options": first.to_json()}))
    again = settings_of(config=config)
    assert dataclasses.replace(again.options, config=None) == first.options
    assert again.to_json() == first.to_json()
    assert again.arguments().to_dict() == first.arguments().to_dict()
    other = settings_of("--learning_rate", 0.5, "--track", config=config)
    assert other.training["learning_rate"] == 0.5
    assert other.training["lr_scheduler_type"] == "cosine"
    assert (other.options.lora_rank, other.options.track) == (3, True)


def test_settings_of_another_method_may_stand_in_a_config(train_file: Path, tmp_path: Path) -> None:
    first = settings_of("--train_file", train_file, "--method", "lora", "--lora_rank", 3)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"options": first.to_json()}))
    assert settings_of("--method", "ft", config=config).options.method == "ft"


def test_a_loss_is_better_when_lower(train_file: Path) -> None:
    for name, better in (("loss", False), ("eval_loss", False), ("accuracy", True), ("eval_accuracy", True)):
        chosen = settings_of("--train_file", train_file, "--metric_for_best_model", name, "--use_cpu")
        assert chosen.arguments().greater_is_better is better
    assert settings_of("--train_file", train_file, "--use_cpu").arguments().greater_is_better


def test_one_process_takes_one_gpu(train_file: Path) -> None:
    arguments = settings_of("--train_file", train_file).arguments()
    assert arguments.n_gpu <= 1
    assert arguments.train_batch_size == 8


def test_folders_name_model_data_method_and_seed(train_file: Path) -> None:
    options = FinetuneOptions(model="a/bert", dataset="cb", method="ft")
    assert options.folder(0) == Path("runs/bert-cb-ft")
    assert options.folder(7) == Path("runs/bert-cb-ft-seed7")
    assert settings_of("--train_file", train_file).path == Path("runs/minilm-mine-lp-ft")
    grid = settings_of("--train_file", train_file, "--head_scale", 0.5, 1, 10, "--output_dir", "x")
    members = [grid.member(HeadScaleGrid(grid.path), factor) for factor in grid.options.head_scale]
    assert [member.path for member in members] == [
        Path("x/head-scale-0.5"), Path("x/head-scale-1"), Path("x/head-scale-10")]  # fmt: skip
    assert [member.options.head_scale for member in members] == [[0.5], [1.0], [10.0]]


REFUSED: list[tuple[str, str]] = [
    ("--method lpft", "unknown method 'lpft'; choose one of lp, ft, lp-ft, lora, lp-lora"),
    ("--head cubic", "unknown --head 'cubic'; choose one of linear, native"),
    ("--pooling max", "unknown --pooling 'max'"),
    ("--lp_solver newton", "unknown --lp-solver 'newton'"),
    ("--head_init best", "unknown --head-init 'best'; choose one of random, keep, or a file that exists"),
    ("--head_scale nan", "--head-scale .* finite"),
    ("--head_scale 1 1.0000000001", "names one factor twice"),
    ("--method lora --lora_alpha nan", "--lora-alpha nan is not a finite number"),
    ("--method lora --lora_rank 0", "--lora-rank 0 must be 1 or more"),
    ("--probe_size 1", "--probe-size 1 must be 2 or more"),
    ("--track_kernel -1", "--track-kernel -1 must be 0 or more"),
    ("--kernel_size 1", "--kernel-size 1 must be 2 or more"),
    ("--predict_size 1", "--predict-size 1 must be 2 or more"),
    ("--n_train 1", "--n-train 1 must be 2 or more"),
    ("--n_eval 1", "--n-eval 1 must be 2 or more"),
    ("--max_length 0", "--max-length 0 must be 1 or more"),
    ("--lp_solver adam --lp_iterations 0", "--lp-iterations 0 must be 1 or more"),
    ("--method lp --predict", "--predict compares with fine-tuning; method lp has none"),
    ("--no_track --track_kernel 2", "--track-kernel needs --track"),
    ("--overwrite --resume", "give one of them"),
    ("--method ft --lora_rank 4", "--lora-rank does nothing for method ft; leave it out"),
    ("--method lora --lp_solver adam", "--lp-solver does nothing for method lora"),
    ("--lp_iterations 5", "--lp-iterations does nothing for --lp-solver logistic; choose adam or lbfgs"),
    ("--do_train", "--do-train is decided by this command"),
    ("--save_only_model", "--save-only-model is decided by this command"),
    ("--metric_for_best_model f1", "unknown --metric-for-best-model 'f1'; choose one of accuracy, loss"),
    ("--metric_for_best_model matthews", "unknown --metric-for-best-model 'matthews'"),
    ("--learning_rate 0", "--learning-rate 0.0 must be a finite number above zero"),
    ("--learning_rate -1", "--learning-rate -1.0 must be"),
    ("--learning_rate nan", "--learning-rate nan must be"),
    ("--learning_rate inf", "--learning-rate inf must be"),
    ("--num_train_epochs 0", "--num-train-epochs 0.0 must be"),
    ("--num_train_epochs nan", "--num-train-epochs nan must be"),
    ("--max_steps 0", "--max-steps 0 must be 1 or more"),
    ("--max_steps -3", "--max-steps -3 must be 1 or more"),
    ("--per_device_train_batch_size 0", "--per-device-train-batch-size 0 must be 1 or more"),
    ("--per_device_eval_batch_size 0", "--per-device-eval-batch-size 0 must be 1 or more"),
    ("--gradient_accumulation_steps 0", "--gradient-accumulation-steps 0 must be 1 or more"),
    ("--weight_decay nan", "--weight-decay nan must be a finite number"),
    ("--weight_decay -1", "--weight-decay -1.0 must be"),
    ("--max_grad_norm nan", "--max-grad-norm nan must be"),
    ("--label_smoothing_factor 1", "--label-smoothing-factor 1.0 is not from 0 to below 1"),
    ("--adam_beta1 2", "training settings: Invalid beta"),
    ("--warmup_steps -2", "training settings: .*warmup_steps"),
    ("--lr_scheduler_type cosine_with_min_lr", "training settings: .*min_lr"),
    ("--optim galore_adamw", "training settings: .*galore_torch"),
    ("--seed -1", "--seed -1 is not from 0 to"),
    ("--seed 4294967296", "--seed 4294967296 is not from 0 to"),
    ("--save_strategy no", "--eval-strategy epoch and --save-strategy no leave no best weights .* false"),
    ("--eval_strategy steps --eval_steps 2", "--eval-strategy steps and --save-strategy epoch leave no best weights"),
    ("--deepspeed x.json", "DeepSpeed and FSDP are not supported; use torchrun"),
    ("--fsdp full_shard", "DeepSpeed and FSDP are not supported"),
    ("--report_to nobody", "--report-to nobody is not installed or unknown.*; install it, or give none"),
    ("--accelerator_config nowhere.json", "--accelerator-config: nowhere.json does not exist; give a JSON file"),
    ("--dataloader_num_workers -1", "--dataloader-num-workers -1 must be a finite number, 0 or more"),
    ("--dataloader_persistent_workers true", "--dataloader-num-workers 0: persistent_workers option needs num_workers"),
    ("--colour red", "unrecognized arguments: --colour; --help"),
    ("--learning_rat 1", "unrecognized arguments: --learning_rat;"),
    ("--seed 3 stray", "^unrecognized arguments: stray; --help"),
    ("--n_train many", "^argument --n-train: invalid int value: 'many'; --help"),
    ("--learning_rate fast", "^argument --learning-rate: invalid float value: 'fast'; --help"),
    ("--lr_scheduler_type slope", "invalid choice: 'slope'"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_settings_that_are_refused(train_file: Path, words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of("--train_file", train_file, "--use_cpu", *words.split()).arguments()


def test_fp16_needs_a_gpu(train_file: Path) -> None:
    with pytest.raises(InputError, match="--fp16 needs a GPU"):
        settings_of("--train_file", train_file, "--use_cpu", "--fp16").arguments()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_bf16_without_a_gpu_has_to_be_asked_for(train_file: Path) -> None:
    with pytest.raises(InputError, match="use_cpu"):
        settings_of("--train_file", train_file, "--bf16").arguments()
    assert settings_of("--train_file", train_file, "--bf16", "--use_cpu").arguments().bf16


def test_files_for_evaluation_need_training_data() -> None:
    with pytest.raises(InputError, match="--validation-file and --test-file need --train-file"):
        settings_of("--test_file", "x.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"n_trian": 3}, "options that this command does not have: n_trian"),
        ({"learning_rate": "fast"}, "option learning_rate cannot be 'fast'"),
        ({"num_train_epochs": [1]}, r"option num_train_epochs cannot be \[1\]"),
        ({"head_scale": 2.0}, "option head_scale cannot be 2.0"),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"options": content}))
    with pytest.raises(InputError, match=message) as caught:
        settings_of(config=config)
    assert str(config) in str(caught.value)
