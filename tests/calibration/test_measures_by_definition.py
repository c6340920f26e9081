"""Each measure against its definition written out, against scikit-learn, and against what must hold of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from ntk_lpft.calibration import (
    MEASURES,
    Predictions,
    adaptive_calibration_error,
    brier_decomposition,
    brier_score,
    classwise_calibration_error,
    evaluate,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    pooled_bins,
    reliability_bins,
    smooth_calibration_error,
)
from ntk_lpft.calibration.binned import bin_edges, bin_index
from ntk_lpft.errors import InputError

ERRORS = (
    expected_calibration_error,
    maximum_calibration_error,
    adaptive_calibration_error,
    classwise_calibration_error,
    smooth_calibration_error,
    brier_score,
)


def drawn(n: int, c: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits, and labels."""
    rng = np.random.default_rng(seed)
    true = softmax(rng.standard_normal((n, c)), axis=1)
    labels = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, c - 1)
    return sharpness * np.log(true), labels


def coarse(n: int, c: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with few different values, so that most samples are tied."""
    rng = np.random.default_rng(seed)
    parts = rng.multinomial(levels, np.full(c, 1 / c), size=n)
    return parts / levels, rng.integers(0, c, n)


def adaptive_by_hand(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Bins between interpolated quantiles of the confidence, (lo, hi], the first with its lowest sample."""
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    ordered = np.sort(confidence)
    # Between two samples any edge makes the same bins; the sample below is safe from rounding.
    edges = [ordered[int(Fraction((len(labels) - 1) * m, bins))] for m in range(1, bins)]
    total, before = 0.0, -np.inf
    for edge in [*edges, np.inf]:
        total += abs(gap[(confidence > before) & (confidence <= edge)].sum())
        before = max(before, edge)
    return total / len(labels)


@pytest.mark.parametrize("bins", [1, 2, 15, 40])
@pytest.mark.parametrize(("n", "c"), [(1, 2), (2, 3), (14, 3), (15, 3), (16, 3), (211, 4)])
def test_adaptive_error_by_hand(n: int, c: int, bins: int) -> None:
    logits, labels = drawn(n, c, seed=n)
    probabilities = softmax(logits, axis=1)
    expected = adaptive_by_hand(probabilities, labels, bins)
    assert adaptive_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-12)
    tied, tied_labels = coarse(n, c, 5, seed=n)
    expected = adaptive_by_hand(tied, tied_labels, bins)
    assert adaptive_calibration_error(tied, tied_labels, bins) == pytest.approx(expected, abs=1e-12)


