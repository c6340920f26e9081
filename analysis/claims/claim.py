"""A claim of the paper, what is measured of it, and when it counts as true."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from scipy import stats

LEVEL = 0.95  # of intervals
FEWEST = 3  # seeds for an interval; from two, it would say next to nothing
CROSSES = "the interval crosses the threshold"
_FEWEST_RESAMPLES = 50  # of rows, for a variance

# What is read of a run, or of a kernel: which fact, and of which method.
Need = tuple[str, str]
Facts = Mapping[Need, Any]  # of one seed


@dataclass(frozen=True)
class Range:
    """The values of a statistic for which a claim is true: all between two ends.

    Attributes:
        low: The lower end.
        high: The upper end.
        closed: Whether the ends count.
    """

    low: float = -math.inf
    high: float = math.inf
    closed: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether the claim is true of a value."""
        return self.low <= value <= self.high if self.closed else self.low < value < self.high

    def decides(self, low: float, high: float) -> bool:
        """Say whether the claim is true of all values from ``low`` to ``high``, or of none of them."""
        if low in self and high in self:
            return True
        return high < self.low or low > self.high or (not self.closed and (high == self.low or low == self.high))


class Undefined(Exception):
    """A claim's statistic has no value on a seed's results, for the reason given."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: Short, for files.
        says: The claim.
        statistic: What is measured of it on one seed, and when it counts as true.
        needs: What it is measured on.
        value: The statistic of one seed; raises `Undefined` where there is none.
        true: For which values of the statistic the claim is true of a seed.
        scale: Whether statistics are averaged as they are, or, being ratios, by their logarithms.
        bounds: The least and the greatest value that the statistic can have.
    """

    name: str
    says: str
    statistic: str
    needs: Sequence[Need]
    value: Callable[[Facts], float]
    true: Range
    scale: Literal["difference", "ratio"] = "difference"
    bounds: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True)
class Evidence:
    """What is known of one data set.

    Attributes:
        dataset: Its name.
        facts: Fact and method, then seed.
        asked: Seeds that were asked for, of each fact and method; where it says nothing, those that there are.
        resampled: Facts that are measured on test rows, on several resamples of the rows. The same resample of the same
            rows holds the same rows for all methods and seeds.
    """

    dataset: str
    facts: Mapping[Need, Mapping[int, Any]]
    asked: Mapping[Need, frozenset[int]] = field(default_factory=dict)
    resampled: Mapping[Need, Mapping[int, Sequence[Any]]] = field(default_factory=dict)

    def asked_of(self, need: Need) -> frozenset[int]:
        """Seeds asked for."""
        return self.asked.get(need, frozenset()) | frozenset(self.facts.get(need, {}))


