"""Intervals: resamples against resampling by hand, ends against their definitions, errors by chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm, t

from ntk_lpft.calibration import (
    MEASURES,
    Evaluation,
    Predictions,
    adaptive_calibration_error,
    brier_decomposition,
    brier_score,
    classwise_calibration_error,
    errors_by_chance,
    evaluate,
    evaluation,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    smooth_calibration_error,
)
from ntk_lpft.errors import InputError

OF_PROBABILITIES = {
    "ece": expected_calibration_error,
    "mce": maximum_calibration_error,
    "adaptive_ece": adaptive_calibration_error,
    "classwise_ece": classwise_calibration_error,
    "smooth_ece": smooth_calibration_error,
    "brier": brier_score,
}


def drawn(n: int, c: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits, and labels."""
    rng = np.random.default_rng(seed)
    true = softmax(1.5 * rng.standard_normal((n, c)), axis=1)
    labels = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, c - 1)
    return sharpness * np.log(true), labels


def test_each_resample_is_the_measure_of_the_samples_drawn() -> None:
    logits, labels = drawn(37, 3, seed=0)
    found = evaluate(Predictions.from_logits(logits, labels), resamples=40, seed=5)
    rng = np.random.default_rng(5)
    for index in range(40):
        rows = rng.integers(0, 37, 37)
        probabilities = softmax(logits[rows], axis=1)
        expected = {name: measure(probabilities, labels[rows]) for name, measure in OF_PROBABILITIES.items()}
        expected["nll"] = negative_log_likelihood(logits[rows], labels[rows])
        expected["accuracy"] = (logits[rows].argmax(axis=1) == labels[rows]).mean()
        expected["confidence"] = probabilities.max(axis=1).mean()
        terms = brier_decomposition(probabilities, labels[rows])
        expected["brier_reliability"], expected["brier_resolution"] = terms.reliability, terms.resolution
        expected["brier_uncertainty"] = terms.uncertainty
        expected["brier_within_bin"] = terms.within_bin_variance - terms.within_bin_covariance
        expected["logit_norm"] = np.linalg.norm(logits[rows], axis=1).mean()
        expected["centred_logit_norm"] = np.linalg.norm(
            logits[rows] - logits[rows].mean(1, keepdims=True), axis=1
        ).mean()
        assert set(expected) == set(MEASURES)
        for name, value in expected.items():
            assert found.draws[name][index] == pytest.approx(value, abs=1e-9), (index, name)


