"""All measures of one set of predictions, with bootstrap intervals, and their change by a calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import norm, t

from ntk_lpft.calibration.binned import bin_index, grouped
from ntk_lpft.calibration.measures import BIASED_UPWARDS, MEASURES, RANGES, statistics_of
from ntk_lpft.calibration.predictions import Predictions
from ntk_lpft.calibration.settings import check_bins, check_resamples, check_seed, check_work
from ntk_lpft.errors import InputError

_CHUNK = 1 << 19  # numbers, 4 MiB in float64


@dataclass(frozen=True)
class Estimate:
    """A measure with its confidence interval.

    Attributes:
        value: The measure of the samples.
        low: Lower end of the interval; NaN without resamples.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """The measures of a set of predictions, and of its resamples.

    Attributes:
        values: Each measure of the samples themselves.
        draws: The same of each of R resamples, of shape (R,).
        level: Confidence level of intervals.
        num_samples: N.
    """

    values: Mapping[str, float]
    draws: Mapping[str, Float64[np.ndarray, " r"]]
    level: float
    num_samples: int

    def estimates(self) -> dict[str, Estimate]:
        """Return each measure with its interval, cut off where the measure's range ends."""
        estimates = {name: self._estimate(name, value, self.draws[name]) for name, value in self.values.items()}
        return {
            name: Estimate(e.value, *(float(np.clip(end, *RANGES.get(name, (0, np.inf)))) for end in (e.low, e.high)))
            for name, e in estimates.items()
        }

    def change_from(self, before: Evaluation) -> dict[str, Estimate]:
        """Return the change of each measure since another evaluation of the same samples.

        Both evaluations drew the same samples, if they were made with the same `resamples` and `seed`; the interval is
        that of the paired difference, which is narrower than the two intervals suggest.

        Args:
            before: The evaluation to subtract.

        Returns:
            The measures that both have; NaN where both are infinite.

        Raises:
            InputError: The evaluations do not have equally many resamples.
        """
        names = [name for name in self.values if name in before.values]
        if any(len(self.draws[name]) != len(before.draws[name]) for name in names):
            raise InputError("the evaluations have different numbers of resamples; make both with the same settings")
        with np.errstate(invalid="ignore"):
            values = {name: float(np.subtract(self.values[name], before.values[name])) for name in names}
            draws = {name: self.draws[name] - before.draws[name] for name in names}
        return {name: self._estimate(name, values[name], draws[name]) for name in names}

    def _estimate(self, name: str, value: float, draws: Float64[np.ndarray, " r"]) -> Estimate:
        if not len(draws):
            return Estimate(value, np.nan, np.nan)
        # An order statistic: interpolating between infinite draws would give NaN.
        tails = _tails(self.level, self.num_samples)
        low, high = (float(end) for end in np.quantile(draws, tails, method="inverted_cdf"))
        if name in BIASED_UPWARDS:
            return Estimate(value, 2 * value - high, 2 * value - low)
        return Estimate(value, low, high)


def _tails(level: float, n: int) -> tuple[float, float]:
    """Return the shares of draws below the ends of an interval: a little more than the level lies between them.

    A bootstrap distribution of N samples is too narrow by √((N − 1)/N), and normal where Student's t is due.
    """
    if n == 1:  # every draw is the same
        return (1 - level) / 2, (1 + level) / 2
    expanded = float(norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - level) / 2, n - 1)))
    return expanded, 1 - expanded


