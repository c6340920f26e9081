"""What temperature scaling is compared with: vector scaling and isotonic regression."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from ntk_lpft.calibration.predictions import Labels, Scores, check_labels, check_scores
from ntk_lpft.calibration.temperature import check_classes

# Largest weight and bias, for logits of unit size: what softmax makes of them is 0 or 1 to rounding.
_LARGEST = 100.0
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class VectorScaling:
    """A weight and a bias for each class, w ∘ f + b, fitted by NLL.

    Attributes:
        weight: w, of shape (C,).
        bias: b, of shape (C,), which adds up to zero.
        nll_before: NLL of the logits as they are, in nats.
        nll_after: NLL of the scaled logits.
        at_bound: Whether some weight or bias was kept at its bound, the optimum lying beyond.
    """

    weight: Float64[np.ndarray, " c"]
    bias: Float64[np.ndarray, " c"]
    nll_before: float
    nll_after: float
    at_bound: bool

    def scale(self, logits: Scores) -> Float64[np.ndarray, "n c"]:
        """Return w ∘ f + b in float64; unlike f/T it may rank classes otherwise.

        Args:
            logits: f, of shape (N, C).

        Returns:
            Logits of the same shape.

        Raises:
            InputError: The logits are no finite (N, C) numbers, or C is not that of the fit.
        """
        scores = check_scores(logits, "logits")
        check_classes(scores, len(self.weight))
        return scores * self.weight + self.bias

    def probabilities(self, logits: Scores) -> Float64[np.ndarray, "n c"]:
        """Return softmax(w ∘ f + b), of shape (N, C); arguments and errors are those of `scale`."""
        return softmax(self.scale(logits), axis=1)


def fit_vector_scaling(logits: Scores, labels: Labels) -> VectorScaling:
    """Fit w and b of softmax(w ∘ f + b) by minimising the NLL, by L-BFGS in float64.

    The NLL is convex in w and b. Both are bounded at 100, or by what leaves the logits as they are, for logits divided
    by the root mean square of what they are less their mean over classes, since the optimum is infinite where classes
    can be separated. The NLL is never larger than before.

    Source: Guo et al. (2017), "On calibration of modern neural networks", section 4.2.

    Args:
        logits: f of validation samples, of shape (N, C).
        labels: Their classes, of shape (N,).

    Returns:
        w and b, for logits as given.

    Raises:
        InputError: The logits are no finite (N, C) numbers, or the labels do not fit them.

    Warns:
        UserWarning: A weight or bias is at its bound, or the optimum was not reached.
    """
    scores = check_scores(logits, "logits")
    n, c = scores.shape
    checked = check_labels(labels, n, c)
    unit = float(np.sqrt(np.mean((scores - scores.mean(axis=1, keepdims=True)) ** 2))) or 1.0
    u = scores / unit
    targets = np.zeros((n, c))
    targets[np.arange(n), checked] = 1

    def nll(parameters: Float64[np.ndarray, " two_c"]) -> tuple[float, Float64[np.ndarray, " two_c"]]:
        logarithms = log_softmax(u * parameters[:c] + parameters[c:], axis=1)
        residual = (np.exp(logarithms) - targets) / n
        gradient = np.concatenate([(residual * u).sum(axis=0), residual.sum(axis=0)])
        return -float(logarithms[np.arange(n), checked].mean()), gradient

    # The logits as they are, of weight `unit`, are always among those to choose from.
    largest = max(_LARGEST, unit)
    start = np.concatenate([np.full(c, unit), np.zeros(c)])
    limits = [(-largest, largest)] * (2 * c)
    solution = minimize(
        nll,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": 10_000, "maxfun": 100_000, "ftol": 0.0, "gtol": _TOLERANCE, "maxcor": 20},
    )
    at_bound = bool((np.abs(solution.x) >= largest).any())
    inside = np.abs(solution.x) < largest
    steepest = float(np.abs(solution.jac[inside]).max(initial=0))
    if at_bound:
        warnings.warn("vector scaling has no finite optimum (some class is separated); kept at its bounds",
                      stacklevel=2)  # fmt: skip
    elif steepest > 100 * _TOLERANCE:
        warnings.warn(f"vector scaling stopped short of its optimum, gradient {steepest:.1e}", stacklevel=2)
    weight, bias = solution.x[:c] / unit, solution.x[c:] - solution.x[c:].mean()
    before = -float(log_softmax(scores, axis=1)[np.arange(n), checked].mean())
    return VectorScaling(weight, bias, before, float(solution.fun), at_bound)


@dataclass(frozen=True)
class IsotonicCalibration:
    """One increasing step function for each class's probability, fitted by least squares.

    Attributes:
        regressions: The function of each of the C classes.
    """

    regressions: tuple[IsotonicRegression, ...]

    def probabilities(self, logits: Scores) -> Float64[np.ndarray, "n c"]:
        """Return the calibrated probabilities; rows are divided by their sums, rows of zeros become uniform.

        Args:
            logits: f, of shape (N, C).

        Returns:
            Probabilities, of shape (N, C). Some are exactly 0, so that the NLL of other samples may be infinite.

        Raises:
            InputError: The logits are no finite (N, C) numbers, or C is not that of the fit.
        """
        scores = check_scores(logits, "logits")
        check_classes(scores, len(self.regressions))
        before = softmax(scores, axis=1)
        columns = [regression.predict(before[:, i]) for i, regression in enumerate(self.regressions)]
        after = np.stack(columns, axis=1)
        sums = after.sum(axis=1, keepdims=True)
        return np.divide(after, sums, out=np.full_like(after, 1 / after.shape[1]), where=sums > 0)


def fit_isotonic(logits: Scores, labels: Labels) -> IsotonicCalibration:
    """Fit an isotonic regression of each class's indicator on its probability, one class against the rest.

    Source: Zadrozny and Elkan (2002), "Transforming classifier scores into accurate multiclass probability estimates",
    section 4; scikit-learn's `IsotonicRegression`.

    Args:
        logits: f of validation samples, of shape (N, C).
        labels: Their classes, of shape (N,).

    Returns:
        The step functions.

    Raises:
        InputError: The logits are no finite (N, C) numbers, or the labels do not fit them.
    """
    scores = check_scores(logits, "logits")
    checked: Int64[np.ndarray, " n"] = check_labels(labels, *scores.shape)
    before = softmax(scores, axis=1)
    return IsotonicCalibration(
        tuple(
            IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(before[:, i], checked == i)
            for i in range(scores.shape[1])
        )
    )
