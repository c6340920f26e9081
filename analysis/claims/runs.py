"""Claims measured on the folders of fine-tuning runs, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.claims.catalogue import CLAIMS
from analysis.claims.claim import Evidence, Need, Verdict, check
from analysis.claims.resampling import resampled_metrics
from ntk_lpft.errors import InputError
from ntk_lpft.runs import FinetuneRun

# What the folder of a run tells, with or without tracking.
RUN_FACTS = ("run", "start", "ft_ratio", "probe")


def start_measures(run: FinetuneRun) -> dict[str, float]:
    """Read what a run tracked of training samples before its first step; nothing where it was not tracked.

    Returns:
        ``ft_ratio`` and ``residual_norm``, as far as there are.

    Raises:
        InputError: The tracking log is damaged.
    """
    table = run.tracking()
    if table is None:
        return {}
    first = table[(table["step"] == 0) & (table["split"] == "train")].dropna(subset="value")
    names = {"kernel.ft_ratio": "ft_ratio", "residual_norm": "residual_norm"}
    pairs = zip(first["measure"], first["value"], strict=True)
    return {names[measure]: float(value) for measure, value in pairs if measure in names}


def gather(runs: Sequence[FinetuneRun]) -> Evidence:
    """Put runs of one model and data set together.

    Args:
        runs: Folders of finished runs.

    Raises:
        InputError: A run that is not finished, runs of several models or data sets, or two of one method and seed.
    """
    metrics = [run.metrics() for run in runs]
    kinds = {(each["model"], each["dataset"]) for each in metrics}
    if len(kinds) > 1:
        raise InputError(f"the runs are of {len(kinds)} models or data sets; give those of one")
    seen: dict[tuple[str, int], FinetuneRun] = {}
    facts: dict[Need, dict[int, Any]] = {}
    resampled: dict[Need, dict[int, Any]] = {}
    for run, each in zip(runs, metrics, strict=True):
        method, seed = each["method"], each["seed"]
        if (method, seed) in seen:
            raise InputError(f"{run.path} and {seen[method, seed].path} have the same method and seed; give one")
        seen[method, seed] = run
        facts.setdefault(("run", method), {})[seed] = each
        drawn = resampled_metrics(run, each)
        if drawn:
            resampled.setdefault(("run", method), {})[seed] = drawn
        start = start_measures(run)
        if start:
            facts.setdefault(("start", method), {})[seed] = start
        if "ft_ratio" in start:
            facts.setdefault(("ft_ratio", method), {})[seed] = start["ft_ratio"]
        path = run.probe_path() if method == "lp" else None
        if path is not None:
            facts.setdefault(("probe", method), {})[seed] = path
    return Evidence(metrics[0]["dataset"], facts, resampled=resampled)


def check_runs(runs: Sequence[FinetuneRun]) -> list[Verdict]:
    """Measure every claim that fine-tuning runs can speak of, in the paper's order.

    Args:
        runs: Folders of finished runs.

    Raises:
        InputError: See `gather`.
    """
    evidence = gather(runs)
    return [check(claim, evidence) for claim in CLAIMS if all(need[0] in RUN_FACTS for need in claim.needs)]
