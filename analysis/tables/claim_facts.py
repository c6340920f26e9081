"""What a results folder says of each data set, as claims read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims import Evidence
from analysis.claims.claim import Need
from analysis.claims.kernels import KernelFacts
from analysis.claims.runs import start_measures
from analysis.suite.results import Entry, Results
from analysis.tables.calibration import read_calibration
from analysis.tables.collect import Collected, Problems, collect
from analysis.tables.experiments import read_lora_scaling
from analysis.tables.kernel import read_statistics
from analysis.tables.runs import Metrics, read_metrics
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition

# Kinds of jobs that claims are tested on.
KINDS = ("finetune", "probe", "head_scale", "kernel", "calibration", "lora_scaling")


def gather(results: Results, problems: Problems) -> list[Evidence]:
    """Read all that claims are tested on.

    Args:
        results: The results.
        problems: Where to note jobs that are missing or broken.

    Returns:
        One for each data set, in the suite's order.
    """
    runs = collect(results, "finetune", read_metrics, problems)
    sources: list[tuple[str, Collected[Any]]] = [
        ("run", runs),
        ("start", collect(results, "finetune", lambda entry: start_measures(entry.run), problems)),
        ("kernel", collect(results, "kernel", lambda entry: _read_kernel(entry, runs), problems)),
        ("probe", collect(results, "probe", _read_probe, problems)),
        ("calibration", collect(results, "calibration", read_calibration, problems)),
        ("head_scale", collect(results, "head_scale", _read_grid, problems)),
        ("lora_scaling", collect(results, "lora_scaling", read_lora_scaling, problems)),
    ]
    return [_of_dataset(dataset, sources) for dataset in results.datasets]


def _of_dataset(dataset: str, sources: Sequence[tuple[str, Collected[Any]]]) -> Evidence:
    facts: dict[Need, dict[int, Any]] = {}
    asked: dict[Need, frozenset[int]] = {}
    for fact, collected in sources:
        for place, method in collected.entries:
            if place == dataset:
                asked[fact, method] = collected.asked(dataset, method)
                facts[fact, method] = dict(collected.contents.get((dataset, method), {}))
    _add_ft_ratios(facts, asked)
    return Evidence(dataset, facts, asked)


def _add_ft_ratios(facts: dict[Need, dict[int, Any]], asked: dict[Need, frozenset[int]]) -> None:
    """Take the FT ratio from kernels, and where a method has none from what its runs tracked."""
    for fact, method in list(facts):
        if fact == "kernel":
            kernels: Mapping[int, KernelFacts] = facts[fact, method]
            facts["ft_ratio", method] = {seed: kernel.statistics["F"]["ft_ratio"] for seed, kernel in kernels.items()}
            asked["ft_ratio", method] = asked[fact, method]
    for fact, method in list(facts):
        if fact == "start" and ("ft_ratio", method) not in facts:
            ratios = {seed: start["ft_ratio"] for seed, start in facts[fact, method].items() if "ft_ratio" in start}
            if ratios:
                facts["ft_ratio", method] = ratios
                asked["ft_ratio", method] = asked[fact, method]


def _read_kernel(entry: Entry, runs: Collected[Metrics]) -> KernelFacts:
    statistics, summary = read_statistics(entry), entry.run.summary()
    tolerance = float(statistics["P"]["rank_tolerance"])
    return KernelFacts(
        statistics, int(summary["num_labels"]), _feature_rank(entry, tolerance), _head_norm(entry, summary, runs)
    )


def _feature_rank(entry: Entry, tolerance: float) -> int | None:
    """Count the eigenvalues of k = ΦΦᵀ + 1 above the tolerance that ranks were counted with."""
    if not entry.run.file(entry.run.KERNEL).is_file():
        return None
    square = NTKDecomposition.load(entry.run.path, "train").feature_kernel.double().numpy()
    return int((np.abs(np.linalg.eigvalsh(square)) > tolerance).sum())


def _head_norm(entry: Entry, summary: Mapping[str, Any], runs: Collected[Metrics]) -> float | None:
    """Find ‖V‖ of a kernel's head: as it was stored, or that of the run which starts from the same head.

    A new head is drawn from the seed alone; an LP head is fitted on all training rows, so that runs on rows drawn from
    them start from another.
    """
    if summary.get("head_norm") is not None:
        return float(summary["head_norm"])
    job = entry.job
    head = runs.contents.get((job.dataset, job.method), {}).get(job.seed, {}).get("head", {})
    if not job.method.startswith("lp-"):
        return head.get("norm_before")
    run = runs.entries.get((job.dataset, job.method), {}).get(job.seed)
    drawn = run is None or "--n-train" in run.job.arguments
    return None if drawn else head.get("norm_after_lp")


def _read_grid(entry: Entry) -> pd.DataFrame:
    return entry.run.grid()


def _read_probe(entry: Entry) -> pd.DataFrame:
    """Read a probe's iterations.

    Raises:
        InputError: There are none, or the log is damaged.
    """
    path = entry.run.probe_path()
    if path is None:
        raise InputError("it recorded no iterations")
    return path
