"""The linear probe of a model: logistic regression on the same features, or a path from the model's own head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.logistic_reference import STRENGTHS, objective
from helpers.logistic_reference import probe as reference_probe
from helpers.probe_samples import counted_rows, drawn_split, linear_classifier, split_of
from helpers.zoo import ZOO, ragged_rows
from torch import Tensor, nn

from ntk_lpft.classifier import Classifier, LinearHeadClassifier, extract_features
from ntk_lpft.classifier.head_file import load_head
from ntk_lpft.errors import InputError
from ntk_lpft.probing import PathSettings, linear_probe
from ntk_lpft.tasks import EncodedSplit


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NTK_LPFT_FEATURE_CACHE", str(tmp_path / "cache"))


def learnable(model: LinearHeadClassifier, num_labels: int, n: int = 24) -> EncodedSplit:
    """Rows whose class is told, up to some noise, by a direction of their features."""
    rows = ragged_rows(ZOO["bert"], n=n, seed=5)
    features = extract_features(model, rows, dtype=torch.float64).features.numpy()
    rng = np.random.default_rng(0)
    scores = features @ rng.normal(size=features.shape[1])
    scores += 1.0 * scores.std() * rng.normal(size=n)
    split = split_of(rows, num_labels)
    split.labels[np.argsort(scores)] = np.arange(n) * num_labels // n
    return split


def accuracy(weight: Tensor, bias: Tensor | None, features: Tensor, labels: np.ndarray) -> float:
    logits = features.double() @ weight.double().T + (0 if bias is None else bias.double())
    return float((logits.argmax(1).numpy() == labels).mean())


@pytest.mark.parametrize("num_labels", [2, 3])
def test_the_probe_is_logistic_regression_on_the_same_features(num_labels: int) -> None:
    model = linear_classifier(num_labels)
    train, other = learnable(model, num_labels), drawn_split(11, num_labels, seed=1)
    probe = linear_probe(model, train, num_labels, validation=other, others={"ood.x": train}, fold_seed=4)
    features = {
        name: extract_features(model, each).features.double().numpy()
        for name, each in (("train", train), ("validation", other))
    }
    weight, bias = reference_probe(features["train"], train.labels, fold_seed=4)
    written_out = objective(features["train"], train.labels, probe.settings["strength"])
    assert probe.bias is not None
    apart = written_out.gradient_norm(probe.weight.numpy(), probe.bias.numpy()) + written_out.gradient_norm(
        weight, bias
    )
    assert np.linalg.norm(probe.weight.numpy() - weight) <= apart / written_out.penalty
    assert apart <= 1e-5 * np.linalg.norm(weight)
    for name, split in (("train", train), ("validation", other)):
        right = (features[name] @ weight.T + bias).argmax(1) == split.labels
        assert probe.accuracies[name] == right.mean()
    assert probe.accuracies["ood.x"] == probe.train_accuracy == probe.settings["train_accuracy"] > 1 / num_labels
    assert probe.path is None
    assert probe.solver == "logistic"
    assert probe.settings["strength"] in STRENGTHS
    assert (probe.settings["iterations"], probe.settings["fold_seed"]) == (5000, 4)
    assert [draw["fold_seed"] for draw in probe.settings["fold_draws"]] == [4]


def test_what_a_probe_owes_to_the_folds_is_told() -> None:
    model = linear_classifier(3)
    train = learnable(model, 3)
    probe = linear_probe(model, train, 3, fold_seed=2, fold_draws=3)
    alone = [linear_probe(model, train, 3, fold_seed=seed) for seed in (2, 3, 4)]
    assert torch.equal(probe.weight, alone[0].weight)
    assert probe.settings["fold_draws"] == [each.settings["fold_draws"][0] for each in alone]
    for each, draw in zip(alone, probe.settings["fold_draws"], strict=True):
        assert draw["head_norm"] == pytest.approx(float(each.weight.norm()), rel=1e-12)
        assert draw["strength"] == each.settings["strength"]
        assert draw["train_accuracy"] == each.train_accuracy
    said: list[str] = []
    linear_probe(model, train, 3, iterations=1, say=said.append)
    assert len(said) == 1
    assert said[0].startswith("notice: the linear probe: ")


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_path_starts_from_the_models_own_head(solver: str, name: str) -> None:
    entry = ZOO[name]
    model = entry.build(dtype=torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    splits = {key: drawn_split(n, seed=n, entry=entry) for key, n in (("train", 9), ("validation", 8), ("ood.x", 7))}
    others = {"ood.x": splits["ood.x"]}
    probe = linear_probe(
        model, splits["train"], 3, solver=solver, validation=splits["validation"], others=others, iterations=4
    )
    assert probe.path is not None
    assert probe.settings["iterations"] == 4
    assert probe.path["step"].max() == 4
    values = probe.path.set_index(["step", "split", "measure"])["value"]
    for key, split in splits.items():
        extracted = extract_features(model, split)
        labels = torch.tensor(split.labels)
        start = nn.functional.cross_entropy(extracted.logits.double(), labels)
        assert values[0, key, "loss"] == pytest.approx(float(start), rel=1e-5)
        assert values[0, key, "accuracy"] == float((extracted.logits.argmax(1) == labels).double().mean())
        end = accuracy(probe.weight, probe.bias, extracted.features, split.labels)
        assert values[4, key, "accuracy"] == probe.accuracies[key] == end
        assert values[0, "all", "head_norm"] == pytest.approx(
            float(extracted.head.module.weight.detach().norm()), rel=1e-6
        )
        assert (probe.bias is None) == (extracted.head.module.bias is None)
    assert values[4, "all", "head_norm"] == float(probe.weight.norm())
    assert values[4, "train", "loss"] < values[0, "train", "loss"]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_settings_of_a_path_are_followed() -> None:
    model, split = linear_classifier(), drawn_split(9)
    chosen = PathSettings("adam", 7, 0.25, 0.5, precision="float32")
    probe = linear_probe(model, split, 3, solver="adam", settings=chosen)
    assert probe.path is not None
    assert probe.path["step"].max() == 7
    assert probe.weight.dtype == torch.float32
    expected = {"solver": "adam", "iterations": 7, "learning_rate": 0.25, "l2": 0.5, "precision": "float32"}
    assert expected.items() <= probe.settings.items()
    other = linear_probe(model, split, 3, solver="lbfgs", iterations=2, settings=chosen)
    assert (other.settings["solver"], other.settings["iterations"], other.settings["l2"]) == ("lbfgs", 2, 0.5)


def test_a_second_probe_runs_no_forward_pass() -> None:
    model, split = linear_classifier(), drawn_split(12)
    classifier = Classifier.of(model, split)
    linear_probe(classifier, split, 3, solver="adam", iterations=2)
    with counted_rows(model.body) as rows:
        linear_probe(classifier, split, 3, solver="lbfgs", iterations=2)
        linear_probe(classifier, split, 3, iterations=5)
    assert rows == []


def test_probes_are_written(tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(12)
    probe = linear_probe(model, split, 3, solver="adam", iterations=3, path_file=tmp_path / "probe.csv")
    assert probe.path is not None
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "probe.csv"), probe.path, check_exact=True)
    written = load_head(probe.save(tmp_path))
    assert torch.equal(written.weight, probe.weight)
    assert probe.bias is not None
    assert written.bias is not None
    assert torch.equal(written.bias, probe.bias)
    assert written.metadata["solver"] == "adam"
    assert json.loads(written.metadata["settings"])["iterations"] == 3
    assert json.loads(written.metadata["accuracies"]) == probe.accuracies
    assert written.metadata["train"] == split.fingerprint
    logistic = linear_probe(model, split, 3, iterations=5, path_file=tmp_path / "none.csv")
    assert logistic.path is None
    assert not (tmp_path / "none.csv").exists()


def test_a_classifier_is_probed_as_its_model() -> None:
    model, split = linear_classifier(), drawn_split(12)
    classifier = Classifier.of(model, split)
    for options in ({"solver": "adam"}, {"solver": "logistic"}):
        probes = [linear_probe(one, split, 3, iterations=3, **options) for one in (model, classifier)]
        assert torch.equal(probes[0].weight, probes[1].weight)
        assert torch.equal(probes[0].bias, probes[1].bias)
        assert probes[0].accuracies == probes[1].accuracies
        assert probes[0].metadata == probes[1].metadata


def test_a_path_that_breaks_off_leaves_its_file(tmp_path: Path) -> None:
    chosen = PathSettings(learning_rate=1e18, l2=1e30, precision="float32")
    with pytest.raises(InputError, match=r"NaN or infinite at iteration [1-9]"):
        linear_probe(
            linear_classifier(), drawn_split(9), 3, solver="adam", settings=chosen, path_file=tmp_path / "probe.csv"
        )
    assert len(pd.read_csv(tmp_path / "probe.csv")) > 0


def test_probes_that_make_no_sense() -> None:
    model, split = linear_classifier(), drawn_split(9)
    with pytest.raises(
        InputError, match="unknown solver 'svm' of the linear probe; choose one of logistic, logistic-pu"
    ):
        linear_probe(model, split, 3, solver="svm")
    with pytest.raises(InputError, match="the model's head has 3 classes, not 4; load it for this data"):
        linear_probe(model, split, 4)
    for name in ("train", "validation", "all"):
        with pytest.raises(InputError, match=f"a further split cannot be called '{name}'"):
            linear_probe(model, split, 3, validation=split, others={name: split})
    for solver in ("logistic", "adam"):
        with pytest.raises(InputError, match="0 iterations are not positive"):
            linear_probe(model, split, 3, solver=solver, iterations=0)
    with pytest.raises(InputError, match="settings of a gradient path mean nothing to solver 'logistic'"):
        linear_probe(model, split, 3, settings=PathSettings())
    with pytest.raises(InputError, match="0 shuffles of the folds are not positive"):
        linear_probe(model, split, 3, fold_draws=0)
    with pytest.raises(InputError, match=r"2 or more samples of each of 3 classes"):
        linear_probe(model, drawn_split(4), 3)
