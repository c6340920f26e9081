"""Figures 8 and 9: how strongly samples are tied, by the trace norm of each C×C block of P and of F."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from analysis.tables.collect import Collected
from figures.data import Request, sentences
from figures.kernels import STARTS, Blocks, read_blocks
from figures.style import (
    GREY,
    METHODS,
    PAGE,
    SMALL,
    TEXT,
    TINY,
    WIDTH,
    dress,
    fit_height,
    house_style,
    number,
    say_above,
)
from ntk_lpft.pictures import drawn_name, empty_figure
from ntk_lpft.statistics import class_boundaries, class_order

_MAP = "viridis"
_RANGE = (0.01, 0.99)
_COLUMNS = 3  # of the figure of one data set


def _read(request: Request) -> tuple[Request, Collected[Blocks]]:
    """Read the blocks of one seed; also return the request that collects what is missing of it."""
    own = request.one_seed("kernel", STARTS)
    collected = own.collect("kernel", read_blocks, STARTS)
    if not collected.contents:
        raise own.nothing()
    return own, collected


def maps(collected: Collected[Blocks], dataset: str) -> Mapping[str, Blocks]:
    """Return what the maps of a data set are made of, by method; P is that of the first."""
    return {
        method: next(iter(collected.contents[dataset, method].values()))
        for method in STARTS
        if collected.contents.get((dataset, method))
    }


def draw(request: Request) -> Figure:
    """Draw the figure.

    Raises:
        InputError: No job has results.
    """
    own, collected = _read(request)
    datasets = [name for name in own.datasets if maps(collected, name)]
    with house_style():
        figure = _all(collected, datasets) if own.every else _one(maps(collected, datasets[0]))
        absent = [f"{dataset}: no {METHODS[method].name}" for dataset in own.datasets for method in STARTS
                  if collected.asked(dataset, method) and method not in maps(collected, dataset)]  # fmt: skip
        say_above(figure, absent)
        fit_height(figure)
    return figure


def _one(blocks: Mapping[str, Blocks]) -> Figure:
    """Draw P and the F of each method, with a key to the classes in the last place."""
    count = 2 + len(blocks)
    rows = -(-count // _COLUMNS)
    figure = empty_figure(WIDTH, 2.2 * rows + 0.45)
    figure.set_layout_engine("compressed")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel().tolist()
    first = next(iter(blocks.values()))
    _map(grid[0], first.p.numpy(), first.labels, "P", numbers=True)
    for axes, (method, each) in zip(grid[1:], blocks.items(), strict=False):
        _map(axes, each.f.numpy(), each.labels, f"F, {METHODS[method].name}", numbers=True)
    _key(grid[count - 1], first)
    for axes in grid[count:]:
        axes.set_axis_off()
    _colours(figure, [axes for axes in grid if axes.images])
    return figure


def _all(collected: Collected[Blocks], datasets: list[str]) -> Figure:
    """Draw a row for each data set: P, then the F of each method."""
    columns = [method for method in STARTS if any(method in maps(collected, dataset) for dataset in datasets)]
    widest, highest = (WIDTH - 0.3) / (1 + len(columns)) - 0.1, (PAGE - 0.8) / len(datasets) - 0.2
    size = min(widest, highest)
    figure = empty_figure((1 + len(columns)) * (size + 0.1) + 0.3, len(datasets) * (size + 0.2) + 0.8)
    figure.set_layout_engine("compressed")
    grid = figure.subplots(len(datasets), 1 + len(columns), squeeze=False)
    for place, dataset in enumerate(datasets):
        row, blocks = grid[place], maps(collected, dataset)
        first = next(iter(blocks.values()))
        _map(row[0], first.p.numpy(), first.labels, "" if place else "P")
        row[0].set_ylabel(drawn_name(dataset), fontsize=TEXT)
        for axes, method in zip(row[1:], columns, strict=True):
            title = "" if place else f"F, {METHODS[method].name}"
            if method in blocks:
                _map(axes, blocks[method].f.numpy(), blocks[method].labels, title)
            else:
                axes.set_title(title, fontsize=TEXT)
                axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", va="center", fontsize=TINY)
                axes.set_axis_off()
    _colours(figure, [axes for axes in grid.ravel() if axes.images])
    for axes in grid.ravel():
        axes.xaxis.label.set_fontsize(TINY if size > 0.9 else TINY - 1)
    return figure


def scaled(
    norms: Float64[np.ndarray, "n n"], labels: Int[Tensor, " n"]
) -> tuple[Float64[np.ndarray, "n n"], float, float]:
    """Sort samples by class, and scale the norms so that those of different samples fill the range from 0 to 1.

    A sample's block with itself is often far larger than all others, and so is that of two samples that are almost the
    same. The range is that of pairs of different samples without the lowest and the highest hundredth; the rest is
    clipped to it.

    Args:
        norms: Of each block, of shape (N, N).
        labels: Classes, of shape (N,).

    Returns:
        The picture, and the norms that stand for 0 and 1.
    """
    order = class_order(labels).numpy()
    matrix = norms[np.ix_(order, order)]
    others = matrix[~np.eye(len(matrix), dtype=bool)] if len(matrix) > 1 else matrix
    low, high = (float(end) for end in np.quantile(others, _RANGE, method="inverted_cdf"))
    span = high - low if high > low else 1.0
    return np.clip((matrix - low) / span, 0.0, 1.0), low, high


def _map(axes: Axes, norms: np.ndarray, labels: Tensor, title: str, *, numbers: bool = False) -> None:
    picture, low, high = scaled(norms, labels)
    axes.imshow(picture, cmap=_MAP, vmin=0, vmax=1, interpolation="nearest")
    boundaries = class_boundaries(labels)
    for boundary in boundaries:
        axes.axhline(boundary - 0.5, color="white", linewidth=0.8)
        axes.axvline(boundary - 0.5, color="white", linewidth=0.8)
    dress(axes, grid=False)
    axes.set_xticks([])
    axes.set_yticks([])
    if numbers:
        edges = [0, *boundaries, len(labels)]
        middles = [(start + end) / 2 - 0.5 for start, end in pairwise(edges)]
        classes = [str(int(label) + 1) for label in labels.unique()]
        axes.set_yticks(middles, classes)
        axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(between(low, high), fontsize=SMALL, labelpad=2)
    axes.set_title(title, fontsize=TEXT)


def between(low: float, high: float) -> str:
    """Write a range with as many digits as tell its ends apart, and one more."""
    for digits in range(2, 9):
        if number(low, digits) != number(high, digits):
            return f"{number(low, digits + 1)} – {number(high, digits + 1)}"
    return f"{number(low, 4)}, all"


def _key(axes: Axes, blocks: Blocks) -> None:
    """List the classes by the numbers that stand beside the maps."""
    counts = np.bincount(blocks.labels.numpy(), minlength=len(blocks.label_names))
    named = zip(blocks.label_names, counts, strict=True)
    lines = [f"{place}  {drawn_name(name)} ({count})" for place, (name, count) in enumerate(named, start=1) if count]
    axes.text(0.0, 0.98, "\n".join(["Classes (samples)", *lines]), transform=axes.transAxes, ha="left", va="top",
              fontsize=SMALL, linespacing=1.5)  # fmt: skip
    axes.set_axis_off()


def _colours(figure: Figure, axes: list[Axes]) -> None:
    width, height = figure.get_size_inches()
    bar = figure.colorbar(ScalarMappable(cmap=_MAP), ax=axes, location="bottom", shrink=0.7, aspect=0.7 * width / 0.09,
                          pad=0.08 / height)  # fmt: skip
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.ax.tick_params(labelsize=SMALL, length=0, pad=2)
    bar.set_label("Trace norm of the C×C block of two different samples (range under each map)", fontsize=SMALL,
                  color=GREY, labelpad=1)  # fmt: skip
    bar.outline.set_visible(False)


def caption(request: Request) -> str:
    """Say what the figure shows.

    Raises:
        InputError: No job has results.
    """
    own, collected = _read(request)
    datasets = [name for name in own.datasets if maps(collected, name)]
    seeds = {name: sorted({seed for (it, _), by in collected.contents.items() if it == name for seed in by})
             for name in datasets}  # fmt: skip
    used = sorted({seed for each in seeds.values() for seed in each})
    where = f"on {datasets[0]}" if not own.every else "on every data set"
    return sentences(
        "Trace norm of the C × C block of each pair of training samples, sorted by class, for P and for the F that "
        f"each method starts from, {where}; white lines are between classes.",
        "Each map's colours span its own range over pairs of different samples, without the lowest and the highest "
        "hundredth of them; it is written below. What lies beyond, as a sample's block with itself often does, has the "
        "last colour.",
        f"Samples of seed{'s' if len(used) > 1 else ''} {', '.join(map(str, used))}.",
        own.setting(datasets),
        own.missing(),
    )
