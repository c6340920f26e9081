"""The finetune command as a user runs it: every method, what a run leaves behind, and who can load it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.small import SPECIAL, save_csv, save_model, tokens_of
from helpers.tiny_runs import SPLITS, TEXTS, contents, make_place, metrics_of, words_of
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification

from ntk_lpft import load_classifier
from ntk_lpft.choices import METHODS
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main, training
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.finetune.training import resolve
from ntk_lpft.finetuning.defaults import hyperparameters
from ntk_lpft.runs import FinetuneRun
from ntk_lpft.tasks import Task


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def runs(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each method."""
    top = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        more = ("--track_kernel", 2, "--kernel_size", 4) if method == "lp-lora" else ()
        assert main(words_of(place, "--method", method, "--output_dir", top / method, *more)) == 0
    return {method: top / method for method in METHODS}


def plain_logits(body: nn.Module, head: dict[str, Tensor], split: str, position: int = 0) -> Tensor:
    """Logits without any code of the project: a Transformers body, its first or last token, one linear layer."""
    rows = []
    body.eval()
    for text, _ in TEXTS[split]:
        inputs = {name: torch.tensor([ids]) for name, ids in tokens_of(text).items()}
        if "token_type_ids" not in body.forward.__code__.co_varnames and position:
            inputs.pop("token_type_ids")
        with torch.no_grad():
            state = body(**inputs).last_hidden_state[0, position]
        rows.append(head["weight"] @ state + head["bias"])
    return torch.stack(rows)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_what_is_promised(runs: dict[str, Path], method: str) -> None:
    folder = runs[method]
    expected = {"config.json", "metrics.json", "predictions.safetensors", "tracking.csv", "training.png"}
    expected |= {"probe_head.safetensors"} if method.startswith("lp") else set()
    expected |= {"adapter"} if method.endswith("lora") else set()
    assert expected | {"model"} <= {path.name for path in folder.iterdir()}
    assert (folder / "adapter").exists() == method.endswith("lora")
    assert not (folder / "checkpoints").exists()
    pickles = [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not pickles
    predictions = load_file(folder / "predictions.safetensors")
    for split in SPLITS:
        assert predictions[f"{split}/logits"].shape == (len(TEXTS[split]), 3)
        assert predictions[f"{split}/labels"].tolist() == [label for _, label in TEXTS[split]]


@pytest.mark.parametrize("method", METHODS)
def test_metrics_follow_from_the_predictions(runs: dict[str, Path], method: str) -> None:
    metrics, predictions = metrics_of(runs[method]), load_file(runs[method] / "predictions.safetensors")
    for split in SPLITS:
        logits, labels = predictions[f"{split}/logits"].double().numpy(), predictions[f"{split}/labels"].numpy()
        found = metrics["splits"][split]
        assert found["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        assert found["loss"] == pytest.approx(-log_p[np.arange(len(labels)), labels].mean(), rel=1e-9)
    head = load_file(runs[method] / "model" / "head.safetensors")
    assert metrics["head"]["norm_after"] == pytest.approx(float(head["weight"].double().norm()), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_plain_transformers_load_a_run(runs: dict[str, Path], method: str) -> None:
    folder = runs[method] / "model"
    found = plain_logits(AutoModel.from_pretrained(folder), load_file(folder / "head.safetensors"), "test")
    torch.testing.assert_close(found, load_file(runs[method] / "predictions.safetensors")["test/logits"],
                               rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("method", ["lora", "lp-lora"])
def test_plain_peft_loads_an_adapter_on_the_base_model(runs: dict[str, Path], place: Path, method: str) -> None:
    folder = runs[method] / "adapter"
    base = AutoModel.from_pretrained(place / "bert", add_pooling_layer=False)
    before = plain_logits(base, load_file(folder / "head.safetensors"), "test")
    found = plain_logits(PeftModel.from_pretrained(base, folder), load_file(folder / "head.safetensors"), "test")
    expected = load_file(runs[method] / "predictions.safetensors")["test/logits"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float((before - expected).abs().max()) > 1e-4


@pytest.mark.parametrize("method", ["lp", "lp-ft", "lora"])
def test_a_run_loads_here_with_its_head(runs: dict[str, Path], method: str) -> None:
    model = load_classifier(runs[method], keep_head=True)
    text, _ = TEXTS["test"][0]
    with torch.no_grad():
        logits = model(**{name: torch.tensor([ids]) for name, ids in tokens_of(text).items()}).logits[0]
    expected = load_file(runs[method] / "predictions.safetensors")["test/logits"][0]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_probing_moves_the_head_alone_and_fine_tuning_moves_the_body(runs: dict[str, Path], place: Path) -> None:
    before = AutoModel.from_pretrained(place / "bert", add_pooling_layer=False).state_dict()
    probed = AutoModel.from_pretrained(runs["lp"] / "model").state_dict()
    tuned = AutoModel.from_pretrained(runs["ft"] / "model").state_dict()
    body = [name for name in before if "pooler" not in name]
    assert all(torch.equal(before[name], probed[name]) for name in body)
    assert sum(not torch.equal(before[name], tuned[name]) for name in body) > len(body) // 2


def test_lora_moves_adapted_weights_alone(runs: dict[str, Path], place: Path) -> None:
    before = AutoModel.from_pretrained(place / "bert", add_pooling_layer=False).state_dict()
    tuned = AutoModel.from_pretrained(runs["lora"] / "model").state_dict()
    moved = {name for name in before if "pooler" not in name and not torch.equal(before[name], tuned[name])}
    assert moved
    assert all(name.endswith(("query.weight", "value.weight")) for name in moved)


def test_the_probe_is_where_fine_tuning_starts(runs: dict[str, Path]) -> None:
    norms, alone = metrics_of(runs["lp-ft"])["head"], metrics_of(runs["lp"])["head"]
    assert norms["norm_after_lp"] == alone["norm_after"] == alone["norm_after_lp"]
    tracking = pd.read_csv(runs["lp-ft"] / "tracking.csv")
    start = tracking[(tracking["measure"] == "head_norm") & (tracking["step"] == 0)]["value"].item()
    assert start == pytest.approx(norms["norm_after_lp"], rel=1e-6)


def test_the_best_validation_epoch_is_kept(runs: dict[str, Path]) -> None:
    for method in ("ft", "lp-ft", "lora", "lp-lora"):
        metrics = metrics_of(runs[method])
        assert metrics["splits"]["validation"]["accuracy"] == pytest.approx(metrics["training"]["best_validation"])


def test_the_same_seed_gives_the_same_numbers_and_a_config_replays_a_run(
    runs: dict[str, Path], place: Path, tmp_path: Path
) -> None:
    assert main(words_of(place, "--method", "ft", "--output_dir", tmp_path / "again")) == 0
    assert contents(tmp_path / "again") == contents(runs["ft"])
    config = str(runs["ft"] / "config.json")
    assert main(["--config", config, "--output_dir", str(tmp_path / "replayed")]) == 0
    assert contents(tmp_path / "replayed") == contents(runs["ft"])
    assert main(["--config", config, "--seed", "1", "--output_dir", str(tmp_path / "other")]) == 0
    assert contents(tmp_path / "other") != contents(runs["ft"])


@pytest.mark.parametrize(("method", "moments"), [("lora", (0.6,))])
def test_a_killed_run_goes_on_to_the_same_end(
    runs: dict[str, Path], place: Path, tmp_path: Path, method: str, moments: tuple[float, ...]
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ntk_lpft.finetune", *words_of(place, "--method", method, "--output_dir", out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    last = max(pd.read_csv(runs[method] / "tracking.csv")["step"])
    for number, share in enumerate(moments):
        process = subprocess.Popen(
            [*command, *(["--resume"] if number else [])], env=environment, stderr=subprocess.DEVNULL
        )
        # Killed once that share of the steps is on record.
        while process.poll() is None:
            if (out / "tracking.csv").is_file() and (out / "tracking.csv").read_text().count(",head_norm,") > 0:
                steps = pd.read_csv(out / "tracking.csv", on_bad_lines="skip")["step"]
                if len(steps) and steps.max() >= share * last:
                    break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "metrics.json").exists()
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert main([*words_of(place, "--method", method, "--output_dir", out), "--resume"]) == 0
    assert contents(out) == contents(runs[method])


def test_a_finished_run_is_shown_again(runs: dict[str, Path], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(runs["ft"])
    assert main([*words_of(place, "--method", "ft", "--output_dir", runs["ft"]), "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "finished run" in printed
    assert "head norm" in printed
    assert contents(runs["ft"]) == before


def test_compute_takes_a_run_with_its_head(runs: dict[str, Path], place: Path, tmp_path: Path) -> None:
    files = ["--train-file", str(place / "train.csv"), "--eval-file", str(place / "test.csv")]
    for method in ("lp", "lp-lora"):
        out = tmp_path / method
        assert compute(["--model", str(runs[method]), *files, "--max-length", "20", "--n-train", "6", "--n-eval", "7",
                        "--no-kernel-classifier", "--output-dir", str(out)]) == 0  # fmt: skip
        logits = load_file(out / "kernel.safetensors")["eval/row_logits"]
        expected = load_file(runs[method] / "predictions.safetensors")["test/logits"]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_compute_takes_the_head_of_a_probe(runs: dict[str, Path], place: Path, tmp_path: Path) -> None:
    files = ["--train-file", str(place / "train.csv"), "--eval-file", str(place / "test.csv")]
    head = runs["lp"] / "probe_head.safetensors"
    words = ["--model", str(place / "bert"), *files, "--max-length", "20", "--n-train", "6", "--n-eval", "7",
             "--head-init", str(head), "--no-kernel-classifier", "--output-dir", str(tmp_path)]  # fmt: skip
    assert compute(words) == 0
    logits = load_file(tmp_path / "kernel.safetensors")["eval/row_logits"]
    expected = load_file(runs["lp"] / "predictions.safetensors")["test/logits"]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_decoders_and_native_heads_are_saved_as_plain_transformers_load_them(place: Path, tmp_path: Path) -> None:
    assert main(words_of(place, "--method", "ft", "--output_dir", tmp_path / "last", "--no_track", model="gpt2")) == 0
    folder = tmp_path / "last" / "model"
    found = plain_logits(AutoModel.from_pretrained(folder), load_file(folder / "head.safetensors"), "test", -1)
    expected = load_file(tmp_path / "last" / "predictions.safetensors")["test/logits"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    assert main(words_of(place, "--method", "lp-ft", "--head", "native", "--output_dir", tmp_path / "native")) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "native" / "model").eval()
    expected = load_file(tmp_path / "native" / "predictions.safetensors")["test/logits"]
    for (text, _), row in zip(TEXTS["test"], expected, strict=True):
        with torch.no_grad():
            logits = model(**{name: torch.tensor([ids]) for name, ids in tokens_of(text).items()}).logits[0]
        torch.testing.assert_close(logits, row, rtol=1e-4, atol=1e-5)


def test_a_grid_over_head_scales_holds_the_single_runs(place: Path, tmp_path: Path) -> None:
    words = words_of(place, "--method", "ft", "--no_track", "--num_train_epochs", 1)
    assert main([*words, "--head_scale", "0.5", "4", "--output_dir", str(tmp_path / "grid")]) == 0
    assert main([*words, "--head_scale", "4", "--output_dir", str(tmp_path / "one")]) == 0
    table = pd.read_csv(tmp_path / "grid" / "head_scale.csv").set_index(["head_scale", "split"])
    one = metrics_of(tmp_path / "one")
    assert table.loc[(4.0, "test"), "feature_difference"] == one["splits"]["test"]["feature_difference"]
    ratio = table.loc[(4.0, "train"), "norm_at_start"] / table.loc[(0.5, "train"), "norm_at_start"]
    assert ratio == pytest.approx(8.0)
    assert (tmp_path / "grid" / "head_scale.png").stat().st_size > 5000


def test_accumulated_batches_are_one_batch(place: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "still", config={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    words = words_of(place, "--method", "ft", "--no_track", "--num_train_epochs", 1, "--model", tmp_path / "still",
                     "--optim", "sgd", "--max_grad_norm", 0)  # fmt: skip
    whole = ["--per_device_train_batch_size", "8", "--output_dir", str(tmp_path / "whole")]
    parts = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2",
             "--output_dir", str(tmp_path / "parts")]  # fmt: skip
    assert main([*words, *whole]) == main([*words, *parts]) == 0
    left, right = (load_file(tmp_path / name / "predictions.safetensors") for name in ("whole", "parts"))
    torch.testing.assert_close(left["test/logits"], right["test/logits"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("dataset", "method", "batch_size", "learning_rate"),
    [("cb", "ft", 16, 5e-5), ("cb", "lp-ft", 8, 5e-6), ("sst2", "lora", 32, 5e-4), ("pubmed20k", "lp-lora", 8, 1e-3)],
)
def test_defaults_are_those_of_the_paper(dataset: str, method: str, batch_size: int, learning_rate: float) -> None:
    found = hyperparameters(method, dataset)
    assert (found.batch_size, found.learning_rate, found.epochs) == (batch_size, learning_rate, 10.0)


def test_defaults_of_the_bundled_data_end_in_minutes() -> None:
    assert hyperparameters("lp-ft", "amazon-snippets").epochs == 2


@pytest.mark.parametrize(
    ("dataset", "given", "rows"),
    [("amazon-snippets", {}, 500), ("amazon-snippets", {"n_eval": 9000}, 9000), ("cb", {}, None)],
)
def test_only_the_bundled_data_is_cut_unless_rows_are_given(
    dataset: str, given: dict[str, int], rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(name=dataset, label_names=("0", "1"), source="nowhere", loaders={}, ood_loaders={})
    monkeypatch.setattr(training, "task_of", lambda options: task)
    settings, _ = resolve(FinetuneOptions(dataset=dataset, method="ft", **given), {}, {})
    assert settings.options.n_eval == rows


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--method sft", ["unknown method 'sft'", "lp-lora"]),
        ("--model no/such/folder/at/all", ["does not exist"]),
        ("--learning_rate 0", ["--learning-rate 0.0", "above zero"]),
        ("--learning_rate nan", ["--learning-rate nan"]),
        ("--num_train_epochs -1", ["--num-train-epochs -1"]),
        ("--lora_targets spam --method lora", ["spam matches no layer", "query"]),
        ("--lora_rank 0", ["--lora-rank 0"]),
        ("--head_init nowhere.safetensors", ["unknown --head-init 'nowhere.safetensors'", "or a file that exists"]),
        ("--head_init keep", ["no saved linear head to keep"]),
        ("--method lp --predict", ["--predict", "lp has none"]),
        ("--overwrite --resume", ["give one of them"]),
        ("--resume", ["no run to go on with"]),
        ("--n_train 2", ["classes"]),
        ("--head_scale 1 1", ["twice"]),
        ("--head_scale inf", ["finite"]),
        ("--colour red", ["--colour"]),
        ("--fsdp full_shard", ["FSDP"]),
        ("--lp_solver newton", ["unknown --lp-solver 'newton'"]),
    ],
)
def test_bad_options_are_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, parts: list[str]
) -> None:
    assert main([*words_of(place, "--output_dir", tmp_path / "out"), *words.split()]) == 2
    error = capsys.readouterr().err.splitlines()
    message = error[-1]
    assert message.startswith("error: ")
    for part in parts:
        assert part in message


def test_a_head_of_another_shape_is_refused(
    runs: dict[str, Path], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = save_csv(tmp_path / "two.csv", [(text, label % 2) for text, label in TEXTS["train"]])
    head = runs["lp"] / "probe_head.safetensors"
    words = ["--model", str(place / "bert"), "--train_file", str(two), "--max_length", "20", "--method", "ft",
             "--head_init", str(head), "--output_dir", str(tmp_path / "out")]  # fmt: skip
    assert main(words) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "probe_head.safetensors" in message
    assert "(3, " in message
    assert "(2, " in message


def test_too_few_validation_rows_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_csv(tmp_path / "one.csv", TEXTS["validation"][:1])
    words = words_of(place, "--method", "ft", "--output_dir", tmp_path / "out", "--validation_file",
                     tmp_path / "one.csv")  # fmt: skip
    assert main(words) == 2
    assert "1 validation row" in capsys.readouterr().err.splitlines()[-1]


def test_training_stops_at_nan_and_keeps_what_was_measured(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(place, "--method", "ft", "--output_dir", tmp_path / "out", "--learning_rate", 1e30, "--optim",
                     "sgd", "--max_grad_norm", 0)  # fmt: skip
    assert main(words) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "the loss is nan at step" in message
    assert "--learning-rate" in message
    table = pd.read_csv(tmp_path / "out" / "tracking.csv")
    assert 0 in set(table["step"])
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_results_are_not_overwritten(
    runs: dict[str, Path], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(runs["ft"])
    assert main(words_of(place, "--method", "ft", "--output_dir", runs["ft"], "--seed", 5)) == 2
    assert "already holds" in capsys.readouterr().err
    other = [*words_of(place, "--method", "ft", "--output_dir", runs["ft"]), "--resume", "--seed", "5"]
    assert main(other) == 2
    assert "seed" in capsys.readouterr().err
    assert contents(runs["ft"]) == before
    FinetuneRun(tmp_path / "begun").claim()  # as if a run had written what follows
    (tmp_path / "begun" / "config.json").write_text("{}")
    assert main(words_of(place, "--method", "ft", "--output_dir", tmp_path / "begun")) == 2
    assert "--resume" in capsys.readouterr().err


def test_special_tokens_are_those_that_the_tests_write() -> None:
    assert SPECIAL.index("[CLS]") == 2
    assert SPECIAL.index("[SEP]") == 3