@dataclass(frozen=True)
class Verdict:
    """What was found of a claim on one data set.

    Attributes:
        claim: The claim.
        dataset: The data set.
        values: The statistic of each seed.
        asked: Seeds on which it should have been tested.
        reason: Why it could not be tested on some seeds, or on all.
        draws: The statistic of each seed on resamples of its test rows, NaN where it has none; empty where the rows are
            not known, or the statistic is not measured on test rows.
    """

    claim: Claim
    dataset: str
    values: Mapping[int, float]
    asked: frozenset[int] = frozenset()
    reason: str = ""
    draws: Mapping[int, Float64[np.ndarray, " resamples"]] = field(default_factory=dict)

    @property
    def holds(self) -> Mapping[int, bool]:
        """Whether the claim is true of each seed."""
        return {seed: value in self.claim.true for seed, value in self.values.items()}

    @property
    def verdict(self) -> str:
        """``holds`` (in every seed), ``does not hold`` (in none), ``mixed (k of n)``, or ``not tested``."""
        if not self.values:
            return "not tested"
        true = sum(self.holds.values())
        if true == len(self.values):
            return "holds"
        return f"mixed ({true} of {len(self.values)})" if true else "does not hold"

    @property
    def estimate(self) -> float:
        """The statistic's mean over seeds; of ratios the geometric mean. NaN without seeds."""
        if not self.values:
            return math.nan
        return self._back(float(np.mean(self._scaled(list(self.values.values())))))

    @property
    def interval(self) -> tuple[float, float]:
        """Student's t interval of the mean over seeds; NaN for fewer than three, and where a ratio is 0 or infinite.

        Seeds are paired: where two methods are compared, the statistic is that of runs of one seed. They share test
        rows, whose choice moves all seeds' values alike and does not show in their spread. So the variance of that, the
        covariance of two seeds' values over resamples of the rows, widens the interval: the squares of its half width
        from seeds (t) and of that from rows (normal) are added. Of rows that are drawn anew for each seed the
        covariance is nothing. In simulations of two equal methods the intervals exclude 0 in 2 to 6 % of cases, those
        over seeds alone in up to 35 % with three seeds and 57 % with five (``tests/helpers/equal_methods.py``).

        Source: Graybill and Wang (1980), "Confidence intervals on nonnegative linear combinations of variances", for
        the sum; Owen (2007), "The pigeonhole bootstrap", on rows and columns that both vary.
        """
        values = self._scaled(list(self.values.values()))
        shared = self.row_variance
        if len(values) < FEWEST or not np.isfinite(values).all() or math.isnan(shared):
            return math.nan, math.nan
        middle, own = float(np.mean(values)), float(np.var(values, ddof=1)) / len(values)
        tail = (1 + LEVEL) / 2
        half = math.hypot(
            float(stats.t.ppf(tail, len(values) - 1)) * math.sqrt(own), float(stats.norm.ppf(tail)) * math.sqrt(shared)
        )
        least, most = self.claim.bounds
        return max(least, self._back(middle - half)), min(most, self._back(middle + half))

    @property
    def row_variance(self) -> float:
        """Variance that all seeds share because they share test rows; 0 where rows are not resampled.

        The mean over pairs of seeds of the covariance of their values, over resamples of the rows on which all have
        one. NaN where too few have.
        """
        if len(self.draws) < max(2, len(self.values)):
            return 0.0
        draws = np.array([self._scaled(row.tolist()) for row in self.draws.values()])
        draws = draws[:, np.isfinite(draws).all(axis=0)]
        if draws.shape[1] < _FEWEST_RESAMPLES:
            return math.nan
        covariance = np.cov(draws)
        seeds = len(draws)
        return max(0.0, float(covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1)))

    @property
    def undecided(self) -> bool:
        """Whether the claim is true of some values in the interval and not of others."""
        low, high = self.interval
        return not math.isnan(low) and not self.claim.true.decides(low, high)

    @property
    def remark(self) -> str:
        """What belongs beside the verdict: that the interval leaves it open, and why seeds are missing."""
        return "; ".join(part for part in (CROSSES if self.undecided else "", self.reason) if part)

    def _scaled(self, values: Sequence[float]) -> Sequence[float]:
        if self.claim.scale == "difference":
            return values
        return [math.log(value) if value > 0 else -math.inf for value in values]

    def _back(self, value: float) -> float:
        return value if self.claim.scale == "difference" else math.exp(value)


def check(claim: Claim, evidence: Evidence) -> Verdict:
    """Measure a claim on the seeds that have all it needs."""
    seeds = frozenset.intersection(*(evidence.asked_of(need) for need in claim.needs))
    values: dict[int, float] = {}
    draws: dict[int, Float64[np.ndarray, " resamples"]] = {}
    reasons: list[str] = []
    for seed in sorted(seeds):
        facts = {need: evidence.facts[need][seed] for need in claim.needs if seed in evidence.facts.get(need, {})}
        lacking = [need for need in claim.needs if need not in facts]
        if lacking:
            reasons.append(f"no {describe_need(lacking[0])}")
            continue
        try:
            value = float(claim.value(facts))
        except Undefined as error:
            reasons.append(str(error))
            continue
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            reasons.append("what it is measured on is not there, or zero")
            continue
        if math.isnan(value):
            reasons.append("its statistic is undefined")
        else:
            values[seed] = value
            draws |= _resample(claim, evidence, seed, facts)
    if not seeds:
        absent = [need for need in claim.needs if not evidence.asked_of(need)]
        reasons.append(f"no {describe_need(absent[0])}" if absent else "no seed has all that it needs")
    return Verdict(claim, evidence.dataset, values, seeds, "; ".join(dict.fromkeys(reasons)), draws)


def _resample(
    claim: Claim, evidence: Evidence, seed: int, facts: Facts
) -> dict[int, Float64[np.ndarray, " resamples"]]:
    """Measure a claim on resamples of a seed's test rows; nothing where none of its facts has any."""
    known = {need: evidence.resampled[need][seed] for need in facts if seed in evidence.resampled.get(need, {})}
    if not known:
        return {}
    draws = [
        _measure(claim, {**facts, **{need: drawn[index] for need, drawn in known.items()}})
        for index in range(min(map(len, known.values())))
    ]
    return {seed: np.array(draws)}


def _measure(claim: Claim, facts: Facts) -> float:
    try:
        return float(claim.value(facts))
    except (Undefined, KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan


_WORDS = {
    "run": "run of {}",
    "start": "tracked run of {}",
    "ft_ratio": "kernel where {} starts",
    "kernel": "kernel where {} starts",
    "probe": "recorded linear probe",
    "head_scale": "runs of {} from heads of many norms",
    "calibration": "calibration of {}",
    "lora_scaling": "experiment on the kernel of LoRA",
}


def describe_need(need: Need) -> str:
    """Say what a claim needs, for people."""
    fact, method = need
    return _WORDS[fact].format(method)
