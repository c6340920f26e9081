"""A claim of the paper, what is measured of it, and when it counts as true."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import stats

LEVEL = 0.95  # of intervals
FEWEST = 3  # seeds for an interval; from two, it would say next to nothing
CROSSES = "the interval crosses the threshold"

# What is read of a run, or of a kernel: which fact, and of which method.
Need = tuple[str, str]
Facts = Mapping[Need, Any]  # of one seed


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
        true: Whether the claim is true of a seed, from its statistic.
        scale: Whether statistics are averaged as they are, or, being ratios, by their logarithms.
        bounds: The least and the greatest value that the statistic can have.
    """

    name: str
    says: str
    statistic: str
    needs: Sequence[Need]
    value: Callable[[Facts], float]
    true: Callable[[float], bool]
    scale: Literal["difference", "ratio"] = "difference"
    bounds: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True)
class Evidence:
    """What is known of one data set.

    Attributes:
        dataset: Its name.
        facts: Fact and method, then seed.
        asked: Seeds that were asked for, of each fact and method; where it says nothing, those that there are.
    """

    dataset: str
    facts: Mapping[Need, Mapping[int, Any]]
    asked: Mapping[Need, frozenset[int]] = field(default_factory=dict)

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
    """

    claim: Claim
    dataset: str
    values: Mapping[int, float]
    asked: frozenset[int] = frozenset()
    reason: str = ""

    @property
    def holds(self) -> Mapping[int, bool]:
        """Whether the claim is true of each seed."""
        return {seed: bool(self.claim.true(value)) for seed, value in self.values.items()}

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
        return self._back(float(np.mean(self._scaled())))

    @property
    def interval(self) -> tuple[float, float]:
        """Student's t interval of the mean over seeds; NaN for fewer than three, and where a ratio is 0 or infinite.

        Seeds are paired: where two methods are compared, the statistic is that of runs of one seed.
        """
        values = self._scaled()
        if len(values) < FEWEST or not np.isfinite(values).all():
            return math.nan, math.nan
        middle = float(np.mean(values))
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
        least, most = self.claim.bounds
        return max(least, self._back(middle - half)), min(most, self._back(middle + half))

    @property
    def undecided(self) -> bool:
        """Whether the claim is true at one end of the interval and not at the other."""
        low, high = self.interval
        return not math.isnan(low) and self.claim.true(low) != self.claim.true(high)

    @property
    def remark(self) -> str:
        """What belongs beside the verdict: that the interval leaves it open, and why seeds are missing."""
        return "; ".join(part for part in (CROSSES if self.undecided else "", self.reason) if part)

    def _scaled(self) -> list[float]:
        values = list(self.values.values())
        if self.claim.scale == "difference":
            return values
        return [math.log(value) if value > 0 else -math.inf for value in values]

    def _back(self, value: float) -> float:
        return value if self.claim.scale == "difference" else math.exp(value)


def check(claim: Claim, evidence: Evidence) -> Verdict:
    """Measure a claim on the seeds that have all it needs."""
    seeds = frozenset.intersection(*(evidence.asked_of(need) for need in claim.needs))
    values: dict[int, float] = {}
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
    if not seeds:
        absent = [need for need in claim.needs if not evidence.asked_of(need)]
        reasons.append(f"no {describe_need(absent[0])}" if absent else "no seed has all that it needs")
    return Verdict(claim, evidence.dataset, values, seeds, "; ".join(dict.fromkeys(reasons)))


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
