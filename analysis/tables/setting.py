"""What was different here from the paper's set-up, read from the suite that was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from analysis.suite.definitions import DataSettings, suite_of
from analysis.suite.results import Results
from ntk_lpft.tasks.registry import PAPER_TASKS

_PAPER = suite_of("paper")
_COMPARED = ("finetune", "kernel", "calibration")  # what the paper reports over seeds
_TRAINED = ("finetune", "calibration", "features", "probe")
_PROBED = ("finetune", "kernel", "calibration", "features", "head_scale")  # of which some start from an LP head


def describe_setting(results: Results, kinds: Iterable[str], datasets: Iterable[str]) -> str:
    """Say in one line how the runs behind a table differ from the paper's.

    Args:
        results: The results.
        kinds: Kinds of jobs that the table is made of.
        datasets: The data sets that it shows.

    Returns:
        Model, rows, epochs, kernel rows and seeds, as far as they differ; and where the code published with the paper
        differs from what the paper says and is done here, or stands beside the paper's numbers.
    """
    settings: Mapping[str, Any] = results.suite.get("settings", {})
    wanted, shown = set(kinds), list(datasets)
    parts = []
    model = PurePosixPath(str(settings.get("model", "unknown"))).name
    if model != _PAPER.model:
        parts.append(f"model {model} (paper: {_PAPER.model})")
    for dataset in shown:
        words = _of_dataset(settings.get("datasets", {}).get(dataset, {}), _PAPER.datasets.get(dataset), wanted)
        if words:
            parts.append(f"{dataset}: {', '.join(words)}")
    if wanted & set(_COMPARED):
        parts += _seeds(results, wanted)
    said = f"Set-up: {'; '.join(parts)}." if parts else "Set-up as in the paper."
    other = _published_code(shown, wanted)
    return f"{said} The published code: {'; '.join(other)}." if other else said


def _published_code(datasets: Iterable[str], kinds: set[str]) -> list[str]:
    """Say where the published code is another than its paper says, of the paper's data sets."""
    tasks = {name: PAPER_TASKS[name] for name in datasets if name in PAPER_TASKS}
    words = []
    if "kernel" in kinds and tasks:
        words.append(
            "its kernel script leaves α of LoRA at 16, a scaling of 2 and F four times as large, where the paper and "
            "the kernels here have 8"
        )
    if "mrpc" in tasks and kinds & set(_TRAINED):
        words.append("its LoRA script of MRPC has learning rate 1e-5, where table 6 has 5e-4, as here")
    scored = [name for name, task in tasks.items() if task.metric == "matthews"]
    if scored and kinds & set(_TRAINED):
        words.append(f"the best epoch of {', '.join(scored)} is that of accuracy, here of Matthews correlation")
    if kinds & set(_PROBED) and any(len(task.label_names) == 2 for task in tasks.values()):
        words.append(
            "its LP heads of two classes are half their optimum (--lp-solver logistic-published), those here are not "
            "halved"
        )
    return words


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
