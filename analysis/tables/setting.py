"""What was different here from the paper's set-up, read from the suite that was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from analysis.suite.definitions import DataSettings, suite_of
from analysis.suite.results import Results

_PAPER = suite_of("paper")
_COMPARED = ("finetune", "kernel", "calibration")  # what the paper reports over seeds
_TRAINED = ("finetune", "calibration", "features", "probe")


def describe_setting(results: Results, kinds: Iterable[str], datasets: Iterable[str]) -> str:
    """Say in one line how the runs behind a table differ from the paper's.

    Args:
        results: The results.
        kinds: Kinds of jobs that the table is made of.
        datasets: The data sets that it shows.

    Returns:
        Model, rows, epochs, kernel rows and seeds, as far as they differ.
    """
    settings: Mapping[str, Any] = results.suite.get("settings", {})
    wanted = set(kinds)
    parts = []
    model = PurePosixPath(str(settings.get("model", "unknown"))).name
    if model != _PAPER.model:
        parts.append(f"model {model} (paper: {_PAPER.model})")
    for dataset in datasets:
        words = _of_dataset(settings.get("datasets", {}).get(dataset, {}), _PAPER.datasets.get(dataset), wanted)
        if words:
            parts.append(f"{dataset}: {', '.join(words)}")
    if wanted & set(_COMPARED):
        parts += _seeds(results, wanted)
    return f"Set-up: {'; '.join(parts)}." if parts else "Set-up as in the paper."


def _seeds(results: Results, wanted: set[str]) -> list[str]:
    seeds = sorted({entry.job.seed for entry in results.entries if entry.job.kind in wanted})
    if len(seeds) == len(_PAPER.seeds):
        return []
    return [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} (paper: {len(_PAPER.seeds)} seeds)"]


def _of_dataset(use: Mapping[str, Any], paper: DataSettings | None, kinds: set[str]) -> list[str]:
    words = [] if paper else ["not in the paper"]
    reference = paper or DataSettings()
    if kinds & set(_TRAINED):
        words += _rows(use.get("rows"), paper)
        words += _epochs(use.get("epochs"), reference.epochs)
    if "kernel" in kinds:
        words += _kernel_rows(use, reference)
    if "head_scale" in kinds:
        scaled = [*_rows(use.get("scale_rows"), paper), *_epochs(use.get("scale_epochs"), reference.scale_epochs)]
        words += [f"in the head-norm experiment {' and '.join(scaled)}"] if scaled else []
    return words


def _rows(rows: Sequence[int] | None, paper: DataSettings | None) -> list[str]:
    there = " (paper: all)" if paper else ""
    return [] if rows is None else [f"{rows[0]} training and {rows[1]} other rows drawn{there}"]


def _epochs(here: float | None, paper: float) -> list[str]:
    if here is None or here == paper:
        return []
    return [f"{here:g} epoch{'' if here == 1 else 's'} (paper: {paper:g})"]


def _kernel_rows(use: Mapping[str, Any], paper: DataSettings) -> list[str]:
    rows = tuple(use.get("kernel_rows") or paper.kernel_rows)
    if rows == paper.kernel_rows:
        return []
    return [f"kernels of {rows[0]} training and {rows[1]} test rows (paper: at most {paper.kernel_rows[0]} and "
            f"{paper.kernel_rows[1]})"]  # fmt: skip