def test_adaptive_bins_are_equally_full() -> None:
    """With as many bins as samples every gap counts; with one bin, their mean; with N / M whole, groups of equals."""
    logits, labels = drawn(60, 3, seed=2)
    probabilities = softmax(logits, axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - probabilities.max(axis=1)
    assert adaptive_calibration_error(probabilities, labels, 60) == pytest.approx(np.abs(gap).mean())
    assert adaptive_calibration_error(probabilities, labels, 1) == pytest.approx(abs(gap.mean()))
    confidence = probabilities.max(axis=1)
    edges = np.quantile(confidence, np.arange(1, 15) / 15)
    sums = [gap[np.searchsorted(edges, confidence) == m].sum() for m in range(15)]
    assert adaptive_calibration_error(probabilities, labels, 15) == pytest.approx(np.abs(sums).sum() / 60)


@pytest.mark.parametrize(("n", "c", "bins"), [(1, 2, 15), (83, 3, 15), (40, 6, 4)])
def test_classwise_error_by_hand(n: int, c: int, bins: int) -> None:
    for probabilities, labels in (
        (softmax(drawn(n, c, seed=3)[0], axis=1), drawn(n, c, seed=3)[1]),
        coarse(n, c, 4, 5),
    ):
        total = 0.0
        for k in range(c):
            for m in range(bins):
                p = probabilities[:, k]
                inside = (p > m / bins) & (p <= (m + 1) / bins) if m else p <= 1 / bins
                if inside.any():
                    total += inside.mean() * abs((labels == k)[inside].mean() - p[inside].mean()) / c
        assert classwise_calibration_error(probabilities, labels, bins) == pytest.approx(total, abs=1e-12)


def smooth_by_quadrature(confidence: np.ndarray, correct: np.ndarray) -> float:
    t = (np.arange(8_000) + 0.5) / 8_000

    def error(width: float) -> float:
        density = np.zeros_like(t)
        for f, y in zip(confidence, correct, strict=True):
            for image in range(-6, 7, 2):
                density += (y - f) * (norm.pdf(t, f + image, width) + norm.pdf(t, image - f, width))
        return float(np.abs(density).mean()) / len(correct)

    return brentq(lambda width: error(width) - width, 1e-3, 1.5, xtol=1e-7)


@pytest.mark.parametrize(("n", "sharpness"), [(1, 1.0), (12, 0.2), (20, 1.0), (20, 6.0)])
def test_smooth_error_by_quadrature(n: int, sharpness: float) -> None:
    logits, labels = drawn(n, 3, seed=n, sharpness=sharpness)
    predictions = Predictions.from_logits(logits, labels)
    expected = smooth_by_quadrature(predictions.confidence, predictions.correct.astype(float))
    assert smooth_calibration_error(predictions.probabilities, labels) == pytest.approx(expected, abs=2e-5)


def test_smooth_error_lies_between_the_mean_gap_and_the_largest_error_of_bins() -> None:
    logits, labels = drawn(500, 3, seed=4)
    probabilities = softmax(logits, axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - probabilities.max(axis=1)
    found = smooth_calibration_error(probabilities, labels)
    assert abs(gap.mean()) - 1e-6 <= found <= np.abs(gap).mean() + 1e-6


def test_smooth_error_is_continuous_where_bins_are_not() -> None:
    at, above = np.array([[0.6, 0.4]] * 10), np.array([[0.6 + 1e-9, 0.4 - 1e-9]] * 10)
    mixed, labels = np.concatenate([at[:5], above[:5]]), np.array([0] * 5 + [1] * 5)
    assert expected_calibration_error(at, labels) == pytest.approx(0.1)
    assert expected_calibration_error(mixed, labels) == pytest.approx(0.5)
    assert smooth_calibration_error(mixed, labels) == pytest.approx(smooth_calibration_error(at, labels), abs=1e-6)


@pytest.mark.parametrize(("n", "c"), [(1, 2), (150, 2), (150, 5)])
def test_scores_agree_with_scikit_learn(n: int, c: int) -> None:
    logits, labels = drawn(n, c, seed=6)
    probabilities = softmax(logits, axis=1)
    everything = list(range(c))
    loss = log_loss(labels, probabilities, labels=everything)
    assert negative_log_likelihood(logits, labels) == pytest.approx(loss, rel=1e-12)
    brier = brier_score_loss(labels, probabilities, labels=everything, scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(brier, rel=1e-12)
    values = evaluate(Predictions.from_logits(logits, labels), resamples=0).values
    assert values["accuracy"] == accuracy_score(labels, probabilities.argmax(axis=1))
    assert values["confidence"] == pytest.approx(probabilities.max(axis=1).mean())
    assert values["logit_norm"] == pytest.approx(np.mean([np.sqrt((row**2).sum()) for row in logits]))
    assert values["centred_logit_norm"] == pytest.approx(np.mean([np.sqrt(c * row.var()) for row in logits]))
    assert tuple(values) == MEASURES


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_terms_of_the_brier_score_by_hand(bins: int) -> None:
    logits, labels = drawn(120, 3, seed=7)
    probabilities = softmax(logits, axis=1)
    found = brier_decomposition(probabilities, labels, bins)
    expected = np.zeros(5)
    for k in range(3):
        p, o = probabilities[:, k], (labels == k).astype(float)
        index = np.searchsorted(np.arange(bins + 1) / bins, p, side="left") - 1
        for m in np.unique(index):
            inside = index == m
            share, forecast, frequency = inside.mean(), p[inside].mean(), o[inside].mean()
            expected[0] += share * (forecast - frequency) ** 2
            expected[1] += share * (frequency - o.mean()) ** 2
            expected[3] += ((p[inside] - forecast) ** 2).sum() / 120
            expected[4] += 2 * ((p[inside] - forecast) * (o[inside] - frequency)).sum() / 120
        expected[2] += o.mean() * (1 - o.mean())
    terms = (found.reliability, found.resolution, found.uncertainty, found.within_bin_variance,
             found.within_bin_covariance)  # fmt: skip
    np.testing.assert_allclose(terms, expected, atol=1e-13)
    assert found.score == pytest.approx(brier_score(probabilities, labels), rel=1e-12)


def test_one_forecast_a_bin_leaves_nothing_within_bins() -> None:
    probabilities, labels = coarse(200, 2, 4, seed=8)
    found = brier_decomposition(probabilities, labels, 8)
    assert found.within_bin_variance == pytest.approx(0, abs=1e-14)
    assert found.within_bin_covariance == pytest.approx(0, abs=1e-14)
    assert found.reliability - found.resolution + found.uncertainty == pytest.approx(brier_score(probabilities, labels))


@settings(max_examples=200, deadline=None)
@given(value=st.floats(0, 1), bins=st.integers(1, 200), nudge=st.sampled_from([-1, 0, 1]), edge=st.integers(0, 200))
def test_a_bin_holds_what_lies_above_its_lower_edge_and_not_above_its_upper(
    value: float, bins: int, nudge: int, edge: int
) -> None:
    near = min(edge, bins) / bins
    for probability in (value, float(np.clip(np.nextafter(near, near + nudge), 0, 1))):
        (index,) = bin_index(np.array([probability]), bins)
        edges = bin_edges(bins)
        assert probability <= edges[index + 1]
        assert probability > edges[index] or probability == index == 0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), c=st.integers(2, 5), seed=st.integers(0, 99), tied=st.booleans())
def test_no_error_depends_on_the_order_of_samples_or_leaves_its_range(n: int, c: int, seed: int, tied: bool) -> None:
    probabilities, labels = (
        coarse(n, c, 6, seed) if tied else (softmax(drawn(n, c, seed)[0], axis=1), drawn(n, c, seed)[1])
    )
    # With two largest probabilities the predicted class depends on the order of classes, not of samples.
    order = np.random.default_rng(seed).permutation(n)
    for measure in ERRORS:
        found = measure(probabilities, labels)
        assert -1e-12 <= found <= (2 if measure is brier_score else 1 + 1e-12)
        assert measure(probabilities[order], labels[order]) == pytest.approx(found, abs=1e-9)
    assert maximum_calibration_error(probabilities, labels) >= expected_calibration_error(probabilities, labels) - 1e-12


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 99), temperature=st.floats(0.05, 20))
def test_accuracy_and_ranking_survive_any_temperature(n: int, seed: int, temperature: float) -> None:
    logits, labels = drawn(n, 4, seed)
    assume(np.isfinite(logits).all())
    before = Predictions.from_logits(logits, labels)
    after = before.scaled(temperature)
    np.testing.assert_array_equal(after.predicted, before.predicted)
    np.testing.assert_array_equal(after.correct, before.correct)
    assert after.logits is not None
    np.testing.assert_array_equal(after.logits, logits / temperature)
    np.testing.assert_array_equal(np.argsort(after.logits, axis=1), np.argsort(logits, axis=1))
    np.testing.assert_allclose(after.probabilities, softmax(logits / temperature, axis=1), rtol=1e-12)


