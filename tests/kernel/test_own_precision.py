"""A model is computed in its own precision where that is float32 or float64, and a narrower one is never hidden."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers.agreement import assert_identical, error
from helpers.referee import referee
from helpers.small import examples, save_csv, save_model, tokens_of
from helpers.zoo import ZOO, ragged_rows
from transformers import AutoModelForSequenceClassification

from ntk_lpft.classifier import Classifier, extract_features, load_classifier
from ntk_lpft.commands.compute import main, report
from ntk_lpft.kernel import NTKDecomposition, compute_ntk
from ntk_lpft.probing import cached_features


@pytest.mark.parametrize(
    ("dtype", "own"),
    [
        (torch.float64, "float64"),
        (torch.float32, "float32"),
        (torch.bfloat16, "float32"),
        (torch.float16, "float32"),
    ],
)
def test_the_models_own_precision_is_the_default(dtype: torch.dtype, own: str) -> None:
    model, rows = ZOO["bert"].build(dtype=dtype), ragged_rows(ZOO["bert"], n=3)
    ntk = compute_ntk(model, rows)
    assert ntk.metadata["precision"] == own
    assert {part.dtype for part in (ntk.feature_kernel, ntk.ft_effective, ntk.row_logits)} == {getattr(torch, own)}
    assert_identical(ntk, compute_ntk(model, rows, precision=own))
    assert next(model.parameters()).dtype == dtype


def test_a_float64_model_agrees_with_autograd_to_float64() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=4)
    ntk = compute_ntk(model, rows)
    assert error(ntk.total, sum(referee(model, rows).values())) < 1e-12
    assert compute_ntk(model, rows, precision="float32").total.dtype == torch.float32


def test_the_widest_weights_decide() -> None:
    model = ZOO["bert"].build(dtype=torch.float32)
    model.classifier.double()
    rows = ragged_rows(ZOO["bert"], n=2)
    assert compute_ntk(model, rows).metadata["precision"] == "float64"
    assert Classifier.of(model, rows).dtype == torch.float64


def test_features_of_a_float64_model(tmp_path: Path) -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=3)
    exact = extract_features(model, rows)
    assert exact.features.dtype == torch.float64
    assert extract_features(model, rows, dtype=torch.float32).features.dtype == torch.float32
    for _ in range(2):  # made, then read
        cached = cached_features(model, rows, cache=tmp_path)
        assert torch.equal(cached.features, exact.features)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny BERT in float64."""
    folder = save_model(tmp_path_factory.mktemp("double"))
    model = ZOO["bert"].build(dtype=torch.float64)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", ["linear", "native"])
def test_a_checkpoint_in_float64_is_loaded_as_it_is(checkpoint: Path, head: str) -> None:
    model = load_classifier(checkpoint, 3, head=head)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    stored = safetensors.torch.load_file(checkpoint / "model.safetensors")
    loaded = dict(model.named_parameters())
    prefix = "body." if head == "linear" else "bert."
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(loaded[prefix + name], stored[f"bert.{name}"])


def test_the_weights_and_not_the_config_say_what_a_checkpoint_is_in(checkpoint: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float64"}))
    assert next(load_classifier(folder, 3).parameters()).dtype == torch.float32
    (folder / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}))
    assert next(load_classifier(folder, 3).parameters()).dtype == torch.float64


def test_the_command_computes_a_float64_checkpoint_in_float64(checkpoint: Path, tmp_path: Path) -> None:
    train = save_csv(tmp_path / "train.csv", examples(40))
    out = tmp_path / "out"
    words = ["--model", checkpoint, "--train-file", train, "--eval-file", train, "--n-train", 5, "--n-eval", 2,
             "--head", "native", "--head-init", "keep", "--max-length", 20, "--no-kernel-classifier",
             "--output-dir", out]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    ntk = NTKDecomposition.load(out)
    indices = json.loads((out / "config.json").read_text())["data"]["train"]["indices"]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float64).eval()
    reference = sum(referee(model, [tokens_of(examples(40)[i][0]) for i in indices]).values())
    assert error(ntk.total, reference) < 1e-12
    assert json.loads((out / "summary.json").read_text())["kernel"]["precision"] == "float64"
    assert json.loads((out / "config.json").read_text())["options"]["precision"] is None


