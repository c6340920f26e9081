"""Features, probes, adapters, predictions, measures and statistics on a pretended CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.agreement import assert_close, assert_identical
from helpers.prediction_cases import case
from helpers.pretended_cuda import Waits, on_device, pretended_cuda
from helpers.probe_samples import drawn_split, linear_classifier
from helpers.tracking_cases import classifier, classifier_of, probe_set
from helpers.zoo import ZOO, ragged_rows

from ntk_lpft.classifier import Classifier, apply_lora, extract_features, head_norm, scale_head, set_head
from ntk_lpft.classifier.head_weights import initialise_head
from ntk_lpft.kernel import NTKDecomposition, compute_ntk
from ntk_lpft.prediction import compare_with_training
from ntk_lpft.prediction.gradient_flow import kernel_gradient_descent, real_gradient_descent
from ntk_lpft.prediction.one_step import compute_kernels, predict_step
from ntk_lpft.prediction.real_step import take_step
from ntk_lpft.probing import linear_probe
from ntk_lpft.statistics import (
    alignment,
    frobenius_shares,
    initial_residual,
    measure_features,
    one_step_logit_change,
    statistics_table,
    summarise,
    trace_shares,
)
from ntk_lpft.tasks import EncodedSplit
from ntk_lpft.tracking.measures import measure_classifier, probe_features


@pytest.fixture(autouse=True)
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    monkeypatch.setenv("NTK_LPFT_FEATURE_CACHE", str(tmp_path / "cache"))
    with pretended_cuda() as waits:
        yield waits


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_features(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name], n=6)
    expected = extract_features(model, rows)
    found = extract_features(model.to("cuda"), rows)
    assert not on_device(found.features)
    torch.testing.assert_close(found.features, expected.features)
    torch.testing.assert_close(found.logits, expected.logits)


@pytest.mark.parametrize("solver", ["logistic", "adam", "lbfgs"])
def test_probes(solver: str) -> None:
    train, other = drawn_split(24), drawn_split(9, seed=1)
    expected, found = (
        linear_probe(linear_classifier().to(device), train, 3, solver=solver, validation=other, fold_draws=2, say=str)
        for device in ("cpu", "cuda")
    )
    assert not on_device(found.weight)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-4, atol=1e-5)
    assert found.accuracies == expected.accuracies


def test_adapters_and_heads() -> None:
    """Made on the device, they are those that are made on the processor."""
    rows, kernels = ragged_rows(ZOO["bert"]), []
    for device in ("cpu", "cuda"):
        model = linear_classifier().to(device)
        head = Classifier.of(model, rows).head
        wrapped = apply_lora(model, head, rank=2)
        head = Classifier.of(wrapped, rows).head
        initialise_head(head, seed=3)
        scale_head(head, 2.0)
        set_head(head, head.module.weight.detach().cpu(), None if head.module.bias is None else torch.zeros(3))
        assert head_norm(head) > 0
        kernels.append(compute_ntk(wrapped, rows))
    assert kernels[1].metadata["device"] == "cuda"
    assert_close(kernels[1], kernels[0], 1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bert-lora"])
def test_predictions(name: str) -> None:
    of = case(name)
    expected = predict_step(of.model, of.train, of.labels, of.evaluation)
    step = take_step(of.model, of.train, of.labels, 1e-3, of.evaluation)
    of.model.to("cuda")
    found = predict_step(of.model, of.train, of.labels, of.evaluation)
    for split, rate in found.rates.items():
        for one, other in zip(rate, expected.rates[split], strict=True):
            torch.testing.assert_close(one, other)
    again = take_step(of.model, of.train, of.labels, 1e-3, of.evaluation)
    torch.testing.assert_close(again.logit_change("eval"), step.logit_change("eval"))


def test_training_beside_its_prediction() -> None:
    """Also of a model that is moved for the computation only, and of labels that lie on the device."""
    of = case("bert")
    options = {"learning_rate": 1e-3, "steps": 3}
    expected = real_gradient_descent(of.model, of.train, of.labels, of.evaluation, **options)
    found = real_gradient_descent(of.model, of.train, of.labels.to("cuda"), of.evaluation, device="cuda", **options)
    torch.testing.assert_close(found.logits, expected.logits)
    kernels = compute_kernels(of.model, of.train, of.evaluation, device="cuda")
    moved = {split: ntk.to("cuda") for split, ntk in kernels.items()}
    for labels in (of.labels, of.labels.to("cuda")):
        assert kernel_gradient_descent(moved, labels, **options).logits.keys() == {"train", "eval"}
    splits = [
        EncodedSplit(tuple(rows), np.arange(len(rows)) % 3, np.arange(len(rows)), name, 0, 20, name)
        for name, rows in (("train", of.train), ("validation", of.evaluation))
    ]
    compared = [
        compare_with_training(of.model, *splits, steps=2, device=device, progress=False) for device in ("cpu", "cuda")
    ]
    pd.testing.assert_frame_equal(compared[1].flow, compared[0].flow, rtol=1e-6)


def test_tracked_measures() -> None:
    found = []
    for device in ("cpu", "cuda"):
        model, probe = classifier().to(device), probe_set()
        own = classifier_of(model, probe)
        found.append(
            {(split, name): value for split, name, value in measure_classifier(own, probe, probe_features(own, probe))}
        )
    assert found[1] == pytest.approx(found[0], rel=1e-6, nan_ok=True)


def test_statistics_of_kernels_on_the_device() -> None:
    ntk = compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=6))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    tables = []
    for device in ("cpu", "cuda"):
        moved = ntk.to(device)
        rows = summarise(
            moved.feature_kernel, moved.ft_effective, labels.to(device),
            residual=initial_residual(moved.row_logits, labels.to(device)),
        )  # fmt: skip
        tables.append(statistics_table(rows))
        frobenius_shares(moved.ft_groups)
        trace_shares(moved.ft_groups)
        alignment(moved.total, labels)
        one_step_logit_change(moved.feature_kernel, moved.ft_effective, initial_residual(moved.row_logits, labels))
    pd.testing.assert_frame_equal(tables[1], tables[0], rtol=1e-6)
    features = torch.randn(6, 4, dtype=torch.float64).to("cuda")
    assert measure_features(features, features, labels)


def test_kernels_are_saved_from_the_device(tmp_path: Path) -> None:
    ntk = compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=3))
    assert_identical(NTKDecomposition.load(ntk.to("cuda").save(tmp_path)), ntk)
