"""Claims about P and F (the paper's tables 2 and 9 and its propositions on F and on LoRA)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims.claim import Claim, Facts, Range, Undefined

NEAR_ONE = 0.9
SMALL = 0.5
VERY_SMALL = 0.1
MAGNITUDE = 10.0
SLOPES = (-0.75, -0.25)


@dataclass(frozen=True)
class KernelFacts:
    """What claims use of the kernel where a method starts.

    Attributes:
        statistics: Rows of the table of statistics, by kernel: ``P``, ``F``, ``P+F``.
        head_norm: ‖V‖ of the head; None where it is not known.
    """

    statistics: Mapping[str, Mapping[str, Any]]
    head_norm: float | None


def _ft_ratio(method: str) -> Callable[[Facts], float]:
    return lambda facts: facts["ft_ratio", method]


def _residual_ratio(facts: Facts) -> float:
    residuals = [facts["start", method].get("residual_norm") for method in ("lp-ft", "ft")]
    if None in residuals:
        raise Undefined("the residual was not tracked")
    return residuals[0] / residuals[1]


def _scaling_of_f(facts: Facts) -> float:
    after, before = facts["kernel", "lp-ft"], facts["kernel", "ft"]
    if after.head_norm is None or before.head_norm is None:
        raise Undefined("the head norm of its kernels is not known")
    norms = [kernel.statistics["F"]["frobenius_norm"] for kernel in (after, before)]
    return (norms[0] / norms[1]) / (after.head_norm / before.head_norm) ** 2


def _lora_slope(facts: Facts) -> float:
    """Slope of log error against log r, by least squares."""
    ranks, errors = facts["lora_scaling", "lp-lora"]
    if len(ranks) < 2:
        raise Undefined("fewer than two ranks were tried")
    return float(np.polyfit(np.log(ranks), np.log(errors), 1)[0])


CLAIMS: Sequence[Claim] = (
    Claim(
        "ft-ratio-lp-ft",
        "F dominates the first step of LP-FT",
        f"FT ratio > {NEAR_ONE:g}",
        (("ft_ratio", "lp-ft"),),
        _ft_ratio("lp-ft"),
        Range(low=NEAR_ONE),
        bounds=(0, math.inf),
    ),
    Claim(
        "ft-ratio-ft",
        "P dominates the first step of FT",
        f"FT ratio < {SMALL:g}",
        (("ft_ratio", "ft"),),
        _ft_ratio("ft"),
        Range(high=SMALL),
        bounds=(0, math.inf),
    ),
    Claim(
        "ft-ratio-lora",
        "F has next to no part in the first step of LoRA",
        f"FT ratio < {VERY_SMALL:g}",
        (("ft_ratio", "lora"),),
        _ft_ratio("lora"),
        Range(high=VERY_SMALL),
        bounds=(0, math.inf),
    ),
    Claim(
        "residual",
        "The residual δ is smaller at the start of LP-FT than at the start of FT",
        "mean ‖δ‖ at the start of LP-FT / of FT < 1, on tracked training samples",
        (("start", "lp-ft"), ("start", "ft")),
        _residual_ratio,
        Range(high=1),
        "ratio",
    ),
    Claim(
        "scaling-of-f",
        "F grows with the square of the head norm, roughly where the heads differ in more than norm",
        f"(‖F‖ of LP-FT / ‖F‖ of FT) / (ratio of ‖V‖)², within a factor {MAGNITUDE:g} of 1",
        (("kernel", "lp-ft"), ("kernel", "ft")),
        _scaling_of_f,
        Range(1 / MAGNITUDE, MAGNITUDE),
        "ratio",
    ),
    Claim(
        "lora-scaling",
        "F of LoRA, rescaled, approaches F of the adapted weights like r^−½",
        f"slope of log relative error against log r between {SLOPES[0]:g} and {SLOPES[1]:g}".replace("-", "−"),
        (("lora_scaling", "lp-lora"),),
        _lora_slope,
        Range(*SLOPES),
    ),
)
