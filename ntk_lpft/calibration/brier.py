"""Measures of all C probabilities of a sample: the Brier score, what it is made of, and class-wise ECE."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ntk_lpft.calibration.binned import Statistic, Weights, bin_index, grouped, mean_of
from ntk_lpft.calibration.predictions import Predictions


@dataclass(frozen=True)
class BrierDecomposition:
    """The terms of the Brier score, each summed over classes; `score` is their signed sum, exactly.

    Attributes:
        reliability: Σ_c Σ_b n_b/N (p̄_b − ō_b)²: how far probabilities are from frequencies; 0 if calibrated.
        resolution: Σ_c Σ_b n_b/N (ō_b − ō)²: how far frequencies differ from bin to bin; large is good.
        uncertainty: Σ_c ō (1 − ō): what a constant prediction of the class frequencies scores.
        within_bin_variance: Σ_c 1/N Σ_i (p_i − p̄_b)²; 0 if each bin holds one probability.
        within_bin_covariance: Σ_c 2/N Σ_i (p_i − p̄_b)(o_i − ō_b); likewise.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin_variance: float
    within_bin_covariance: float

    @property
    def score(self) -> float:
        """Reliability − resolution + uncertainty + within-bin variance − within-bin covariance."""
        within = self.within_bin_variance - self.within_bin_covariance
        return self.reliability - self.resolution + self.uncertainty + within


def brier_score_of(predictions: Predictions) -> Statistic:
    """Brier score: see `measures.brier_score`."""
    errors = predictions.probabilities.copy()
    errors[np.arange(predictions.num_samples), predictions.labels] -= 1
    return mean_of(np.einsum("nc,nc->n", errors, errors))


class ClassBins:
    """Measures from bins (lo, hi] of each class's probability, under weights; see `measures` for their definitions.

    Args:
        predictions: N samples.
        bins: M, equally wide.
    """

    def __init__(self, predictions: Predictions, bins: int) -> None:
        probabilities, rows = predictions.probabilities, np.arange(predictions.num_samples)
        groups = bin_index(probabilities, bins) + bins * np.arange(predictions.num_classes)
        outcomes = groups[rows, predictions.labels]
        self._shape = (predictions.num_classes, bins)
        count = predictions.num_classes * bins
        self._members = grouped(groups, np.ones_like(probabilities), count)
        self._forecasts = grouped(groups, probabilities, count)
        self._outcomes = grouped(outcomes[:, None], np.ones((predictions.num_samples, 1)), count)
        self._squares = mean_of(np.einsum("nc,nc->n", probabilities, probabilities))
        self._products = mean_of(probabilities[rows, predictions.labels])
        self._known: tuple[Weights | None, tuple[Float64[np.ndarray, "r c m"], ...]] = (None, ())

    def _bins_of(self, weights: Weights) -> tuple[Float64[np.ndarray, "r c m"], ...]:
        """Return each bin's share of the samples, mean forecast and frequency."""
        if self._known[0] is not weights:  # every measure asks in turn
            counts, forecasts, outcomes = (
                (weights @ matrix).reshape(-1, *self._shape)
                for matrix in (self._members, self._forecasts, self._outcomes)
            )
            filled = np.maximum(counts, 1)  # sums over an empty bin are 0
            shares = counts / weights.sum(axis=1)[:, None, None]
            self._known = weights, (shares, forecasts / filled, outcomes / filled)
        return self._known[1]

    def classwise_error(self, weights: Weights) -> Float64[np.ndarray, " r"]:
        """1/C Σ_c Σ_b n_b/N |ō_b − p̄_b|, for each resample."""
        share, forecast, outcome = self._bins_of(weights)
        return (share * np.abs(outcome - forecast)).sum(axis=(1, 2)) / self._shape[0]

    def reliability(self, weights: Weights) -> Float64[np.ndarray, " r"]:
        """Σ_c Σ_b n_b/N (p̄_b − ō_b)², for each resample."""
        share, forecast, outcome = self._bins_of(weights)
        return (share * (forecast - outcome) ** 2).sum(axis=(1, 2))

    def resolution(self, weights: Weights) -> Float64[np.ndarray, " r"]:
        """Σ_c Σ_b n_b/N (ō_b − ō)², for each resample."""
        share, _, outcome = self._bins_of(weights)
        base = (share * outcome).sum(axis=2, keepdims=True)
        return (share * (outcome - base) ** 2).sum(axis=(1, 2))

    def uncertainty(self, weights: Weights) -> Float64[np.ndarray, " r"]:
        """Σ_c ō (1 − ō), for each resample."""
        share, _, outcome = self._bins_of(weights)
        base = (share * outcome).sum(axis=2)
        return (base * (1 - base)).sum(axis=1)

    def within_bin_variance(self, weights: Weights) -> Float64[np.ndarray, " r"]:
        """Σ_c 1/N Σ_i (p_i − p̄_b)², for each resample."""
        share, forecast, _ = self._bins_of(weights)
        return self._squares(weights) - (share * forecast**2).sum(axis=(1, 2))

    def within_bin_covariance(self, weights: Weights) -> Float64[np.ndarray, " r"]:
        """Σ_c 2/N Σ_i (p_i − p̄_b)(o_i − ō_b), for each resample."""
        share, forecast, outcome = self._bins_of(weights)
        return 2 * (self._products(weights) - (share * forecast * outcome).sum(axis=(1, 2)))
