"""Claims about the norm of the head (the paper's figures 1 and 4, tables 1 and 13)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from analysis.claims.claim import Claim, Facts, Range, Undefined

FAR_ABOVE = 3.0
HIGH_ACCURACY = 0.9
MOSTLY = 0.95


def _after_lp_over_after_ft(facts: Facts) -> float:
    return facts["run", "lp-ft"]["head"]["norm_after_lp"] / facts["run", "ft"]["head"]["norm_after"]


def _series(probe: pd.DataFrame, split: str, measure: str) -> Float64[np.ndarray, " steps"]:
    """One measure of a probe, by iteration."""
    rows = probe[(probe["split"] == split) & (probe["measure"] == measure)].sort_values("step")
    if rows.empty:
        raise Undefined(f"the probe did not record {measure}")
    return rows["value"].to_numpy(dtype=float)


def _probe_growth(facts: Facts) -> float:
    norms = _series(facts["probe", "lp"], "all", "head_norm")
    return norms[-1] / norms[0]


def _growth_over_ft(facts: Facts) -> float:
    head = facts["run", "ft"]["head"]
    return _probe_growth(facts) / (head["norm_after"] / head["norm_before"])


def _rising(facts: Facts) -> float:
    """Share of iterations in which ‖V‖ rises, from the one on in which training accuracy is high for the first time."""
    probe = facts["probe", "lp"]
    norms, accuracies = _series(probe, "all", "head_norm"), _series(probe, "train", "accuracy")
    high = np.flatnonzero(accuracies >= HIGH_ACCURACY)
    if not len(high) or high[0] == len(norms) - 1:
        raise Undefined(f"the probe's training accuracy stays below {HIGH_ACCURACY:.0%}")
    return float(np.mean(np.diff(norms[high[0] :]) > 0))


CLAIMS: Sequence[Claim] = (
    Claim(
        "lp-norm",
        "Linear probing makes the head norm far larger than fine-tuning does",
        f"‖V‖ after LP / ‖V‖ after FT > {FAR_ABOVE:g}",
        (("run", "ft"), ("run", "lp-ft")),
        _after_lp_over_after_ft,
        Range(low=FAR_ABOVE),
        "ratio",
    ),
    Claim(
        "probe-growth",
        "The head norm grows in a linear probe by gradient descent",
        "‖V‖ at the end / at the start > 1",
        (("probe", "lp"),),
        _probe_growth,
        Range(low=1),
        "ratio",
    ),
    Claim(
        "probe-rising",
        "Once samples are on the right side, the head norm only rises in a linear probe",
        f"share of iterations in which ‖V‖ rises, once training accuracy has reached {HIGH_ACCURACY:.0%}, "
        f"≥ {MOSTLY:.0%}",
        (("probe", "lp"),),
        _rising,
        Range(low=MOSTLY, closed=True),
        bounds=(0, 1),
    ),
    Claim(
        "growth-over-ft",
        "The head norm grows more in a linear probe by gradient descent than in fine-tuning",
        "growth of ‖V‖ in the probe / in FT > 1",
        (("probe", "lp"), ("run", "ft")),
        _growth_over_ft,
        Range(low=1),
        "ratio",
    ),
)