def test_predictions_stay_where_rounding_would_tie_the_largest_logits() -> None:
    logits = np.array([[np.nextafter(1.0, 0.0), 1.0]])
    temperatures = [t for t in np.linspace(1.1, 1.9, 200) if logits[0, 0] / t == logits[0, 1] / t]
    assert temperatures  # division does tie them
    assert Predictions.from_logits(logits, np.array([1])).scaled(temperatures[0]).correct.all()


def test_any_kind_of_array_gives_the_same() -> None:
    logits, labels = drawn(50, 3, seed=9)
    single = logits.astype(np.float32)
    expected = negative_log_likelihood(single, labels)
    for given_logits, given_labels in (
        (torch.from_numpy(single).requires_grad_(), torch.from_numpy(labels)),
        (single.astype(np.float64), labels.astype(np.uint8)),
        (torch.from_numpy(single).double(), torch.from_numpy(labels).to(torch.int32)),
        (np.asfortranarray(single), labels),
    ):
        assert negative_log_likelihood(given_logits, given_labels) == pytest.approx(expected, rel=1e-12)
    half = torch.from_numpy(single).bfloat16()
    assert negative_log_likelihood(half, labels) == pytest.approx(negative_log_likelihood(half.float(), labels))
    assert expected_calibration_error(torch.softmax(half, dim=1), labels) > 0  # rows add up to one but roughly