def evaluate(
    predictions: Predictions,
    *,
    measures: Sequence[str] = MEASURES,
    bins: int = 15,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Compute measures, and their distribution over bootstrap resamples of the samples.

    Intervals are percentile intervals for means over samples (accuracy, confidence, NLL, Brier score, norms). The
    calibration errors, and reliability and resolution, are biased upwards, and a resample is biased once more; for
    them the interval is the basic one, [2θ − q_high, 2θ − q_low], which takes the bias back once, and its ends are cut
    off at 0. Tails are those of Student's t.

    Measured on an overconfident classifier (C = 3, T = 2, ECE 11.6 %) with 400 resamples, 95 % intervals held, for N =
    56, 500 and 3000 samples (400, 400 and 150 draws, so give or take 2 to 5 %), the true accuracy in 95, 96 and 95 % of
    draws, the NLL in 92, 95 and 97 %, and the Brier score in 94, 96 and 95 %. ECE: bias +5.0, +0.6 and +0.0 points,
    held in 90, 96 and 95 %; MCE: bias +38, +20 and +3 points, held in 31, 47 and 91 %: do not rely on it for fewer
    samples. Of the others, class-wise ECE and resolution are held in 70 and 64 % at N = 56, smooth ECE in 80 %, and all
    of them in 93 to 99 % at N = 500. Of a calibrated classifier (T = 1, N = 56) the true ECE is 0, at the edge of what
    it can be, and 47 % of the intervals hold it: see `errors_by_chance`.

    Source: Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13; Davison and Hinkley (1997),
    "Bootstrap methods and their application", section 5.2, for the basic interval; Hesterberg (2015), "What teachers
    should know about the bootstrap", section 4.4, for the tails.

    Args:
        predictions: N samples.
        measures: Which of `measures.MEASURES`.
        bins: M, of all measures with bins.
        resamples: R; 0 for no intervals.
        level: Confidence level.
        seed: Of the resamples; equal seeds draw the same samples for any predictions of N samples.

    Returns:
        Values and draws of each measure; of predictions without logits, none of the norms of logits.

    Raises:
        InputError: There is no measure of some name, M is below 1, the level is not inside (0, 1), or R is too small
            for its tails.
    """
    check_resamples(resamples, level)
    check_seed(seed)
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise InputError(f"there is no measure {unknown[0]!r}; choose from {', '.join(MEASURES)}")
    statistics = {name: value for name, value in statistics_of(predictions, bins).items() if name in measures}
    n = predictions.num_samples
    check_work(resamples, n)
    ones = np.ones((1, n))
    values = {name: float(statistic(ones)[0]) for name, statistic in statistics.items()}
    draws = {name: np.empty(resamples) for name in statistics}
    for begin, weights in _resampled(n, resamples, seed):
        for name, statistic in statistics.items():
            draws[name][begin : begin + len(weights)] = statistic(weights)
    return Evaluation(values, draws, level, n)


def _resampled(n: int, resamples: int, seed: int) -> Iterator[tuple[int, Float64[np.ndarray, "r n"]]]:
    """Yield how often each sample was drawn, a few resamples at a time."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n)
    for begin in range(0, resamples, rows):
        count = min(rows, resamples - begin)
        drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        yield begin, np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def errors_by_chance(
    predictions: Predictions, *, bins: int = 15, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Compute the ECE and MCE that a perfectly calibrated classifier with these confidences would show.

    Each sample is called correct with a probability of its confidence, again and again. An error inside the interval
    is no evidence of miscalibration.

    Source: Bröcker and Smith (2007), "Increasing the reliability of reliability diagrams" (consistency resampling);
    Vaicenavicius et al. (2019), "Evaluating model calibration in classification", section 5.

    Args:
        predictions: N samples.
        bins: M.
        resamples: How many sets of N outcomes are drawn.
        level: Of the interval.
        seed: Of the outcomes.

    Returns:
        ``ece`` and ``mce``: the mean as the value, and the interval that holds a share `level` of the draws.

    Raises:
        InputError: M is below 1, or there are too few resamples for the level.
    """
    check_bins(bins)
    check_resamples(resamples, level)
    if resamples == 0:
        raise InputError("errors by chance need resamples; use 1000 or so")
    check_seed(seed)
    n, confidence = predictions.num_samples, predictions.confidence
    check_work(resamples, n)
    members = grouped(bin_index(confidence, bins)[:, None], np.ones((n, 1)), bins)
    counts = np.ones(n) @ members
    rng = np.random.default_rng(seed)
    gaps = np.concatenate(
        [
            np.abs(((rng.random((min(rows, resamples - begin), n)) < confidence) - confidence) @ members)
            for rows in (max(1, _CHUNK // n),)
            for begin in range(0, resamples, rows)
        ]
    )
    tails = ((1 - level) / 2, (1 + level) / 2)
    errors = {"ece": gaps.sum(axis=1) / n, "mce": (gaps / np.maximum(counts, 1)).max(axis=1)}
    return {name: Estimate(float(draws.mean()), *np.quantile(draws, tails).tolist()) for name, draws in errors.items()}
