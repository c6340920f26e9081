"""Figures 1 and 4: head norm and accuracy while the head is probed, and while everything is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.suite.results import Entry
from analysis.tables.collect import Collected
from figures.data import Request, fewer_seeds, over_seeds, sentences
from figures.style import (
    METHODS,
    TEXT,
    WIDTH,
    Look,
    draw_mean,
    dress,
    house_style,
    legend_below,
    line_of,
    say_above,
    say_inside,
)
from ntk_lpft.errors import InputError
from ntk_lpft.pictures import drawn_name, empty_figure

# Training lines are those of the method; those of validation are dotted, so that they differ in print as well.
_SPLITS = (("train", "-", "training"), ("validation", (0, (1, 1)), "validation"))

_ROUND = (1, 2, 2.5, 5, 10)  # steps between labels


@dataclass(frozen=True)
class _Half:
    """One of the two things that are compared: probing by `probe` jobs, fine-tuning by `finetune` jobs."""

    method: str
    runs: Collected[pd.DataFrame]
    time: str

    @property
    def look(self) -> Look:
        return METHODS[self.method]


def _read(request: Request) -> list[_Half]:
    halves = [
        _Half("lp", request.collect("probe", _probed, ["lp"]), "LP iteration"),
        _Half("ft", request.collect("finetune", _tracked, ["ft"]), "FT epoch"),
    ]
    if not any(half.runs.contents for half in halves):
        raise request.nothing()
    return halves


def _probed(entry: Entry) -> pd.DataFrame:
    return _with_norms(entry.run.probe_path(), "linear probe")


def _tracked(entry: Entry) -> pd.DataFrame:
    return _with_norms(entry.run.tracking(), "tracking log")


def _with_norms(table: pd.DataFrame | None, name: str) -> pd.DataFrame:
    if table is None or not (table["measure"] == "head_norm").any():
        raise InputError(f"its {name} records no head norm")
    return table


def _shown(request: Request, halves: list[_Half]) -> list[str]:
    return [name for name in request.datasets if any((name, half.method) in half.runs.contents for half in halves)]


def series(
    half_runs: Collected[pd.DataFrame], dataset: str, method: str, split: str, measure: str
) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, "seeds points"]] | None:
    """Return one measure over time, at the moments that all seeds recorded.

    Returns:
        The moments, in iterations or epochs, and the values of each seed; None where there are none.
    """
    columns = []
    for table in half_runs.contents.get((dataset, method), {}).values():
        rows = table[(table["split"] == split) & (table["measure"] == measure)].dropna(subset="value")
        columns.append(rows.drop_duplicates("epoch", keep="last").set_index("epoch")["value"])
    if not columns:
        return None
    joined = pd.concat(columns, axis=1, join="inner").sort_index()
    return (joined.index.to_numpy(dtype=np.float64), joined.to_numpy(dtype=np.float64).T) if len(joined) else None


def draw(request: Request) -> Figure:
    """Draw the figure.

    Raises:
        InputError: No job has results.
    """
    halves = _read(request)
    datasets = _shown(request, halves)
    with house_style():
        figure = _one(halves, datasets[0]) if not request.every else _all(halves, datasets)
        handles = [line_of(half.look, markers=False, line=line) for half in halves for _, line, _ in _SPLITS]
        names = [f"{half.look.name}, {said}" for half in halves for *_, said in _SPLITS]
        legend_below(figure, handles, names)
        say_above(figure, fewer_seeds((half.runs for half in halves), request.datasets, ("lp", "ft")))
    return figure


def _one(halves: list[_Half], dataset: str) -> Figure:
    """Draw two columns, for probing and fine-tuning; norms above, accuracies below."""
    figure = empty_figure(WIDTH, 3.6)
    grid = figure.subplots(2, 2, sharey="row", sharex="col")
    for column, half in enumerate(halves):
        _norm(grid[0, column], half, dataset)
        _accuracy(grid[1, column], half, dataset)
        grid[0, column].set_title("Linear probing (LP)" if half.method == "lp" else "Fine-tuning (FT)", fontsize=TEXT)
        grid[1, column].set_xlabel(half.time)
    for row, label in enumerate(("Head norm ‖V‖", "Accuracy")):
        grid[row, 0].set_ylabel(label)
    _finish(grid[0].tolist(), grid[1].tolist())
    return figure


def _all(halves: list[_Half], datasets: list[str]) -> Figure:
    """Draw a row for each data set; norms in the two columns on the left, accuracies on the right."""
    each = float(np.clip(8.0 / len(datasets), 0.82, 1.45))
    figure = empty_figure(WIDTH, len(datasets) * each + 0.75)
    grid = figure.subplots(len(datasets), 4, squeeze=False, sharex="col")
    for row, dataset in zip(grid, datasets, strict=True):
        for first in (0, 2):  # before anything is drawn, so that all of both panels fits into the shared range
            row[first + 1].sharey(row[first])
            row[first + 1].tick_params(labelleft=False)
        for column, half in enumerate(halves):
            _norm(row[column], half, dataset)
            _accuracy(row[2 + column], half, dataset)
        row[0].set_ylabel(drawn_name(dataset))
    for column, (what, half) in enumerate([("‖V‖", half) for half in halves] + [("accuracy", half) for half in halves]):
        grid[0, column].set_title(f"{half.look.name}: {what}", fontsize=TEXT)
        grid[-1, column].set_xlabel(half.time)
    _finish(grid[:, :2].ravel().tolist(), grid[:, 2:].ravel().tolist())
    return figure


def _finish(norms: list[Axes], accuracies: list[Axes]) -> None:
    # Once all is drawn, as to set a limit ends the search for those that hold all curves of a shared axis.
    for axes in (*norms, *accuracies):
        dress(axes, grid=axes.has_data())
        axes.set_xlim(left=0)
    for axes in norms:
        axes.set_ylim(bottom=0)


def _norm(axes: Axes, half: _Half, dataset: str) -> None:
    curve = series(half.runs, dataset, half.method, "all", "head_norm")
    if curve is None:
        say_inside(axes, f"{half.look.name}: no results")
        return
    draw_mean(axes, *curve, half.look, markers=False, line="-")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=_ROUND))
    _time(axes)


def _accuracy(axes: Axes, half: _Half, dataset: str) -> None:
    drawn = False
    for split, line, _ in _SPLITS:
        curve = series(half.runs, dataset, half.method, split, "accuracy")
        if curve is not None:
            draw_mean(axes, *curve, half.look, markers=False, line=line, label=split)
            drawn = True
    if not drawn:
        say_inside(axes, f"{half.look.name}: no results")
        return
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=_ROUND))
    _time(axes)


def _time(axes: Axes) -> None:
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=_ROUND, integer=True))


def caption(request: Request) -> str:
    """Say what the figure shows.

    Raises:
        InputError: No job has results.
    """
    halves = _read(request)
    datasets = _shown(request, halves)
    size = request.results.suite.get("settings", {}).get("probe_size")
    rows = "" if size is None else f", in FT on at most {size} rows of each split"
    where = f"on {datasets[0]}" if not request.every else "on every data set"
    return sentences(
        f"Norm ‖V‖ of the head and accuracy {where}: while the head alone is trained on frozen features (LP, "
        "full-batch Adam without a penalty) and while the whole model is fine-tuned from a random head (FT).",
        f"Norms share an axis. Accuracy is that of training and validation rows{rows}.",
        over_seeds((half.runs for half in halves), datasets),
        request.setting(datasets),
        request.missing(),
    )
