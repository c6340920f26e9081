"""Claims about calibration and accuracy (the paper's tables 3, 8, 10 and 14 to 16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analysis.claims.claim import Claim, Facts, Need, Range, Undefined

TRAINED = ("ft", "lp-ft", "lora", "lp-lora")
_CALIBRATIONS: Sequence[Need] = tuple(("calibration", method) for method in TRAINED)


def _drop(facts: Facts, method: str) -> float:
    errors = facts["calibration", method]
    return errors["ece_pct"] - errors["ece_scaled_pct"]


def _mean_drop(facts: Facts) -> float:
    return float(np.mean([_drop(facts, method) for method in TRAINED]))


def _drop_above_others(facts: Facts) -> float:
    return _drop(facts, "lp-ft") - max(_drop(facts, method) for method in TRAINED if method != "lp-ft")


def _score_gap(better: str, worse: str) -> Callable[[Facts], float]:
    def value(facts: Facts) -> float:
        runs = [facts["run", method] for method in (better, worse)]
        scores = [run["splits"]["test"][run.get("metric", "accuracy")] for run in runs]
        return 100 * (scores[0] - scores[1])

    return value


def _ood_gap(better: str, worse: str) -> Callable[[Facts], float]:
    def value(facts: Facts) -> float:
        both = [facts["run", method]["splits"] for method in (better, worse)]
        names = [name for name in both[0] if name.startswith("ood.")]
        if not names:
            raise Undefined("there is no OOD test")
        return 100 * float(np.mean([both[0][name]["accuracy"] - both[1][name]["accuracy"] for name in names]))

    return value


# Differences of shares of one test are exact up to rounding.
_AT_LEAST = Range(low=-1e-9, closed=True)


def _scores(name: str, better: str, worse: str, words: tuple[str, str], *, ood: bool) -> Claim:
    where = "mean over the OOD tests" if ood else "test split"
    return Claim(
        name,
        f"{words[0]} is at least as accurate as {words[1]}{' on OOD tests' if ood else ''}",
        f"score of {words[0]} − score of {words[1]}, in points, {where}, ≥ 0",
        (("run", better), ("run", worse)),
        (_ood_gap if ood else _score_gap)(better, worse),
        _AT_LEAST,
    )


CLAIMS: Sequence[Claim] = (
    Claim(
        "temperature",
        "Temperature scaling lowers the calibration error",
        "ECE before − after, in points, mean over FT, LP-FT, LoRA and LP-LoRA, > 0",
        _CALIBRATIONS,
        _mean_drop,
        Range(low=0),
    ),
    Claim(
        "temperature-lp-ft",
        "Temperature scaling lowers the calibration error of LP-FT",
        "ECE before − after, in points, > 0",
        (("calibration", "lp-ft"),),
        lambda facts: _drop(facts, "lp-ft"),
        Range(low=0),
    ),
    Claim(
        "temperature-most",
        "Temperature scaling helps LP-FT most",
        "drop of ECE of LP-FT − largest drop of the others, in points, > 0",
        _CALIBRATIONS,
        _drop_above_others,
        Range(low=0),
    ),
    _scores("accuracy-lp-ft", "lp-ft", "ft", ("LP-FT", "FT"), ood=False),
    _scores("accuracy-ft", "ft", "lp", ("FT", "LP"), ood=False),
    _scores("ood-accuracy-lp-ft", "lp-ft", "ft", ("LP-FT", "FT"), ood=True),
    _scores("ood-accuracy-ft", "ft", "lp", ("FT", "LP"), ood=True),
)