def test_extreme_logits_keep_their_digits() -> None:
    logits = np.array([[2000.0, 0.0, -2000.0], [1e300, 1e300, -1e300]])
    assert negative_log_likelihood(logits, np.array([1, 0])) == pytest.approx((2000 + np.log(2)) / 2)
    assert negative_log_likelihood(np.array([[50.0, 0.0]]), np.array([0])) == pytest.approx(np.exp(-50.0), rel=1e-9)


def test_a_class_thought_impossible_makes_the_likelihood_zero() -> None:
    predictions = Predictions.from_probabilities(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0]))
    found = evaluate(predictions, resamples=100)
    assert found.values["nll"] == np.inf
    assert "logit_norm" not in found.values
    kept = found.draws["nll"]
    np.testing.assert_allclose(kept[np.isfinite(kept)], np.log(2))  # resamples that did not draw the first
    assert 10 < np.isfinite(kept).sum() < 40


def test_bins_of_a_diagram() -> None:
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.55, 0.45], [0.2, 0.8]])
    predictions = Predictions.from_probabilities(probabilities, np.array([0, 1, 0, 1]))
    bins = reliability_bins(predictions, 10)
    np.testing.assert_array_equal(bins.counts, [0, 0, 0, 0, 0, 1, 0, 1, 1, 1])
    np.testing.assert_allclose(bins.accuracy[[5, 7, 8, 9]], [1, 1, 1, 0])
    np.testing.assert_allclose(bins.gap[[5, 7, 8, 9]], [0.45, 0.2, 0.1, -0.95])
    assert np.isnan(bins.accuracy[0])
    assert bins.expected_error == pytest.approx(expected_calibration_error(probabilities, np.array([0, 1, 0, 1]), 10))


def test_pooled_bins_are_those_of_all_samples() -> None:
    parts = [Predictions.from_logits(*drawn(n, 3, seed=n)) for n in (5, 40, 17)]
    together = Predictions.from_probabilities(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.labels for part in parts])
    )
    pooled, expected = pooled_bins([reliability_bins(part) for part in parts]), reliability_bins(together)
    np.testing.assert_array_equal(pooled.counts, expected.counts)
    np.testing.assert_allclose(pooled.accuracy, expected.accuracy)
    np.testing.assert_allclose(pooled.confidence, expected.confidence)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        ([[0.5, 0.6]], [0], "do not sum to one .off by up to 0.1.; pass softmax"),
        ([[1.5, -0.5]], [0], "run from -0.5 to 1.5; pass softmax"),
        ([[0.5, 0.5]], [0.0], "labels of probabilities have dtype float64"),
        ([[0.5, 0.5]], [[0]], r"shape \(1, 1\); expected \(1,\)"),
        ([[0.5, 0.5]], [-100], "run from -100 to -100; expected class indices from 0 to 1"),
        ([0.5, 0.5], [0], r"shape \(2,\); expected \(N, C\)"),
        ([[1.0]], [0], "have 1 column; softmax needs one a class"),
        ([[True, False]], [0], "have dtype bool"),
    ],
)
def test_no_probabilities(probabilities: object, labels: object, words: str) -> None:
    for measure in ERRORS:
        with pytest.raises(InputError, match=words):
            measure(np.array(probabilities), np.array(labels))


def test_settings_that_make_no_sense() -> None:
    good = np.array([[0.5, 0.5]]), np.array([0])
    for measure in ERRORS[:4]:
        with pytest.raises(InputError, match="0 bins are too few"):
            measure(*good, bins=0)
    predictions = Predictions.from_probabilities(*good)
    with pytest.raises(InputError, match="no logits to divide"):
        predictions.scaled(2.0)
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="no positive number"):
            Predictions.from_logits(*good).scaled(temperature)
