"""Figures 3, 10 and 11: how far features move in fine-tuning, against the norm of the head where it starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.suite.results import Entry
from analysis.tables.collect import Collected
from figures.data import Request, fewer_seeds, over_seeds, sentences
from figures.style import (
    METHODS,
    TEXT,
    draw_mean,
    house_style,
    legend_below,
    line_of,
    logarithmic,
    mean_and_band,
    panels,
    say_above,
)
from ntk_lpft.errors import InputError
from ntk_lpft.pictures import drawn_name

STARTS = ("ft", "lp-ft")  # random head, probed head
_TEST, _OOD = "test", "ood."
_ALIKE = 2.0


@dataclass(frozen=True, eq=False)
class Curve:
    """The feature difference of one method on one split.

    Attributes:
        factors: On the head, ascending, of shape (factors,).
        norms: ‖V‖ at the start of fine-tuning, of shape (seeds, factors).
        differences: Mean ‖φ − φ₀‖ over the split's rows, of shape (seeds, factors).
    """

    factors: Float64[np.ndarray, " factors"]
    norms: Float64[np.ndarray, "seeds factors"]
    differences: Float64[np.ndarray, "seeds factors"]

    @property
    def alike(self) -> bool:
        """Whether the seeds' heads have norms within a factor of two, so that a mean over seeds says something."""
        return bool((self.norms.max(axis=0) <= _ALIKE * self.norms.min(axis=0)).all())

    @property
    def original(self) -> list[float]:
        """‖V‖ as it is, with factor 1: the geometric mean over seeds, or of each where they are not alike."""
        norms = self.norms[:, self.factors == 1.0]
        if not norms.size:
            return []
        return [float(mean_and_band(norms, log=True)[0][0])] if self.alike else norms[:, 0].tolist()

    def parts(self) -> list[tuple[Float64[np.ndarray, " factors"], Float64[np.ndarray, "seeds factors"]]]:
        """Return x, and y of each seed, of the curves to draw: one, or one a seed where they are not alike."""
        if self.alike:
            return [(mean_and_band(self.norms, log=True)[0], self.differences)]
        return [(norms, differences[None]) for norms, differences in zip(self.norms, self.differences, strict=True)]


def _read(request: Request) -> Collected[pd.DataFrame]:
    grids = request.collect("head_scale", _grid, STARTS)
    if not grids.contents:
        raise request.nothing()
    return grids


def _grid(entry: Entry) -> pd.DataFrame:
    return entry.run.grid()


def curve(grids: Collected[pd.DataFrame], dataset: str, method: str, split: str) -> Curve | None:
    """Return a curve over the factors that all seeds have; None where there is none."""
    tables = []
    for table in grids.contents.get((dataset, method), {}).values():
        rows = table[table["split"] == split].dropna(subset=["norm_at_start", "feature_difference"])
        tables.append(rows.drop_duplicates("head_scale", keep="last").set_index("head_scale"))
    if not tables:
        return None
    factors = sorted(set.intersection(*(set(table.index) for table in tables)))
    if not factors:
        return None
    norms, differences = (
        np.stack([table.loc[factors, name].to_numpy(dtype=np.float64) for table in tables])
        for name in ("norm_at_start", "feature_difference")
    )
    return Curve(np.array(factors, dtype=np.float64), norms, differences)


def _places(request: Request, grids: Collected[pd.DataFrame]) -> list[tuple[str, str]]:
    """List the data sets and splits that are shown: the test split, or, in figure 11, each OOD test."""
    ood = request.item.name == "figure11"
    places = []
    for dataset in request.datasets:
        tables = [table for (name, _), seeds in grids.contents.items() if name == dataset for table in seeds.values()]
        splits = dict.fromkeys(split for table in tables for split in table["split"])
        places += [(dataset, split) for split in splits if (split.startswith(_OOD) if ood else split == _TEST)]
    if not places:
        what = "OOD tests" if ood else "a test split"
        raise InputError(
            f"{request.item.name}: no head_scale job with results has {what}; data sets with OOD tests are "
            f"amazon-snippets and amazon. {request.missing()}".strip()
        )
    return places


def draw(request: Request) -> Figure:
    """Draw the figure.

    Raises:
        InputError: No job has results, or none has the split that is shown.
    """
    grids = _read(request)
    places = _places(request, grids)
    with house_style():
        figure, grid = panels(len(places), height=1.75) if len(places) > 1 else panels(1, height=2.6)
        for axes, (dataset, split) in zip(grid, places, strict=True):
            _panel(axes, grids, dataset, split)
            several = len({name for name, _ in places}) > 1
            name = split.removeprefix(_OOD) if split != _TEST else dataset
            to = drawn_name(name)
            axes.set_title(f"{drawn_name(dataset)} →\n{to}" if several and split != _TEST else to, fontsize=TEXT)
            axes.set_xlabel("‖V‖ at the start", fontsize=TEXT)
            place = axes.get_subplotspec()
            if place is None or place.is_first_col():
                axes.set_ylabel("Feature difference", fontsize=TEXT)
        methods = [it for it in STARTS if any(method == it for _, method in grids.contents)]
        handles = [line_of(METHODS[method]) for method in methods]
        names = [f"{METHODS[method].name} ({_start(method)})" for method in methods]
        dashed = [line_of(METHODS[method], markers=False, line="--") for method in methods]
        legend_below(
            figure,
            [*handles, *dashed],
            [*names, *(f"original norm, {METHODS[method].name}" for method in methods)],
            columns=2 if len(places) == 1 else 4,
        )
        say_above(figure, fewer_seeds([grids], request.datasets, STARTS))
    return figure


def _start(method: str) -> str:
    return "random head" if method == "ft" else "probed head"


def _panel(axes: Axes, grids: Collected[pd.DataFrame], dataset: str, split: str) -> None:
    for method in STARTS:
        drawn = curve(grids, dataset, method, split)
        if drawn is None:
            continue
        look = METHODS[method]
        for across, differences in drawn.parts():
            draw_mean(axes, across, differences, look, log=True)
        for norm in drawn.original:
            axes.axvline(norm, color=look.colour, linestyle="--", linewidth=0.9, zorder=1)
    logarithmic(axes, "x", "y")


def caption(request: Request) -> str:
    """Say what the figure shows.

    Raises:
        InputError: No job has results, or none has the split that is shown.
    """
    grids = _read(request)
    places = _places(request, grids)
    datasets = list(dict.fromkeys(dataset for dataset, _ in places))
    tests = "the test split" if request.item.name != "figure11" else "each OOD test"
    where = f"{tests} of {', '.join(datasets)}"
    curves = [curve(grids, dataset, method, split) for dataset, split in places for method in STARTS]
    nowhere = any(it is not None and (it.differences <= 0).any() for it in curves)
    apart = any(it is not None and not it.alike for it in curves)
    return sentences(
        f"Mean norm of the change of features in fine-tuning, ‖φ − φ₀‖ over the samples of {where}, against the norm "
        "‖V‖ of the head where fine-tuning starts. The head, random (FT) or probed (LP-FT), is multiplied by a factor "
        "before; dashed lines are at the norm that it has of itself.",
        "Both axes are logarithmic." + (" Differences of 0 have no place on them." if nowhere else ""),
        over_seeds([grids], datasets, log=True),
        "Where the seeds' heads differ in norm by more than a factor of two, each seed has a line of its own." * apart,
        request.setting(datasets),
        request.missing(),
    )
