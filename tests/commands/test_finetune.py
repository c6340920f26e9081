"""What a user can do with the finetune command beyond one run of one method, and what its numbers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.referee import referee, referee_logits
from helpers.small import save_csv, save_model, tokens_of
from helpers.tiny_runs import TEXTS, contents, make_place, metrics_of, words_of
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from ntk_lpft import NTKDecomposition, load_classifier
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main, run

QUICK = ("--method", "ft", "--no_track", "--num_train_epochs", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def tuned(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tune a model, and follow all samples."""
    folder = tmp_path_factory.mktemp("runs") / "ft"
    assert main(words_of(place, "--method", "ft", "--probe_size", 100, "--output_dir", folder)) == 0
    return folder


@pytest.fixture(scope="module")
def probed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "lp"
    assert main(words_of(place, "--method", "lp", "--output_dir", folder)) == 0
    return folder


def features(folder: Path, split: str) -> np.ndarray:
    """States of the first tokens, text by text, by plain transformers."""
    body = AutoModel.from_pretrained(folder, add_pooling_layer=False).double().eval()
    with torch.no_grad():
        found = [body(**as_batch(text)).last_hidden_state[0, 0] for text, _ in TEXTS[split]]
    return torch.stack(found).numpy()


def as_batch(text: str) -> dict[str, Tensor]:
    return {name: torch.tensor([ids]) for name, ids in tokens_of(text).items()}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def naive_ece(logits: np.ndarray, labels: list[int]) -> float:
    """Share of samples in each of 15 bins of confidence, times the distance of confidence and accuracy in it."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    bins: dict[int, list[tuple[float, float]]] = {}
    for row, label in zip(p, labels, strict=True):
        bins.setdefault(int(np.ceil(row.max() * 15)), []).append((row.max(), float(row.argmax() == label)))
    gaps = [len(b) / len(p) * abs(np.mean([c for c, _ in b]) - np.mean([a for _, a in b])) for b in bins.values()]
    return float(sum(gaps))


@pytest.mark.parametrize("split", list(TEXTS))
def test_metrics_follow_from_what_was_saved(tuned: Path, place: Path, split: str) -> None:
    found = metrics_of(tuned)["splits"][split]
    phi, before = features(tuned / "model", split), features(place / "bert", split)
    n, labels = len(phi), [label for _, label in TEXTS[split]]
    pairs = [cosine(phi[i], phi[j]) for i in range(n) for j in range(i)]
    # Predictions are made in float32, in batches.
    close = {"rel": 1e-4, "abs": 1e-5}
    assert found["rows"] == n
    assert found["cosine_similarity"] == pytest.approx(np.mean(pairs), **close)
    changes = [np.linalg.norm(a - b) for a, b in zip(phi, before, strict=True)]
    assert found["feature_difference"] == pytest.approx(np.mean(changes), **close)
    similar = [cosine(a, b) for a, b in zip(phi, before, strict=True)]
    assert found["reference_cosine_similarity"] == pytest.approx(np.mean(similar), **close)
    assert found["feature_norm"] == pytest.approx(np.mean([np.linalg.norm(row) for row in phi]), **close)
    logits = load_file(tuned / "predictions.safetensors")[f"{split}/logits"].double().numpy()
    assert found["ece"] == pytest.approx(naive_ece(logits, labels), rel=1e-9)


def test_tracking_ends_where_the_metrics_are(tuned: Path) -> None:
    metrics = metrics_of(tuned)
    table = pd.read_csv(tuned / "tracking.csv")
    best = table[table["step"] == metrics["training"]["best_step"]].set_index(["split", "measure"])["value"]
    for split, found in metrics["splits"].items():
        for measure in ("accuracy", "loss", "ece", "feature_difference", "cosine_similarity"):
            assert best[split, measure] == pytest.approx(found[measure], rel=1e-4, abs=1e-6)
    assert best["all", "head_norm"] == pytest.approx(metrics["head"]["norm_after"], rel=1e-6)
    steps = sorted(table["step"].unique())
    assert steps == [0, 1, 2, 4]  # two epochs of two steps each
    assert table[table["step"] == 4]["epoch"].unique().tolist() == [2.0]


def test_config_tells_the_whole_run(tuned: Path) -> None:
    config = json.loads((tuned / "config.json").read_text())
    assert config["command"] == "python -m ntk_lpft.finetune"
    assert config["options"]["method"] == "ft"
    assert config["options"]["learning_rate"] == 3e-3
    assert config["options"]["per_device_train_batch_size"] == 16
    assert {"torch", "transformers", "peft"} <= set(config["versions"])
    assert {split: about["rows"] for split, about in config["data"].items()} == {k: len(v) for k, v in TEXTS.items()}
    assert config["label_names"] == ["0", "1", "2"]


def test_kernel_of_a_probed_model_is_that_at_the_probes_head(probed: Path, place: Path, tmp_path: Path) -> None:
    words = ["--model", str(probed), "--train-file", str(place / "train.csv"), "--eval-file", str(place / "test.csv"),
             "--max-length", "20", "--n-train", "3", "--n-eval", "2", "--no-kernel-classifier", "--precision",
             "float64", "--output-dir", str(tmp_path)]  # fmt: skip
    assert compute(words) == 0
    model = load_classifier(probed, keep_head=True).double().eval()
    head = load_file(probed / "probe_head.safetensors")
    torch.testing.assert_close(model.classifier.weight, head["weight"].double(), rtol=1e-6, atol=0)
    about = json.loads((tmp_path / "config.json").read_text())["data"]
    train = [tokens_of(TEXTS["train"][i][0]) for i in about["train"]["indices"]]
    evaluation = [tokens_of(TEXTS["test"][i][0]) for i in about["eval"]["indices"]]
    ntk = NTKDecomposition.load(tmp_path, part="eval")
    blocks = referee(model, evaluation, train, attention="sdpa")
    p = blocks.pop("classifier.weight") + blocks.pop("classifier.bias")
    f = sum(blocks.values())
    assert float((ntk.pretrain_effective - p).norm() / p.norm()) < 1e-9
    assert float((ntk.ft_effective - f).norm() / f.norm()) < 1e-9
    torch.testing.assert_close(ntk.row_logits, referee_logits(model, evaluation, "sdpa"), rtol=1e-9, atol=1e-9)


def test_probing_then_fine_tuning_is_lp_ft(probed: Path, place: Path, tmp_path: Path) -> None:
    common = ("--num_train_epochs", 1, "--per_device_train_batch_size", 8)
    both, second = tmp_path / "both", tmp_path / "second"
    assert main(words_of(place, "--method", "lp-ft", *common, "--output_dir", both)) == 0
    words = words_of(place, "--method", "ft", *common, "--head_init", "keep", "--model", probed)
    assert main([*words, "--output_dir", str(second)]) == 0
    assert contents(both) == contents(second)
    norms = metrics_of(second)["head"]
    assert norms["norm_before"] == norms["norm_at_start"] == metrics_of(probed)["head"]["norm_after"]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_trainers_own_options(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = save_csv(tmp_path / "one.csv", TEXTS["test"][:1])
    words = words_of(place, "--method", "lora", "--test-file", one, "--max-steps", 5, "--eval-strategy", "steps",
                     "--eval-steps", 2, "--save-strategy", "steps", "--save-steps", 2, "--label-smoothing-factor", 0.1,
                     "--lr-scheduler-type", "cosine", "--gradient-checkpointing",
                     "--hub-token", "hf_secret")  # fmt: skip
    assert main([*words, "--no-track", "--output-dir", str(tmp_path / "out")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["training"]["steps"] == 5
    assert metrics["training"]["best_step"] in (2, 4)
    assert metrics["splits"]["test"]["cosine_similarity"] is None  # there is one sample
    printed = capsys.readouterr()
    assert "5 steps of batches of 16, learning rate 0.003, cosine schedule" in printed.out
    assert "epoch 1 of 3" in printed.err
    test = next(line for line in printed.out.splitlines() if line.startswith("test "))
    assert test.split()[1] == "1"
    assert "–" in test
    assert not (tmp_path / "out" / "tracking.csv").exists()
    assert not any(b"hf_secret" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_the_last_weights_in_bfloat16(place: Path, tmp_path: Path) -> None:
    words = words_of(place, *QUICK, "--save_strategy", "no", "--load_best_model_at_end", "false", "--bf16", "--use_cpu",
                     "--output_dir", tmp_path / "out")  # fmt: skip
    assert main(words) == 0
    model = load_classifier(tmp_path / "out", keep_head=True)
    with torch.no_grad():
        found = torch.cat([model(**as_batch(text)).logits for text, _ in TEXTS["test"]])
    expected = load_file(tmp_path / "out" / "predictions.safetensors")["test/logits"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_overwrite_replaces_everything(place: Path, tmp_path: Path) -> None:
    for name, method in (("one", "lp-lora"), ("one", "ft"), ("two", "ft")):
        words = words_of(place, "--method", method, "--num_train_epochs", 1, "--output_dir", tmp_path / name)
        assert main([*words, "--overwrite"]) == 0
    one, two = ({str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")}
                for name in ("one", "two"))  # fmt: skip
    assert one == two
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def crash(*_: object, **__: object) -> None:
    raise RuntimeError("the machine went down")


def logits_of(folder: Path) -> Mapping[str, Any]:
    return {name: value.tolist() for name, value in load_file(folder / "predictions.safetensors").items()}


def test_a_grid_over_head_scales_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(place, *QUICK)
    grid = tmp_path / "grid"
    here = [*words, "--output_dir", str(grid)]
    with monkeypatch.context() as patch:
        real = run._finish

        def second_crashes(settings: Any, *rest: Any) -> None:
            (crash if settings.options.head_scale == [4.0] else real)(settings, *rest)

        patch.setattr(run, "_finish", second_crashes)
        with pytest.raises(RuntimeError, match="went down"):
            main([*here, "--head_scale", "1", "4", "0.5"])
    assert not (grid / "head_scale.csv").exists()
    before = (grid / "head-scale-1" / "metrics.json").read_bytes()
    capsys.readouterr()
    assert main([*here, "--head_scale", "1", "4", "0.5"]) == 2
    assert "head-scale-4 holds an interrupted run; give --resume" in capsys.readouterr().err
    assert main([*here, "--head_scale", "1", "4", "0.5", "--resume", "--learning_rate", "1"]) == 2
    assert "learning_rate was 0.003, is now 1.0" in capsys.readouterr().err
    # 4 goes on, 0.5 begins, 1 stays as it is.
    assert main([*here, "--head_scale", "1", "4", "0.5", "--resume"]) == 0
    assert (grid / "head-scale-1" / "metrics.json").read_bytes() == before
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("head scale"))
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["1", "4", "0.5"]
    table = pd.read_csv(grid / "head_scale.csv").set_index(["head_scale", "split"])
    assert len(table) == 9
    for factor in ("4", "0.5"):
        assert main([*words, "--head_scale", factor, "--output_dir", str(tmp_path / factor)]) == 0
        assert logits_of(tmp_path / factor) == logits_of(grid / f"head-scale-{factor}")
        for split, found in metrics_of(tmp_path / factor)["splits"].items():
            for measure, value in found.items():
                assert table.loc[(float(factor), split), measure] == pytest.approx(value, rel=1e-12)
    for name in ("head_scale.csv", "head_scale.png"):
        assert (grid / name).stat().st_size > 500


def test_help_lists_own_options_and_trainers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--method", "--lp-solver", "--head-scale", "--track-kernel", "--resume", "--config"):
        assert f"{option} " in text
    for option in ("--learning-rate", "--gradient-accumulation-steps", "--bf16"):
        assert f"{option}," in text


def test_stopping_it_says_how_to_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = words_of(place, *QUICK, "--output_dir", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(run, "load_tokenizer", stop)
        assert main(words) == 130
    assert capsys.readouterr().err == "stopped; the same command begins again\n"
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(run, "_train", stop)
        assert main(words) == 130
    assert capsys.readouterr().err == "stopped; give --resume to go on\n"
    assert main(words) == 2
    assert "holds an interrupted run; give --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0


def test_data_that_changed_are_not_mixed(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save_csv(tmp_path / "test.csv", TEXTS["test"])
    words = words_of(place, "--method", "lp", "--no_track", "--test_file", file, "--output_dir", tmp_path / "out")
    assert main(words) == 0
    save_csv(file, TEXTS["test"][::-1])
    assert main([*words, "--resume"]) == 2
    assert "began with other data: test was" in capsys.readouterr().err


def test_decoders_keep_their_padding_token(place: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "gpt2", "gpt2")
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text())
    config["pad_token_id"] = None
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps(config))
    words = words_of(place, *QUICK, "--head", "native", "--model", tmp_path / "gpt2", "--output_dir", tmp_path / "out")
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["pad_token_id"] == 0
