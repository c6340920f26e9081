"""What a results folder says of each data set, as claims read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.claims import Evidence
from analysis.claims.claim import Need
from analysis.claims.kernels import KernelFacts
from analysis.claims.resampling import resampled_errors, resampled_metrics
from analysis.claims.runs import start_measures
from analysis.suite.results import Entry, Results
from analysis.tables.calibration import read_calibration
from analysis.tables.collect import Collected, Problems, collect
from analysis.tables.experiments import read_lora_scaling
from analysis.tables.kernel import read_statistics
from analysis.tables.runs import TEST, Metrics, read_metrics
from ntk_lpft.errors import InputError

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
    resampled: list[tuple[str, Collected[Any]]] = [
        (
            "run",
            collect(results, "finetune", lambda entry: resampled_metrics(entry.run, read_metrics(entry)), problems),
        ),
        ("calibration", collect(results, "calibration", lambda entry: _resampled_errors(entry, runs), problems)),
    ]
    return [_of_dataset(dataset, sources, resampled) for dataset in results.datasets]


def _of_dataset(
    dataset: str, sources: Sequence[tuple[str, Collected[Any]]], resampled: Sequence[tuple[str, Collected[Any]]]
) -> Evidence:
    facts: dict[Need, dict[int, Any]] = {}
    asked: dict[Need, frozenset[int]] = {}
    for fact, collected in sources:
        for place, method in collected.entries:
            if place == dataset:
                asked[fact, method] = collected.asked(dataset, method)
                facts[fact, method] = dict(collected.contents.get((dataset, method), {}))
    _add_ft_ratios(facts, asked)
    drawn: dict[Need, dict[int, Any]] = {}
    for fact, collected in resampled:
        for (place, method), seeds in collected.contents.items():
            if place == dataset:
                drawn[fact, method] = {seed: content for seed, content in seeds.items() if content}
    return Evidence(dataset, facts, asked, drawn)


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
    return KernelFacts(read_statistics(entry), _head_norm(entry, entry.run.summary(), runs))


def _resampled_errors(entry: Entry, runs: Collected[Metrics]) -> Sequence[Mapping[str, float]]:
    """Measure what is calibrated on resamples of its test rows; nothing without its run, or the run's logits."""
    job = entry.job
    run = runs.entries.get((job.dataset, job.method), {}).get(job.seed)
    if run is None or job.seed not in runs.contents.get((job.dataset, job.method), {}):
        return []
    if not entry.run.file(entry.run.TEMPERATURE).is_file():
        return []
    return resampled_errors(run.run, TEST, entry.run.temperature())


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
