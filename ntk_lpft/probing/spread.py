"""How far a linear probe depends on chance: on the seed that shuffles samples into folds, and so chooses C."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ntk_lpft.probing.logistic import LogisticHead


@dataclass(frozen=True)
class FoldDraw:
    """What one shuffle of the folds led to.

    Attributes:
        fold_seed: What shuffled the samples.
        strength: The C that was chosen.
        head_norm: ‖V‖_F.
        train_accuracy: Accuracy on the samples that the head was fitted on.
    """

    fold_seed: int
    strength: float
    head_norm: float
    train_accuracy: float


@dataclass(frozen=True)
class FoldSpread:
    """What several shuffles led to, the run's own first.

    Attributes:
        draws: One for each seed.
    """

    draws: tuple[FoldDraw, ...]

    @classmethod
    def of(cls, heads: Sequence[LogisticHead]) -> FoldSpread:
        """Collect what the heads of several seeds have in common to tell."""
        return cls(
            tuple(FoldDraw(head.fold_seed, head.strength, head.head_norm, head.train_accuracy) for head in heads)
        )

    def facts(self) -> list[dict[str, Any]]:
        """Return the draws as plain data."""
        return [asdict(draw) for draw in self.draws]

    def __str__(self) -> str:
        """Say in one line which C were chosen how often, and how far apart norms and accuracies are."""
        return describe_spread(self.facts())


def describe_spread(draws: Sequence[dict[str, Any]]) -> str:
    """Say in one line what several shuffles of the folds led to.

    Args:
        draws: ``FoldSpread.facts``.

    Returns:
        Which C were chosen how often, and the least and largest norm and accuracy.
    """
    if len(draws) == 1:
        return "1 shuffle of the folds; more tell how far C and ‖V‖ depend on it"
    chosen = Counter(draw["strength"] for draw in draws)
    counts = ", ".join(f"C = {strength:.3g} ({count}×)" for strength, count in sorted(chosen.items()))
    norms = _range([draw["head_norm"] for draw in draws], "{:.3f}")
    accuracies = _range([draw["train_accuracy"] for draw in draws], "{:.3f}")
    return f"{len(draws)} shuffles of the folds: {counts}; ‖V‖ {norms}, training accuracy {accuracies}"


def _range(values: Sequence[float], form: str) -> str:
    least, largest = (form.format(value) for value in (min(values), max(values)))
    return least if least == largest else f"{least} to {largest}"
