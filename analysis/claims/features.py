"""Claims about the change of features (the paper's tables 1, 11 and 12, figures 3, 10 and 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scipy import stats

from analysis.claims.claim import Claim, Facts, Range, Undefined

STRONG = -0.6
_TEST = "test"
_OOD = "ood."


def _split(metrics: Mapping[str, Any], name: str) -> Mapping[str, float]:
    if name not in metrics["splits"]:
        raise Undefined("there is no test split")
    return metrics["splits"][name]


def _difference_ratio(after_lp: str, alone: str) -> Callable[[Facts], float]:
    def value(facts: Facts) -> float:
        changes = [_split(facts["run", method], _TEST)["feature_difference"] for method in (after_lp, alone)]
        return changes[0] / changes[1]

    return value


def _ood_difference_ratio(facts: Facts) -> float:
    """Take the largest ratio over the OOD tests."""
    both = [facts["run", method]["splits"] for method in ("lp-ft", "ft")]
    names = [name for name in both[0] if name.startswith(_OOD)]
    if not names:
        raise Undefined("there is no OOD test")
    return max(both[0][name]["feature_difference"] / both[1][name]["feature_difference"] for name in names)


def _similarity_ratio(after_lp: str, alone: str) -> Callable[[Facts], float]:
    def value(facts: Facts) -> float:
        # LP does not change the features: its CS is the pretrained one.
        before, after, other = (
            _split(facts["run", method], _TEST)["cosine_similarity"] for method in ("lp", after_lp, alone)
        )
        return abs(after - before) / abs(other - before)

    return value


def _norm_against_difference(facts: Facts) -> float:
    grid = facts["head_scale", "lp-ft"]
    test = grid[grid["split"] == _TEST]
    if len(test) < 3:
        raise Undefined("fewer than three heads were tried")
    changes = test["feature_difference"]
    if changes.isna().any() or changes.nunique() < 2:
        raise Undefined("the features did not change, or training diverged")
    return float(stats.spearmanr(test["norm_at_start"], changes).statistic)


CLAIMS: Sequence[Claim] = (
    Claim(
        "difference",
        "LP-FT changes the features less than FT",
        "Diff of LP-FT / Diff of FT on test samples < 1",
        (("run", "lp-ft"), ("run", "ft")),
        _difference_ratio("lp-ft", "ft"),
        Range(high=1),
        "ratio",
    ),
    Claim(
        "difference-lora",
        "LP-LoRA changes the features less than LoRA",
        "Diff of LP-LoRA / Diff of LoRA on test samples < 1",
        (("run", "lp-lora"), ("run", "lora")),
        _difference_ratio("lp-lora", "lora"),
        Range(high=1),
        "ratio",
    ),
    Claim(
        "difference-ood",
        "LP-FT changes the features less than FT on OOD samples, too",
        "largest Diff of LP-FT / Diff of FT over the OOD tests < 1",
        (("run", "lp-ft"), ("run", "ft")),
        _ood_difference_ratio,
        Range(high=1),
        "ratio",
    ),
    Claim(
        "similarity",
        "After LP-FT, the similarity between features is closer to the pretrained model's than after FT",
        "change of CS by LP-FT / by FT on test samples < 1",
        (("run", "lp-ft"), ("run", "ft"), ("run", "lp")),
        _similarity_ratio("lp-ft", "ft"),
        Range(high=1),
        "ratio",
    ),
    Claim(
        "similarity-lora",
        "After LP-LoRA, the similarity between features is closer to the pretrained model's than after LoRA",
        "change of CS by LP-LoRA / by LoRA on test samples < 1",
        (("run", "lp-lora"), ("run", "lora"), ("run", "lp")),
        _similarity_ratio("lp-lora", "lora"),
        Range(high=1),
        "ratio",
    ),
    Claim(
        "norm-against-difference",
        "The larger the head norm at the start of LP-FT, the less the features change",
        f"Spearman's ρ of ‖V‖ and Diff on test samples, over factors on the head, ≤ {STRONG:g}".replace("-", "−"),
        (("head_scale", "lp-ft"),),
        _norm_against_difference,
        Range(high=STRONG, closed=True),
        bounds=(-1, 1),
    ),
)
