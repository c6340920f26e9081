"""How well probabilities fit what happens: calibration errors, proper scores, and what stands beside them.

Every function takes numpy arrays or torch tensors and computes in float64. `statistics_of` gives all measures of one
set of predictions in a form that can be resampled; `evaluation.evaluate` puts intervals to them.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np
import torch

from ntk_lpft.calibration.binned import (
    Statistic,
    adaptive_error,
    check_bins,
    expected_error,
    maximum_error,
    mean_of,
)
from ntk_lpft.calibration.brier import BrierDecomposition, ClassBins, brier_score_of
from ntk_lpft.calibration.predictions import Labels, Predictions, Scores
from ntk_lpft.calibration.smooth import smooth_error

MEASURES = (
    "accuracy",
    "confidence",
    "nll",
    "brier",
    "brier_reliability",
    "brier_resolution",
    "brier_uncertainty",
    "brier_within_bin",
    "ece",
    "mce",
    "adaptive_ece",
    "classwise_ece",
    "smooth_ece",
    "logit_norm",
    "centred_logit_norm",
)
# The measures of which a bootstrap distribution is shifted: noise alone gives them a value above 0.
BIASED_UPWARDS = ("ece", "mce", "adaptive_ece", "classwise_ece", "smooth_ece", "brier_reliability", "brier_resolution")
# Smallest and largest values, where these are not 0 and ∞.
RANGES = {
    "brier_within_bin": (-np.inf, np.inf),
    **dict.fromkeys(
        ("accuracy", "confidence", "ece", "mce", "adaptive_ece", "classwise_ece", "smooth_ece"), (0.0, 1.0)
    ),
}


def expected_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Compute ECE = Σ_b n_b/N |accuracy_b − confidence_b| over equal-width bins (lo, hi] of the top probability.

    An edge m/M belongs to the bin below it, as published; torchmetrics 1.x and netcal put it into the bin above. The
    estimate is biased upwards: for N samples of a calibrated classifier it is about Σ_b √(2 a_b (1 − a_b) n_b / π) / N,
    not 0. See `evaluation.evaluate` for the measured bias and intervals.

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", equation 3; after
    Naeini, Cooper and Hauskrecht (2015).

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).
        bins: M.

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: The probabilities are none, the labels do not fit them, or M is below 1.
    """
    return _value(probabilities, labels, partial(expected_error, bins=bins))


def maximum_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Compute MCE = max_b |accuracy_b − confidence_b| over the bins of `expected_calibration_error` with any sample.

    A bin with one sample counts as much as any other, so that the estimate is noisy and large for few samples.

    Source: Guo et al. (2017), equation 5.

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).
        bins: M.

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: As for `expected_calibration_error`.
    """
    return _value(probabilities, labels, partial(maximum_error, bins=bins))


def adaptive_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Compute the ECE with bins that hold equally many samples.

    The inner edges are the samples of rank ⌊(N − 1) m/M⌋ (from 0) in the order of confidence, which bins (lo, hi] hold;
    these are the bins of the interpolated quantiles at m/M. Samples of equal confidence share a bin, whatever their
    order, so that ties make bins unequal.

    Source: Nguyen and O'Connor (2015), "Posterior calibration and exploratory analysis for natural language processing
    models", section 3; for the top probability, as "AdaECE", Mukhoti et al. (2020), "Calibrating deep neural networks
    using focal loss".

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).
        bins: M.

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: As for `expected_calibration_error`.
    """
    return _value(probabilities, labels, partial(adaptive_error, bins=bins))


