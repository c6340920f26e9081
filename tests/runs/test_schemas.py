"""Numbers that cannot be are refused where files of results are read."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.runs import CalibrationRun, FinetuneRun, HeadScaleGrid, KernelRun, RunFolder, TrackingLog
from ntk_lpft.runs.tracking_log import Measurement

METRICS: dict[str, Any] = {
    "method": "ft", "model": "m", "dataset": "cb", "seed": 3, "metric": "matthews", "head": {"norm_before": 1.0},
    "splits": {"test": {"rows": 2, "accuracy": 0.5, "matthews": -0.5, "loss": 0.7, "ece": None, "linear_cka": 1,
                        "cosine_similarity": 1.0000001}},
    "training": {"steps": 3},
}  # fmt: skip
SUMMARY: dict[str, Any] = {
    "statistics": [{"kernel": "P", "rank": 3, "frobenius_norm": 2.5, "condition_number": "inf", "ft_ratio": None,
                    "train_pair_accuracy": 1.0, "pair_base_rate": 0.5}],
    "num_labels": 2, "head_norm": 1.0,
}  # fmt: skip


def put(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Copy content with one value changed, or taken away where it is ``...``."""
    changed = copy.deepcopy(content)
    place: Any = changed
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


def read(folder: Path, run: type[RunFolder], name: str, content: dict[str, Any]) -> Any:
    (folder / name).write_text(json.dumps(content))
    found: Any = run(folder)
    return found.metrics() if run is FinetuneRun else found.summary()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("splits/test/accuracy", -5.0), ("splits/test/accuracy", 1.5), ("splits/test/accuracy", "0.5"),
        ("splits/test/accuracy", math.nan), ("splits/test/accuracy", True), ("splits/test/matthews", -1.5),
        ("splits/test/loss", -0.1), ("splits/test/loss", math.inf), ("splits/test/ece", 1.1),
        ("splits/test/rows", -1), ("splits/test/rows", 2.5), ("splits/test/cosine_similarity", 1.1),
        ("splits/test/linear_cka", "x"), ("splits/test/linear_cka", math.nan), ("splits/test/linear_cka", [1]),
        ("splits/test", 5), ("splits", [1, 2]), ("splits", None), ("splits", 5), ("head", []), ("head/norm_before", -1),
        ("head/norm_before", math.inf), ("head/norm_before", "1"), ("method", 5), ("method", ...), ("method", ""),
        ("model", []), ("dataset", {}), ("dataset", ...), ("seed", "3"), ("seed", [1]), ("seed", -1), ("seed", 2**40),
        ("seed", True), ("metric", "f1"),
    ],
)  # fmt: skip
def test_impossible_metrics(tmp_path: Path, path: str, value: Any) -> None:
    assert read(tmp_path, FinetuneRun, "metrics.json", METRICS) == METRICS
    with pytest.raises(InputError, match=r"metrics\.json is damaged: ") as caught:
        read(tmp_path, FinetuneRun, "metrics.json", put(METRICS, path, value))
    assert path.replace("/", ".") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("statistics", 5), ("statistics/0", []), ("statistics/0/kernel", 3),
        ("statistics/0/rank", -1), ("statistics/0/rank", 1.5), ("statistics/0/frobenius_norm", -2.0),
        ("statistics/0/frobenius_norm", "x"), ("statistics/0/pair_base_rate", "x"),
        ("statistics/0/pair_base_rate", [1]), ("statistics/0/pair_base_rate", 2.0),
        ("statistics/0/train_pair_accuracy", -5.0), ("statistics/0/ft_ratio", -1.0),
        ("statistics/0/ft_ratio", math.nan), ("num_labels", 0), ("num_labels", "2"), ("head_norm", -1.0),
    ],
)  # fmt: skip
def test_impossible_summaries(tmp_path: Path, path: str, value: Any) -> None:
    assert read(tmp_path, KernelRun, "summary.json", SUMMARY) == SUMMARY
    with pytest.raises(InputError, match=r"summary\.json is damaged: "):
        read(tmp_path, KernelRun, "summary.json", put(SUMMARY, path, value))


@pytest.mark.parametrize("content", [{"options": 3}, {"data": [1]}, {"data": {"train": 3}}, {"label_names": [3]}])
def test_impossible_configs(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"config\.json is damaged: "):
        KernelRun(tmp_path).config()


def tracked(folder: Path, measure: str, value: float) -> Any:
    run = FinetuneRun(folder)
    TrackingLog(run.file(run.TRACKING)).append(0, 0.0, [Measurement("train", measure, value)])
    return run.tracking()


def calibrated(folder: Path, measure: str, value: float, stage: str = "before") -> Any:
    run = CalibrationRun(folder)
    table = pd.DataFrame([["test", stage, measure, value]], columns=["split", "stage", "measure", "value"])
    run.write_tables(table, table, table)
    return run.measures()


def in_grid(folder: Path, measure: str, value: float) -> Any:
    run = HeadScaleGrid(folder)
    row = {"head_scale": 1.0, "norm_at_start": 2.0, "split": "test", "feature_difference": 0.5, "accuracy": 0.25}
    run.write_grid(pd.DataFrame([{**row, measure: value}]))
    return run.grid()


@pytest.mark.parametrize("read_one", [tracked, calibrated, in_grid])
@pytest.mark.parametrize(
    ("measure", "value", "fine"),
    [
        ("accuracy", -5.0, False), ("accuracy", 1.0, True), ("accuracy", math.nan, True), ("accuracy", 1.01, False),
        ("loss", -0.01, False), ("loss", math.inf, True), ("ece", 1.5, False), ("head_norm", -1.0, False),
        ("feature_difference", -1e-3, False), ("anything", -1e300, True),
    ],
)  # fmt: skip
def test_impossible_measures_of_tables(
    tmp_path: Path, read_one: Callable[[Path, str, float], Any], measure: str, value: float, fine: bool
) -> None:
    if fine:
        read_one(tmp_path, measure, value)
    else:
        with pytest.raises(InputError, match=rf"\.csv is damaged: {measure} is .*, which cannot be"):
            read_one(tmp_path, measure, value)


def test_changes_may_be_negative(tmp_path: Path) -> None:
    calibrated(tmp_path, "ece", -0.5, "change")
