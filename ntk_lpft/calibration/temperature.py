"""Temperature scaling: the one number T that makes softmax(f/T) most likely on validation samples."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import brentq
from scipy.special import softmax

from ntk_lpft.calibration.predictions import Labels, Scores, are_probabilities, check_labels, check_scores
from ntk_lpft.errors import InputError

BOUNDS = (1e-2, 1e2)
# Rounding leaves a slope of this size, in units of the largest scaled logit, at the root.
_ZERO_SLOPE = 1e-10
# A logit is of a masked class where it lies further below the largest than this many usual distances of the second.
_MASKED = 100
_LARGEST = 1e100  # whose differences can still be squared
_STRIDE = np.log(8)
_CHUNK = 1 << 16  # numbers that stay in a core's cache


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature that minimises the NLL of softmax(f/T).

    Attributes:
        temperature: T.
        nll_before: NLL at T = 1, in nats.
        nll_after: NLL at T.
        slope: dNLL / d ln(1/T) at T: 0 to rounding at an optimum between the bounds.
        at_bound: ``lower`` or ``upper`` where the optimum lies at or beyond a bound of T; else None.
        num_samples: N, the samples fitted on.
        num_classes: C.
    """

    temperature: float
    nll_before: float
    nll_after: float
    slope: float
    at_bound: str | None
    num_samples: int
    num_classes: int

    def scale(self, logits: Scores) -> Float64[np.ndarray, "n c"]:
        """Return f/T in float64.

        Args:
            logits: f, of shape (N, C).

        Returns:
            Logits of the same shape and order.

        Raises:
            InputError: The logits are no finite (N, C) numbers, or C is not that of the fit.
        """
        scores = check_scores(logits, "logits")
        check_classes(scores, self.num_classes)
        return scores / self.temperature

    def probabilities(self, logits: Scores) -> Float64[np.ndarray, "n c"]:
        """Return softmax(f/T), of shape (N, C); arguments and errors are those of `scale`."""
        return softmax(self.scale(logits), axis=1)


def fit_temperature(logits: Scores, labels: Labels, *, bounds: tuple[float, float] = BOUNDS) -> TemperatureFit:
    """Find the temperature T that minimises NLL(T) = −1/N Σ_i ln softmax(f_i/T)[y_i].

    NLL is convex in 1/T, so that its slope has one root, which Brent's method finds to rounding, in float64, inside a
    bracket. T grows with the logits: s·f has the temperature s·T. T is kept where logits f/T have a size between
    1/`bounds`[1] and 1/`bounds`[0], or between that and 1, so that the NLL is never larger than before; the size of
    logits is the median over samples of their root mean square about their mean over classes (for the smallest T
    without masked classes, such as of -1e4, which would dwarf all others). The optimum lies beyond where no finite T is
    best: at 0 if every sample is predicted correctly, and at ∞ if the label's logit is on average not above the mean of
    its row, so that the logits say no more of the labels than chance.

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", section 4.2.

    Args:
        logits: f of validation samples, of shape (N, C).
        labels: Their classes, of shape (N,).
        bounds: Smallest and largest T, in units of the size of the logits.

    Returns:
        T, and how good it is.

    Raises:
        InputError: The logits are no finite (N, C) numbers, the labels do not fit them, or the bounds are not positive
            and in order; or the logits are probabilities, or beyond 1e100 in size.

    Warns:
        UserWarning: The optimum lies at or beyond a bound, or the logits of every sample are all the same, so that
            every T is as good and 1 is returned.
    """
    if not 0 < bounds[0] < bounds[1] < np.inf:
        raise InputError(f"bounds {bounds} of the temperature are not two positive numbers in order")
    scores = check_scores(logits, "logits")
    checked = check_labels(labels, *scores.shape)
    if are_probabilities(scores):
        raise InputError("rows of the logits sum to one, as probabilities do; pass the logits, or np.log of these")
    if np.abs(scores).max() > _LARGEST:
        raise InputError(f"the logits reach {np.abs(scores).max():.3g} in size, which no classifier gives; check them")
    below_top = scores - scores.max(axis=1, keepdims=True)
    size, whole_size = _sizes(below_top)
    if size == 0:
        warnings.warn("no sample's logits differ between classes, so that a temperature changes nothing", stacklevel=2)
        nll = float(np.log(scores.shape[1]))
        return TemperatureFit(1.0, nll, nll, 0.0, None, *scores.shape)
    below_top /= size
    of_label = np.take_along_axis(below_top, checked[:, None], axis=1)[:, 0]
    # The logits as they are, of sharpness `size`, are always among those to choose from.
    low, high = min(size / whole_size / bounds[1], size), max(1 / bounds[0], size)
    sharpness, at_bound = _best_sharpness(below_top, of_label, low, high)
    slope = _slope(np.log(sharpness), below_top, of_label)
    if at_bound is None and abs(slope) > _ZERO_SLOPE * (1 - sharpness * float(below_top.min())):
        raise ArithmeticError(f"the NLL still has the slope {slope:.1e} at T = {size / sharpness}")
    temperature = size / sharpness
    if at_bound is not None:
        warnings.warn(_REASONS[at_bound].format(temperature), stacklevel=2)
    before, after = (_nll(beta, below_top, of_label) for beta in (size, sharpness))
    if after > before:  # by rounding, as T is 1 to rounding then
        temperature, after, slope = 1.0, before, _slope(np.log(size), below_top, of_label)
    return TemperatureFit(temperature, before, after, slope, at_bound, *scores.shape)