def classwise_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Compute the mean over classes c of Σ_b n_b/N |frequency of c in b − mean probability of c in b|.

    The bins (lo, hi] are those of each class's own probability, the first with 0. All C probabilities count, not the
    largest alone. With many classes most lie in the first bin, which makes the mean small.

    Source: Kull et al. (2019), "Beyond temperature scaling", equation 1.

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).
        bins: M.

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: As for `expected_calibration_error`.
    """
    return _value(probabilities, labels, lambda predictions: ClassBins(predictions, bins).classwise_error)


def smooth_calibration_error(probabilities: Scores, labels: Labels) -> float:
    """Compute the smooth ECE, a calibration error without bins.

    smECE_σ = ∫₀¹ |1/N Σ_i (correct_i − confidence_i) K_σ(t, confidence_i)| dt, with K_σ the Gaussian kernel of width σ
    reflected at 0 and 1; the smooth ECE is the one value at which smECE_σ = σ. It is continuous in the probabilities
    and needs no setting. Computed on 2048 cells.

    Source: Błasiok and Nakkiran (2024), "Smooth ECE: principled reliability diagrams via kernel smoothing", section 3.
    Their package relplot finds σ to within 0.001 and cuts the kernel off at distance 1/2; this one does neither.

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).

    Returns:
        The error, between 0 and 1.

    Raises:
        InputError: The probabilities are none, or the labels do not fit them.
    """
    return _value(probabilities, labels, smooth_error)


def negative_log_likelihood(logits: Scores, labels: Labels) -> float:
    """Compute NLL = −1/N Σ_i ln softmax(f_i)[y_i], in nats.

    Source: Guo et al. (2017), equation 6; it is the cross-entropy loss.

    Args:
        logits: f, of shape (N, C).
        labels: The class of each sample, of shape (N,).

    Returns:
        The mean, 0 or above.

    Raises:
        InputError: The logits are not finite numbers of that shape, or the labels do not fit them.
    """
    return _at_ones(mean_of(Predictions.from_logits(logits, labels).nll), len(labels))


def brier_score(probabilities: Scores, labels: Labels) -> float:
    """Compute 1/N Σ_i Σ_c (p_ic − [y_i = c])², the sum over all classes.

    With two classes this is twice the score of the positive class alone, which some libraries call Brier's.

    Source: Brier (1950), "Verification of forecasts expressed in terms of probability", equation 2.

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).

    Returns:
        The score, between 0 and 2.

    Raises:
        InputError: The probabilities are none, or the labels do not fit them.
    """
    return _value(probabilities, labels, brier_score_of)


def brier_decomposition(probabilities: Scores, labels: Labels, bins: int = 15) -> BrierDecomposition:
    """Split the Brier score into reliability, resolution, uncertainty and what bins leave over.

    Source: Murphy (1973), "A new vector partition of the probability score", for the first three; Stephenson, Coelho
    and Jolliffe (2008), "Two extra components in the Brier score decomposition", for the terms within bins.

    Args:
        probabilities: Of shape (N, C).
        labels: The class of each sample, of shape (N,).
        bins: Equal-width bins (lo, hi] of each class's probability.

    Returns:
        The terms; their signed sum is the score.

    Raises:
        InputError: As for `expected_calibration_error`.
    """
    terms = ClassBins(Predictions.from_probabilities(probabilities, labels), bins)
    ones = np.ones((1, len(labels)))
    return BrierDecomposition(
        **{term.name: float(getattr(terms, term.name)(ones)[0]) for term in fields(BrierDecomposition)}
    )


def statistics_of(predictions: Predictions, bins: int = 15) -> dict[str, Statistic]:
    """Return every measure of one set of predictions, ready to be resampled.

    Args:
        predictions: N samples.
        bins: M, of all measures with bins.

    Returns:
        The names of `MEASURES`, in that order, and functions of weights (R, N). Norms of logits are left out where
        there are no logits. ``logit_norm`` is the mean of ‖f‖, ``centred_logit_norm`` that of ‖f − mean(f)‖, the
        part that softmax sees; ``brier_within_bin`` is the within-bin variance less the covariance.

    Raises:
        InputError: M is below 1.
    """
    check_bins(bins)
    classes = ClassBins(predictions, bins)
    statistics: dict[str, Statistic] = {
        "accuracy": mean_of(predictions.correct.astype(np.float64)),
        "confidence": mean_of(predictions.confidence),
        "nll": mean_of(predictions.nll),
        "brier": brier_score_of(predictions),
        "brier_reliability": classes.reliability,
        "brier_resolution": classes.resolution,
        "brier_uncertainty": classes.uncertainty,
        "brier_within_bin": lambda weights: (
            classes.within_bin_variance(weights) - classes.within_bin_covariance(weights)
        ),
        "ece": expected_error(predictions, bins),
        "mce": maximum_error(predictions, bins),
        "adaptive_ece": adaptive_error(predictions, bins),
        "classwise_ece": classes.classwise_error,
        "smooth_ece": smooth_error(predictions),
    }
    if predictions.logits is not None:
        logits = torch.from_numpy(predictions.logits)
        centred = logits - logits.mean(dim=1, keepdim=True)
        statistics["logit_norm"] = mean_of(torch.linalg.vector_norm(logits, dim=1).numpy())
        statistics["centred_logit_norm"] = mean_of(torch.linalg.vector_norm(centred, dim=1).numpy())
    return statistics


def _value(probabilities: Scores, labels: Labels, measure: Callable[[Predictions], Statistic]) -> float:
    return _at_ones(measure(Predictions.from_probabilities(probabilities, labels)), len(labels))


def _at_ones(statistic: Statistic, num_samples: int) -> float:
    return float(statistic(np.ones((1, num_samples)))[0])
