"""How far LP heads depend on the shuffle of their cross-validation's folds, for the notes of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from analysis.suite.results import Entry, Results
from ntk_lpft.errors import InputError

# Where the probe of a table's numbers is told: their own jobs, or those of the runs that they are measured on.
_TOLD_BY = {"kernel": "kernel", "finetune": "finetune", "calibration": "finetune", "features": "finetune"}


def describe_folds(results: Results, kinds: Iterable[str], datasets: Iterable[str]) -> str:
    """Say what other shuffles of the folds led to, of each data set.

    Args:
        results: The results.
        kinds: Kinds of jobs that the table is made of.
        datasets: The data sets that it shows.

    Returns:
        A sentence; nothing where no job has an LP head with more than one shuffle.
    """
    told_by = {_TOLD_BY[kind] for kind in kinds if kind in _TOLD_BY}
    parts = []
    for dataset in datasets:
        norms = _norms(entry for entry in results.usable if entry.job.dataset == dataset and entry.job.kind in told_by)
        if len(norms) > 1:
            values = list(norms.values())
            few = sorted({f"{value:.3g}" for value in values}, key=float)
            words = " or ".join(few) if len(few) < 3 else f"{few[0]} to {few[-1]}"
            parts.append(f"{words} over {len(values)} shuffles ({dataset})")
    if not parts:
        return ""
    return (
        f"LP heads depend on the shuffle of their cross-validation's folds, made by the seed: ‖V‖ {', '.join(parts)}."
    )


def _norms(entries: Iterable[Entry]) -> dict[Any, float]:
    """Return ‖V‖ of each shuffle, and of each set of rows that it was made of."""
    norms: dict[Any, float] = {}
    for entry in entries:
        probe = _probe(entry)
        # Runs of several seeds may draw other rows; the optimum for one strength then differs as well.
        rows = None if entry.job.kind == "kernel" or "--n-train" not in entry.job.arguments else entry.job.seed
        for draw in (probe or {}).get("fold_draws", []):
            norms[entry.job.kind, rows, draw["fold_seed"]] = float(draw["head_norm"])
    return norms


def _probe(entry: Entry) -> Mapping[str, Any] | None:
    """Read what a job tells of its probe; nothing where it has none, or cannot be read, which its table notes."""
    try:
        return (entry.run.summary() if entry.job.kind == "kernel" else entry.run.metrics()).get("probe")
    except InputError:
        return None
