"""Two methods that are equally accurate on the population of samples, tested on the same few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.claims import Claim, Evidence, Verdict, check
from analysis.claims.claim import Range

RESAMPLES = 200
GAP = Claim(
    "gap",
    "method a is at least as accurate as method b",
    "accuracy of a − accuracy of b ≥ 0",
    (("run", "a"), ("run", "b")),
    lambda facts: facts["run", "a"] - facts["run", "b"],
    Range(low=0.0),
)


@dataclass(frozen=True)
class Population:
    """What samples and seeds are drawn from: a sample is classified rightly where a sum of effects is positive.

    Attributes:
        sample: Deviation of the sample's own effect, which both methods share.
        method: Deviation of the effect of a method on a sample, which its seeds share.
        seed: Deviation of a seed's effect on all samples.
        both: Deviation of a seed's effect on one sample.
        easy: What all sums begin with.
    """

    sample: float = 1.0
    method: float = 1.0
    seed: float = 0.02
    both: float = 0.2
    easy: float = 0.8

    def draw(self, rng: np.random.Generator, seeds: int, rows: int) -> np.ndarray:
        """Whether each sample is right, by method, seed and sample; methods are equal on the whole population."""
        sums = self.easy + self.sample * rng.normal(size=rows)
        sums = sums + self.method * rng.normal(size=(2, 1, rows)) + self.seed * rng.normal(size=(2, seeds, 1))
        return sums + self.both * rng.normal(size=(2, seeds, rows)) > 0


def judge(
    population: Population, rng: np.random.Generator, seeds: int, rows: int, *, resample: bool, redraw: bool = False
) -> Verdict:
    """Test the claim on one draw of everything; with ``redraw``, each seed has test samples of its own."""
    if redraw:
        right = np.concatenate([population.draw(rng, 1, rows) for _ in range(seeds)], axis=1)
    else:
        right = population.draw(rng, seeds, rows)
    accuracies = right.mean(axis=2)
    facts = {("run", name): dict(enumerate(accuracies[k])) for k, name in enumerate("ab")}
    resampled: Mapping = {}
    if resample:
        drawn = [rng.integers(0, rows, (RESAMPLES, rows))] * seeds
        if redraw:
            drawn = [rng.integers(0, rows, (RESAMPLES, rows)) for _ in range(seeds)]
        resampled = {
            ("run", name): {seed: right[k, seed][drawn[seed]].mean(axis=1) for seed in range(seeds)}
            for k, name in enumerate("ab")
        }
    return check(GAP, Evidence("simulated", facts, resampled=resampled))


def share_told_apart(
    draws: int, seeds: int, rows: int, *, resample: bool, redraw: bool = False, population: Population = Population()
) -> float:
    """How often an interval does not hold 0, where the truth is 0."""
    rng = np.random.default_rng(seeds * 10_000 + rows)
    apart = 0
    for _ in range(draws):
        low, high = judge(population, rng, seeds, rows, resample=resample, redraw=redraw).interval
        apart += not low <= 0 <= high
    return apart / draws