_REASONS = {
    "lower": "every validation sample, or nearly so, is predicted correctly, so that the best temperature lies at or "
    "near 0; kept at the bound {:.4g}, which means little: fit on more samples, or leave the logits as they are",
    "upper": "the logits say next to nothing of the validation labels, or rule some out, so that the best temperature "
    "lies at or near ∞; kept at the bound {:.4g}, which means little: fit on more samples, or leave the logits as they "
    "are",
}


def _sizes(below_top: Float64[np.ndarray, "n c"]) -> tuple[float, float]:
    """Return how much the logits of a sample usually differ, without masked classes and with them."""
    second = np.partition(below_top, -2, axis=1)[:, -2]
    usual = float(np.median(-second))
    likely = below_top >= -_MASKED * usual if usual > 0 else np.ones_like(below_top, dtype=bool)
    return _usual_deviation(below_top, likely), _usual_deviation(below_top, np.ones_like(likely))


def _usual_deviation(below_top: Float64[np.ndarray, "n c"], counted: Bool[np.ndarray, "n c"]) -> float:
    deviations = below_top.std(axis=1, where=counted)
    return float(np.median(deviations)) or float(deviations.max())


def check_classes(scores: Float64[np.ndarray, "n c"], num_classes: int) -> None:
    """Refuse logits of other classes than those of a fit.

    Args:
        scores: Logits, of shape (N, C).
        num_classes: Number of classes that the calibration was fitted on.

    Raises:
        InputError: The number of columns differs.
    """
    if scores.shape[1] != num_classes:
        raise InputError(f"logits have {scores.shape[1]} classes, but the calibration was fitted on {num_classes}")


def _best_sharpness(
    below_top: Float64[np.ndarray, "n c"], of_label: Float64[np.ndarray, " n"], low: float, high: float
) -> tuple[float, str | None]:
    """Find the β = 1/T at which the NLL is smallest, and which bound of T it stands at, if any.

    Args:
        below_top: Logits of unit size, less the largest of each sample.
        of_label: Those of the samples' classes.
        low: Smallest β.
        high: Largest β.

    Returns:
        β, and ``upper``, ``lower`` or None.
    """

    def slope(log_beta: float) -> float:
        return _slope(log_beta, below_top, of_label)

    ends = np.log(low), np.log(high)
    near = float(np.clip(0.0, *ends))  # logits of unit size are about as sharp as they should be
    rising = slope(near) > 0
    # The slope rises with β: go down from a positive one, up from a negative one, until it changes its sign.
    while near != ends[0 if rising else 1]:
        far = float(np.clip(near + (-_STRIDE if rising else _STRIDE), *ends))
        if (slope(far) > 0) != rising:
            root = brentq(slope, min(near, far), max(near, far), xtol=1e-15, rtol=4 * np.finfo(float).eps)
            return float(np.exp(root)), None
        near = far
    return (low, "upper") if rising else (high, "lower")


def _slope(log_beta: float, below_top: Float64[np.ndarray, "n c"], of_label: Float64[np.ndarray, " n"]) -> float:
    """Return dNLL / d ln β of softmax(βu): β times the mean of E_p[u] − u_y."""
    beta, total = float(np.exp(log_beta)), 0.0
    for u, u_y in _chunks(below_top, of_label):
        p = np.exp(beta * u)
        total += float((np.einsum("nc,nc->n", p, u) / p.sum(axis=1) - u_y).sum())
    return beta * total / len(below_top)


def _nll(beta: float, below_top: Float64[np.ndarray, "n c"], of_label: Float64[np.ndarray, " n"]) -> float:
    """Return the NLL of softmax(βu)."""
    chunks = _chunks(below_top, of_label)
    return sum(float((np.log(np.exp(beta * u).sum(axis=1)) - beta * u_y).sum()) for u, u_y in chunks) / len(below_top)


def _chunks(
    logits: Float64[np.ndarray, "n c"], of_label: Float64[np.ndarray, " n"]
) -> Iterator[tuple[Float64[np.ndarray, "m c"], Float64[np.ndarray, " m"]]]:
    rows = max(1, _CHUNK // logits.shape[1])
    for begin in range(0, len(logits), rows):
        yield logits[begin : begin + rows], of_label[begin : begin + rows]
