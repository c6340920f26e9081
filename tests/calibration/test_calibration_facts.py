"""Calibration against brute force, torchmetrics, and code that shares nothing with the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.zoo import ZOO, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from ntk_lpft.calibration import (
    Predictions,
    TemperatureScaledClassifier,
    adaptive_calibration_error,
    brier_score,
    evaluate,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
    fit_vector_scaling,
    maximum_calibration_error,
    negative_log_likelihood,
    smooth_calibration_error,
)
from ntk_lpft.errors import InputError


def drawn(n: int, c: int, seed: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: a calibrated classifier."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((n, c))
    below = softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))
    return logits, np.minimum(below.sum(axis=1), c - 1)


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def bin_by_bin(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> tuple[float, float]:
    """ECE and MCE sample by sample, with bins (lo, hi]; the smallest confidence, 1/C, is above zero."""
    gaps: dict[int, list[float]] = {}
    for row, label in zip(probabilities, labels, strict=True):
        confidence = row.max()
        number = next(m for m in range(bins) if m / bins < confidence <= (m + 1) / bins)
        gaps.setdefault(number, []).append(float(row.argmax() == label) - confidence)
    means = [abs(np.mean(gap)) for gap in gaps.values()]
    shares = [len(gap) / len(labels) for gap in gaps.values()]
    return float(np.dot(means, shares)), float(max(means))


@pytest.mark.parametrize(("n", "c", "scale"), [(200, 3, 2.0), (57, 2, 8.0), (500, 10, 0.3), (40, 5, 20.0)])
def test_temperature_is_where_a_grid_is_smallest(n: int, c: int, scale: float) -> None:
    logits, labels = drawn(n, c, seed=n)
    logits = logits * scale
    found = fit_temperature(logits, labels)
    low, high = found.temperature / 4, found.temperature * 4
    for _ in range(14):  # a grid around its own best point, ever finer
        grid = np.linspace(low, high, 41)
        best = int(np.argmin([nll(logits, labels, t) for t in grid]))
        low, high = grid[max(0, best - 2)], grid[min(40, best + 2)]
    # Near the optimum the NLL is flat: it tells T to the root of its rounding.
    assert found.temperature == pytest.approx((low + high) / 2, rel=1e-6)
    assert found.at_bound is None
    assert found.nll_after == pytest.approx(nll(logits, labels, found.temperature))
    assert found.nll_before == pytest.approx(nll(logits, labels, 1.0))


def test_the_slope_vanishes_at_the_temperature() -> None:
    logits, labels = drawn(300, 4, seed=3)
    beta = torch.tensor(1 / fit_temperature(3 * logits, labels).temperature, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(beta * torch.from_numpy(3 * logits), torch.from_numpy(labels))
    (slope,) = torch.autograd.grad(loss, beta)
    assert abs(float(slope)) < 1e-10


def test_a_calibrated_classifier_keeps_its_temperature() -> None:
    logits, labels = drawn(20_000, 4, seed=5)
    assert fit_temperature(logits, labels).temperature == pytest.approx(1.0, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 50))
def test_temperature_grows_with_the_logits(factor: float, seed: int) -> None:
    logits, labels = drawn(60, 3, seed)
    one, other = fit_temperature(logits, labels), fit_temperature(factor * logits, labels)
    assert other.temperature == pytest.approx(factor * one.temperature, rel=1e-7)
    assert np.array_equal(one.scale(logits).argmax(1), logits.argmax(1))
    assert np.array_equal(np.argsort(one.scale(logits), axis=1), np.argsort(logits, axis=1))


def test_optima_at_the_ends_are_said() -> None:
    logits, _ = drawn(50, 3, seed=1)
    with pytest.warns(UserWarning, match="predicted correctly"):
        perfect = fit_temperature(logits, logits.argmax(1))
    assert (perfect.at_bound, perfect.temperature > 0) == ("lower", True)
    with pytest.warns(UserWarning, match="next to nothing"):
        wrong = fit_temperature(logits, logits.argmin(1))
    assert (wrong.at_bound, np.isfinite(wrong.temperature)) == ("upper", True)
    with pytest.warns(UserWarning, match="changes nothing"):
        assert fit_temperature(np.ones((5, 3)), np.arange(5) % 3).temperature == 1.0


@pytest.mark.parametrize("bins", [1, 2, 15, 100])
@pytest.mark.parametrize(("n", "c"), [(1, 3), (7, 2), (400, 3), (300, 12)])
def test_ece_and_mce_agree_with_torchmetrics_and_with_plain_code(n: int, c: int, bins: int) -> None:
    logits, labels = drawn(n, c, seed=n + c, scale=3.0)
    probabilities = softmax(logits, axis=1)
    ece, mce = bin_by_bin(probabilities, labels, bins)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(ece, abs=1e-12)
    assert maximum_calibration_error(probabilities, labels, bins) == pytest.approx(mce, abs=1e-12)
    given = torch.from_numpy(probabilities), torch.from_numpy(labels)
    for norm, expected in (("l1", ece), ("max", mce)):
        other = float(multiclass_calibration_error(*given, num_classes=c, n_bins=bins, norm=norm))
        assert other == pytest.approx(expected, abs=1e-6)  # no confidence lies on an edge; it computes in float32


@pytest.mark.parametrize("bins", [2, 4, 5, 10, 15])
def test_confidences_on_edges_belong_to_the_bin_below(bins: int) -> None:
    edges = np.array([m / bins for m in range(bins // 2 + 1, bins + 1)])
    top = np.repeat(edges, 3)
    probabilities = np.stack([top, 1 - top], axis=1)
    labels = np.arange(len(top)) % 2
    ece, mce = bin_by_bin(probabilities, labels, bins)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(ece, abs=1e-12)
    assert maximum_calibration_error(probabilities, labels, bins) == pytest.approx(mce, abs=1e-12)


def test_ties_and_equal_confidences() -> None:
    probabilities = np.full((9, 3), 1 / 3)
    labels = np.arange(9) % 3
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.0, abs=1e-12)
    assert adaptive_calibration_error(probabilities, labels) == pytest.approx(0.0, abs=1e-12)
    sure = np.eye(3)[[0, 0, 0, 0]]
    assert expected_calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(0.25)
    assert smooth_calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(0.25, abs=0.02)


def test_nll_and_brier_by_their_definitions() -> None:
    logits, labels = drawn(100, 4, seed=9)
    probabilities = softmax(logits, axis=1)
    assert negative_log_likelihood(logits, labels) == pytest.approx(nll(logits, labels, 1.0))
    one_hot = np.eye(4)[labels]
    assert brier_score(probabilities, labels) == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())


def test_a_scaled_classifier_divides_its_logits(tmp_path: object) -> None:
    model = ZOO["bert"].build()
    row = ragged_rows(ZOO["bert"])[0]
    tensors = {name: torch.tensor([list(values)]) for name, values in row.items()}
    with torch.no_grad():
        plain = model(**tensors).logits
        scaled = TemperatureScaledClassifier(model, 2.5)
        torch.testing.assert_close(scaled(**tensors).logits, plain / 2.5, rtol=1e-12, atol=0)
        scaled.into_head(tensors)
        torch.testing.assert_close(model(**tensors).logits, plain / 2.5, rtol=1e-9, atol=1e-12)
        assert scaled.temperature == 1.0


def test_intervals_of_means_cover_at_their_rate() -> None:
    """Accuracy, NLL and Brier score of 300 samples, over 150 data sets whose true values are known."""
    population, truth_labels = drawn(100_000, 3, seed=11, scale=1.5)
    means = ("accuracy", "nll", "brier")
    truth = evaluate(Predictions.from_logits(population, truth_labels), measures=means, resamples=0).values
    covered = dict.fromkeys(means, 0)
    trials = 150
    for trial in range(trials):
        logits, labels = drawn(300, 3, seed=1000 + trial, scale=1.5)
        predictions = Predictions.from_logits(logits, labels)
        found = evaluate(predictions, measures=means, resamples=200, level=0.9, seed=trial).estimates()
        for name in covered:
            covered[name] += found[name].low <= truth[name] <= found[name].high
    for name, count in covered.items():
        # Three binomial standard deviations about 90 %.
        assert abs(count / trials - 0.9) < 3 * np.sqrt(0.09 / trials), name


def test_other_calibrations_fit_no_worse_and_give_probabilities() -> None:
    logits, labels = drawn(400, 3, seed=21)
    skewed = 3 * logits + np.array([0.0, 1.0, -1.0])
    temperature = fit_temperature(skewed, labels)
    vector = fit_vector_scaling(skewed, labels)
    by_vector = vector.probabilities(skewed)
    assert -np.log(by_vector[np.arange(400), labels]).mean() < temperature.nll_after
    for probabilities in (by_vector, fit_isotonic(skewed, labels).probabilities(skewed)):
        assert np.allclose(probabilities.sum(1), 1)
        assert probabilities.min() >= 0


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("logits", "labels", "part"),
    [
        (np.zeros((3, 2)), np.zeros(4, dtype=int), "4"),
        (np.zeros((3, 1)), np.zeros(3, dtype=int), "1"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "2"),
        (np.array([[0.0, np.nan]]), np.array([0]), "NaN"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "no "),
    ],
)
def test_bad_predictions_are_refused(logits: np.ndarray, labels: np.ndarray, part: str) -> None:
    with pytest.raises(InputError, match=part):
        fit_temperature(logits, labels)