def test_ranks_of_a_rounded_kernel_do_not_exceed_what_is_possible() -> None:
    """Rows of V that cancel, as a probe's do: no more than N (C − 1) directions are left to F."""
    model, rows = ZOO["bert"].build(dtype=torch.float32), ragged_rows(ZOO["bert"], n=12, max_len=20)
    with torch.no_grad():
        model.classifier.weight -= model.classifier.weight.mean(dim=0)
    labels = torch.tensor([0, 1, 2] * 4)
    tables = {}
    for precision in ("float64", "float32", "bfloat16"):
        parts = dict.fromkeys(("train", "eval"), compute_ntk(model, rows, precision=precision))
        results = report.analyse(parts, labels, labels, kernel_classifier=False, max_iter=1)
        tables[precision] = results.statistics.set_index("kernel")
    possible = 12 * 2
    assert tables["float64"].loc["F", "rank"] <= possible
    for table in tables.values():
        assert 0 < table.loc["F", "rank"] <= possible
        assert table.loc["P+F", "rank"] >= max(table.loc["P", "rank"], table.loc["F", "rank"])
        assert (table["rank_tolerance"] > 0).all()
    largest = float(torch.linalg.eigvalsh(compute_ntk(model, rows).ft_effective.reshape(36, 36).double())[-1])
    assert tables["bfloat16"].loc["F", "rank_tolerance"] == pytest.approx(36**0.5 * 2.0**-7 * largest, rel=0.02)
    # P is made from features in float32, whatever F's products are rounded to.
    assert tables["bfloat16"].loc["P", "rank"] == tables["float32"].loc["P", "rank"]


def test_ranks_of_a_float64_model_that_computes_in_float32_inside() -> None:
    """Its kernel is float32's, whatever it is stored in."""
    for name, rounding in (("llama", torch.float32), ("gpt2", torch.float64)):
        ntk = compute_ntk(ZOO[name].build(), ragged_rows(ZOO[name], n=4))
        assert ntk.total.dtype == torch.float64
        assert (ntk.rounding, ntk.feature_rounding) == (rounding, rounding)


@pytest.mark.parametrize(
    ("precision", "p", "f"),
    [
        ("float32", torch.float32, torch.float32),
        ("float64", torch.float64, torch.float64),
        ("bfloat16", torch.float32, torch.bfloat16),
    ],
)
def test_a_kernel_knows_what_it_was_rounded_to(precision: str, p: torch.dtype, f: torch.dtype, tmp_path: Path) -> None:
    ntk = compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=2), precision=precision)
    assert (ntk.feature_rounding, ntk.rounding) == (p, f)
    again = NTKDecomposition.load(ntk.save(tmp_path))
    assert (again.feature_rounding, again.rounding) == (p, f)
    assert replace(ntk, metadata={}).rounding == ntk.feature_kernel.dtype


@pytest.mark.parametrize("outputs", ["class_trace", "pseudo"])
def test_reduced_kernels_state_their_tolerance_too(outputs: str) -> None:
    model, rows = ZOO["bert"].build(dtype=torch.float32), ragged_rows(ZOO["bert"], n=9)
    parts = dict.fromkeys(("train", "eval"), compute_ntk(model, rows, precision="bfloat16", outputs=outputs))
    labels = torch.tensor([0, 1, 2] * 3)
    table = report.analyse(parts, labels, labels, kernel_classifier=False, max_iter=1).statistics.set_index("kernel")
    assert table.loc["F", "rank_tolerance"] > 3 * 2.0**-8 * table.loc["F", "frobenius_norm"] / 3
    assert table.loc["P+F", "rank"] >= table.loc["P", "rank"]
