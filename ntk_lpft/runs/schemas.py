"""What the JSON and the tables of a run may say: which fields, of which types, in which ranges."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ntk_lpft.errors import InputError

_SLACK = 1e-6  # of rounding, at the ends of a range

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=-_SLACK, le=1 + _SLACK, allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1 - _SLACK, le=1 + _SLACK, allow_inf_nan=False)]
Infinite = Literal["inf", "-inf"]  # JSON has no such numbers

# Measures of any table, by name; others may be any number.
RANGES: Mapping[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "train_pair_accuracy": (0.0, 1.0),
    "eval_pair_accuracy": (0.0, 1.0),
    "matthews": (-1.0, 1.0),
    "loss": (0.0, np.inf),
    "nll": (0.0, np.inf),
    "brier": (0.0, 2.0),
    "ece": (0.0, 1.0),
    "mce": (0.0, 1.0),
    "cosine_similarity": (-1.0, 1.0),
    "feature_difference": (0.0, np.inf),
    "head_norm": (0.0, np.inf),
    "norm_at_start": (0.0, np.inf),
    "head_scale": (-np.inf, np.inf),
    "residual_norm": (0.0, np.inf),
    "kernel.ft_ratio": (0.0, np.inf),
}


class _Checked(BaseModel):
    """Fields that are read somewhere are named; further ones may be there."""

    model_config = ConfigDict(strict=True, extra="allow")


class SplitMetrics(_Checked):
    """Measures of one split; those that are undefined are null."""

    __pydantic_extra__: dict[str, Number | None]

    rows: Count | None = None
    accuracy: Share | None = None
    matthews: Cosine | None = None
    loss: NotNegative | None = None
    ece: Share | None = None
    cosine_similarity: Cosine | None = None
    feature_difference: NotNegative | None = None


class Metrics(_Checked):
    """``metrics.json`` of a fine-tuning run."""

    method: Text
    dataset: Text
    model: Text
    seed: Seed
    metric: Literal["accuracy", "matthews"] = "accuracy"
    head: dict[str, NotNegative | None] = {}
    splits: dict[str, SplitMetrics] = {}


class KernelRow(_Checked):
    """Statistics of one kernel."""

    __pydantic_extra__: dict[str, Number | Infinite | str | list[Any] | dict[str, Any] | None]

    kernel: Text
    rank: Count | None = None
    effective_rank: NotNegative | Infinite | None = None
    frobenius_norm: NotNegative | Infinite | None = None
    trace_norm: NotNegative | Infinite | None = None
    rank_tolerance: NotNegative | Infinite | None = None
    train_pair_accuracy: Share | None = None
    eval_pair_accuracy: Share | None = None
    pair_base_rate: Share | None = None
    ft_ratio: NotNegative | Infinite | None = None
    median_ft_ratio: NotNegative | Infinite | None = None
    unconverged_fits: Count | None = None


class KernelSummary(_Checked):
    """``summary.json`` of a kernel."""

    statistics: list[KernelRow] = []
    num_labels: Annotated[int, Field(ge=1)] | None = None
    head_norm: NotNegative | None = None


class Config(_Checked):
    """``config.json`` of any run."""

    options: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    data: dict[str, dict[str, Any] | Text] = {}
    label_names: list[str] = []


def check_json(path: Path, content: Mapping[str, Any], schema: type[BaseModel]) -> None:
    """Refuse what a file of results cannot say.

    Args:
        path: The file.
        content: What it says.
        schema: What it may say.

    Raises:
        InputError: A field is missing, is of another type, or is a number that cannot be.
    """
    try:
        schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        given = first.get("input")
        what = "is missing" if first["type"] == "missing" else f"is {_short(given)}: {first['msg']}"
        raise InputError(f"{path} is damaged: {place} {what}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def check_measures(path: Path, names: pd.Series, values: pd.Series) -> None:
    """Refuse measures of a table that cannot be.

    Args:
        path: The file.
        names: Of the measures.
        values: The numbers; NaN where they are undefined.

    Raises:
        InputError: A number lies outside the range of its measure.
    """
    for name, (low, high) in RANGES.items():
        given = values[(names == name).to_numpy()]
        wrong = given[(given < low - _SLACK) | (given > high + _SLACK)]
        if len(wrong):
            raise InputError(f"{path} is damaged: {name} is {wrong.iloc[0]:g}, which cannot be")


def check_columns(path: Path, table: pd.DataFrame) -> None:
    """Refuse columns of a table that hold what cannot be; see `check_measures`."""
    for column in table.columns:
        if column in RANGES and table[column].dtype.kind in "fi":
            check_measures(path, pd.Series([column] * len(table)), table[column])
