"""Calibration errors from bins: which bin a confidence lies in, and the gap of accuracy and confidence there.

Each function here returns a `Statistic`: a function of weights of shape (R, N), one row for each resample, in which a
sample's weight says how often it was drawn. A row of ones gives the measure of the samples themselves. So the value and
its bootstrap are one piece of code, and R resamples cost a few matrix products.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int, Int64
from scipy.sparse import csr_array

from ntk_lpft.calibration.predictions import Predictions
from ntk_lpft.calibration.settings import check_bins

Weights: TypeAlias = Float64[np.ndarray, "r n"]
Statistic: TypeAlias = Callable[[Weights], Float64[np.ndarray, " r"]]


@dataclass(frozen=True)
class Bins:
    """What a reliability diagram shows: equal-width bins (lo, hi] of the confidence.

    Attributes:
        edges: The M + 1 edges, from 0 to 1.
        counts: Number of samples in each bin, of shape (M,).
        accuracy: Share of them that is predicted correctly; NaN in an empty bin.
        confidence: Their mean confidence; NaN in an empty bin.
    """

    edges: Float64[np.ndarray, " m_plus_1"]
    counts: Int64[np.ndarray, " m"]
    accuracy: Float64[np.ndarray, " m"]
    confidence: Float64[np.ndarray, " m"]

    @property
    def expected_error(self) -> float:
        """ECE: the mean absolute gap over samples."""
        return float(np.nansum(self.counts * np.abs(self.gap)) / self.counts.sum())

    @property
    def gap(self) -> Float64[np.ndarray, " m"]:
        """Accuracy less confidence: negative where the classifier is overconfident."""
        return self.accuracy - self.confidence


def bin_edges(bins: int) -> Float64[np.ndarray, " m_plus_1"]:
    """Return m/M for m = 0 … M, each rounded once, so that a confidence of 2/15 lies on the edge 2/15."""
    check_bins(bins)
    return np.arange(bins + 1) / bins


def bin_index(probabilities: Float64[np.ndarray, "..."], bins: int) -> Int[np.ndarray, "..."]:
    """Return the bin (lo, hi] of each probability; 0, which no such bin holds, goes to the first."""
    edges = bin_edges(bins)
    places = np.minimum((probabilities * bins).astype(np.int32), bins)
    places -= probabilities <= edges[places]  # where rounding, or an edge itself, has led to the bin above
    return np.clip(places, 0, bins - 1)


def reliability_bins(predictions: Predictions, bins: int = 15) -> Bins:
    """Sort samples into equal-width bins of their confidence.

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", section 2.

    Args:
        predictions: N samples.
        bins: M.

    Returns:
        Counts, accuracy and confidence of each bin.

    Raises:
        InputError: M is below 1.
    """
    index = bin_index(predictions.confidence, bins)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        accuracy = np.bincount(index, predictions.correct, bins) / counts
        confidence = np.bincount(index, predictions.confidence, bins) / counts
    return Bins(bin_edges(bins), counts, accuracy, confidence)


def pooled_bins(parts: Sequence[Bins]) -> Bins:
    """Put the samples of several sets of bins with equal edges together."""
    counts = np.sum([part.counts for part in parts], axis=0)
    sums = [
        np.nansum([part.counts * getattr(part, name) for part in parts], axis=0) for name in ("accuracy", "confidence")
    ]
    with np.errstate(invalid="ignore"):
        accuracy, confidence = (total / counts for total in sums)
    return Bins(parts[0].edges, counts, accuracy, confidence)


def mean_of(values: Float64[np.ndarray, " n"]) -> Statistic:
    """Return the mean over samples; infinite where an infinite value was drawn."""
    infinite = np.isinf(values)
    if not infinite.any():
        return lambda weights: weights @ values / weights.sum(axis=1)
    finite = np.where(infinite, 0.0, values)

    def mean(weights: Weights) -> Float64[np.ndarray, " r"]:
        drawn = weights @ infinite.astype(np.float64) > 0  # 0 · ∞ would be NaN
        return np.where(drawn, np.inf, weights @ finite / weights.sum(axis=1))

    return mean


def grouped(groups: Int[np.ndarray, "n k"], values: Float64[np.ndarray, "n k"], count: int) -> csr_array:
    """Build the (N, G) matrix that turns weights (R, N) into sums over groups, each sample in k of them."""
    n, k = groups.shape
    return csr_array((values.ravel(), groups.ravel(), np.arange(0, n * k + 1, k)), shape=(n, count))


def expected_error(predictions: Predictions, bins: int) -> Statistic:
    """ECE: see `measures.expected_calibration_error`."""
    gaps = _gap_matrix(predictions, bins)
    return lambda weights: np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def maximum_error(predictions: Predictions, bins: int) -> Statistic:
    """MCE: see `measures.maximum_calibration_error`."""
    gaps = _gap_matrix(predictions, bins)
    index = bin_index(predictions.confidence, bins)
    members = grouped(index[:, None], np.ones((predictions.num_samples, 1)), bins)
    return lambda weights: (np.abs(weights @ gaps) / np.maximum(weights @ members, 1)).max(axis=1)


def _gap_matrix(predictions: Predictions, bins: int) -> csr_array:
    index = bin_index(predictions.confidence, bins)
    gap = predictions.correct - predictions.confidence
    return grouped(index[:, None], gap[:, None], bins)


def adaptive_error(predictions: Predictions, bins: int) -> Statistic:
    """Adaptive-bin ECE: see `measures.adaptive_calibration_error`."""
    check_bins(bins)
    n = predictions.num_samples
    order = np.argsort(predictions.confidence, kind="stable")
    confidence = predictions.confidence[order]
    gap = predictions.correct[order] - confidence
    last_tied = np.searchsorted(confidence, confidence, side="right") - 1
    # Ranks, from 0, of the samples whose confidences are the inner edges; every resample holds N samples.
    ranks = (n - 1) * np.arange(1, bins) // bins

    def error(weights: Weights) -> Float64[np.ndarray, " r"]:
        drawn = weights[:, order]
        rows = np.arange(len(drawn))[:, None]
        # Rows shifted apart make one sorted list, in which every row's ranks are found at once.
        counted = np.cumsum(drawn, axis=1) + rows * (n + 1)
        positions = np.searchsorted(counted.ravel(), (ranks + rows * (n + 1)).ravel(), side="right")
        edges = last_tied[positions.reshape(len(drawn), bins - 1) - rows * n]
        sums = np.cumsum(drawn * gap, axis=1)
        at_edges = np.take_along_axis(sums, edges, axis=1)
        whole = np.hstack([np.zeros((len(drawn), 1)), at_edges, sums[:, -1:]])
        return np.abs(np.diff(whole, axis=1)).sum(axis=1) / n

    return error
