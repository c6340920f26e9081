"""The paper's numbers: Tomihari and Sato, NeurIPS 2024, tables 1–3 and 8–16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files

import pandas as pd

from analysis.tables.cells import Paper

FOLDER = files("analysis") / "reference"

# Columns of the file of each table that say what a line is of, in the order of its keys here.
_KEYS: Mapping[str, tuple[str, Sequence[str]]] = {
    "table1": ("table1_features.csv", ("dataset", "method")),
    "table2": ("table2_9_kernel_statistics.csv", ("dataset", "method", "kernel")),
    "table3": ("table3_14_15_calibration.csv", ("dataset", "method")),
    "table8": ("table8_16_test_accuracy.csv", ("dataset", "method", "metric")),
    "table10": ("table10_ood_accuracy.csv", ("dataset", "method")),
    "table11": ("table11_ood_features.csv", ("dataset", "method")),
    "table12": ("table12_feature_difference.csv", ("dataset", "method")),
    "table13": ("table13_head_norm.csv", ("dataset", "method")),
}

# The only data set that the paper trains on and tests elsewhere.
_TRAINED_FOR_OOD = "amazon"


@lru_cache
def _lines(table: str) -> Mapping[tuple[str, ...], Mapping[str, float]]:
    name, keys = _KEYS[table]
    with (FOLDER / name).open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    by_key: dict[tuple[str, ...], dict[str, float]] = {}
    for line in frame.to_dict(orient="records"):
        key = tuple("" if pd.isna(line[column]) else str(line[column]) for column in keys)
        by_key[key] = {
            str(column): float(value)
            for column, value in line.items()
            if isinstance(value, int | float) and not pd.isna(value)
        }
    return by_key


def paper_number(table: str, measure: str, *key: str) -> Paper | None:
    """Look a number of the paper up.

    Args:
        table: Name of the table.
        measure: Column of its file; where there is ``mean_pct``, that one and ``std_pct`` are meant.
        *key: Data set, method and what else there is, as in the file; an empty text where it has nothing.

    Returns:
        The number, or None where the paper has none.
    """
    line = _lines(table).get(key, {})
    if "mean_pct" in line:
        return Paper(line["mean_pct"], line.get("std_pct"))
    return Paper(line[measure]) if measure in line else None


def paper_test(dataset: str, split: str) -> str | None:
    """Return what the paper calls a test: by the data set it is from; None where the paper has no such test."""
    if split == "test":
        return dataset
    return split.removeprefix("ood.") if dataset == _TRAINED_FOR_OOD else None
