"""Claims measured on the folders of fine-tuning runs, wherever they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.claims import CLAIMS
from analysis.claims.claim import Evidence, Need, Verdict, check
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.tracking_log import read_tracking

# What the folder of a run tells, with or without tracking.
RUN_FACTS = ("run", "start", "ft_ratio", "probe")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it is.
        metrics: Its ``metrics.json``.
        start: What was tracked of training samples at step 0, by measure: ``ft_ratio``, ``residual_norm``.
    """

    folder: Path
    metrics: Mapping[str, Any]
    start: Mapping[str, float]

    @property
    def key(self) -> tuple[str, int]:
        """Method and seed."""
        return self.metrics["method"], int(self.metrics["seed"])


def read_start(folder: Path) -> dict[str, float]:
    """Read what a run tracked of training samples before its first step; nothing where it was not tracked.

    Raises:
        InputError: The tracking log is damaged.
    """
    path = folder / "tracking.csv"
    if not path.is_file():
        return {}
    table = read_tracking(path)
    first = table[(table["step"] == 0) & (table["split"] == "train")].dropna(subset="value")
    names = {"kernel.ft_ratio": "ft_ratio", "residual_norm": "residual_norm"}
    found = zip(first["measure"], first["value"], strict=True)
    return {names[measure]: float(value) for measure, value in found if measure in names}


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        InputError: It holds no finished run.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no finished run (it has no metrics.json); finish it with --resume")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        run = Run(folder, metrics, read_start(folder))
        _ = run.key, metrics["model"], metrics["dataset"]
    except (ValueError, KeyError, TypeError, OSError) as problem:
        raise InputError(f"{path} is damaged, or was not written by ntk_lpft.finetune") from problem
    return run


def gather(runs: Sequence[Run]) -> Evidence:
    """Put runs of one model and data set together.

    Raises:
        InputError: Runs of several models or data sets, or two of the same method and seed.
    """
    what = {(run.metrics["model"], run.metrics["dataset"]) for run in runs}
    if len(what) > 1:
        raise InputError(f"the runs are of {len(what)} models or data sets; give those of one")
    found: dict[tuple[str, int], Run] = {}
    facts: dict[Need, dict[int, Any]] = {}
    for run in runs:
        if run.key in found:
            raise InputError(f"{run.folder} and {found[run.key].folder} have the same method and seed; give one")
        found[run.key] = run
        method, seed = run.key
        facts.setdefault(("run", method), {})[seed] = run.metrics
        if run.start:
            facts.setdefault(("start", method), {})[seed] = run.start
        if "ft_ratio" in run.start:
            facts.setdefault(("ft_ratio", method), {})[seed] = run.start["ft_ratio"]
        if method == "lp" and (run.folder / "probe.csv").is_file():
            facts.setdefault(("probe", method), {})[seed] = read_tracking(run.folder / "probe.csv")
    return Evidence(runs[0].metrics["dataset"], facts)


def check_runs(runs: Sequence[Run]) -> list[Verdict]:
    """Measure every claim that fine-tuning runs can speak of, in the paper's order.

    Raises:
        InputError: See `gather`.
    """
    evidence = gather(runs)
    return [check(claim, evidence) for claim in CLAIMS if all(need[0] in RUN_FACTS for need in claim.needs)]