def test_draws_do_not_depend_on_how_many_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = Predictions.from_logits(*drawn(21, 3, seed=1))
    whole, chance = evaluate(predictions, resamples=50), errors_by_chance(predictions, resamples=50)
    monkeypatch.setattr(evaluation, "_CHUNK", 21 * 7)
    split, chance_split = evaluate(predictions, resamples=50), errors_by_chance(predictions, resamples=50)
    for name in MEASURES:
        np.testing.assert_allclose(split.draws[name], whole.draws[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert chance_split == chance


def test_ends_of_intervals() -> None:
    draws = np.arange(1000) / 1000
    found = Evaluation(
        {"accuracy": 0.5, "ece": 0.9, "mce": 0.2, "brier_within_bin": 0.0},
        {"accuracy": draws, "ece": draws, "mce": draws, "brier_within_bin": draws - 0.9},
        0.9,
        10**9,
    ).estimates()
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((0.05, 0.95), abs=2e-3)
    assert (found["ece"].low, found["ece"].high) == pytest.approx((2 * 0.9 - 0.95, 1.0), abs=2e-3)  # cut off at 1
    assert (found["mce"].low, found["mce"].high) == pytest.approx((0.0, 2 * 0.2 - 0.05), abs=2e-3)  # and at 0
    assert found["brier_within_bin"].low == pytest.approx(-0.85, abs=2e-3)


def test_tails_widen_a_normal_interval_to_students() -> None:
    """Of normal draws with the bootstrap's variance, s²(N − 1)/N², the ends are those of Student's t with s/√N."""
    n, spread = 12, 2.0
    draws = norm.ppf((np.arange(20_000) + 0.5) / 20_000) * spread * np.sqrt((n - 1) / n) / np.sqrt(n)
    found = Evaluation({"nll": 10.0}, {"nll": draws + 10}, 0.95, n).estimates()["nll"]
    half = t.ppf(0.975, n - 1) * spread / np.sqrt(n)
    assert (found.low, found.high) == pytest.approx((10 - half, 10 + half), abs=0.01)
    assert Evaluation({"nll": 1.0}, {"nll": np.ones(100)}, 0.95, 1).estimates()["nll"].high == 1.0


def test_a_change_is_that_of_the_same_resamples() -> None:
    predictions = Predictions.from_logits(*drawn(80, 3, seed=2, sharpness=4.0))
    before, after = evaluate(predictions, resamples=200), evaluate(predictions.scaled(4.0), resamples=200)
    change = after.change_from(before)
    assert change["accuracy"].value == change["accuracy"].low == change["accuracy"].high == 0
    for name in MEASURES:
        assert change[name].value == after.values[name] - before.values[name]
    ends = np.quantile(after.draws["nll"] - before.draws["nll"], [0.05, 0.95])
    assert change["nll"].low <= ends[0] < ends[1] <= change["nll"].high < 0
    with pytest.raises(InputError, match="different numbers of resamples"):
        after.change_from(evaluate(predictions, resamples=100))
    without = evaluate(predictions, resamples=0)
    assert np.isnan(without.estimates()["ece"].low)
    assert np.isnan(without.change_from(without)["ece"].high)


def test_only_the_measures_asked_for() -> None:
    predictions = Predictions.from_logits(*drawn(20, 3, seed=3))
    assert set(evaluate(predictions, measures=("ece", "nll"), resamples=0).values) == {"ece", "nll"}
    with pytest.raises(InputError, match="no measure 'auc'; choose from accuracy"):
        evaluate(predictions, measures=("auc",))


def test_errors_by_chance_are_those_of_labels_drawn_from_the_confidences() -> None:
    predictions = Predictions.from_logits(*drawn(56, 3, seed=4))
    rng = np.random.default_rng(9)
    top, other = predictions.confidence, 1 - predictions.confidence
    # Two classes, the likelier first: the drawn label is right with the probability of the confidence.
    two = np.stack([top, other], axis=1)
    two[top < 0.5] = [0.5, 0.5]
    sure = Predictions.from_probabilities(two, np.zeros(56, dtype=int))
    labels = [(rng.random(56) >= sure.confidence).astype(int) for _ in range(1500)]
    found = errors_by_chance(sure, resamples=3000)
    for name, measure in (("ece", expected_calibration_error), ("mce", maximum_calibration_error)):
        values = np.array([measure(two, each) for each in labels])
        assert found[name].value == pytest.approx(values.mean(), abs=5 * values.std() / np.sqrt(1000))
        ends = np.quantile(values, [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx(tuple(ends), abs=0.25 * values.std())


def test_a_calibrated_classifier_lies_inside_errors_by_chance() -> None:
    inside = 0
    for seed in range(100):
        logits, labels = drawn(100, 3, seed=seed, sharpness=1.0)
        predictions = Predictions.from_logits(logits, labels)
        chance = errors_by_chance(predictions, resamples=200, level=0.9, seed=seed)["ece"]
        inside += chance.low <= expected_calibration_error(predictions.probabilities, labels) <= chance.high
    assert 80 <= inside <= 99


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resamples": 39}, "39 resamples are too few for a confidence level of 0.95; use 40 or more, or 0"),
        ({"resamples": 100, "level": 0.99}, "use 200 or more"),
        ({"resamples": -1}, "-1 resamples are too few"),
        ({"level": 1.0}, "confidence level 1.0 is not between 0 and 1"),
        ({"level": float("nan")}, "confidence level nan"),
        ({"bins": 0}, "0 bins are too few"),
    ],
)
def test_settings_that_give_no_interval(settings: dict, words: str) -> None:
    predictions = Predictions.from_logits(*drawn(5, 3, seed=6))
    with pytest.raises(InputError, match=words):
        evaluate(predictions, **settings)
    with pytest.raises(InputError, match=words):
        errors_by_chance(predictions, **settings)


def test_errors_by_chance_need_draws() -> None:
    with pytest.raises(InputError, match="need resamples"):
        errors_by_chance(Predictions.from_logits(*drawn(5, 3, seed=6)), resamples=0)
