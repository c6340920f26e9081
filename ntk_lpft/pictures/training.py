"""Pictures of training: head norm and accuracy, features' change and discriminability, features against head norm."""

import math
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ntk_lpft.arguments import checked
from ntk_lpft.pictures.names import drawn_name
from ntk_lpft.pictures.style import (
    BLACK,
    CURVES,
    SMALL_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    draw_grid,
    dress,
    empty_figure,
)

_HEIGHT = 3.3  # inches


@checked
def training_curves(tracking: pd.DataFrame, probed: bool = False) -> Figure:
    """Head norm and accuracy over training.

    Source: Tomihari and Sato (2024), the figures of head norm and accuracy over epochs.

    Args:
        tracking: Columns ``step``, ``epoch``, ``split``, ``measure`` and ``value``.
        probed: Whether what was tracked is a probe, before and after, and no training.

    Returns:
        The figure, of two panels.
    """
    figure = empty_figure(8.6, _HEIGHT)
    left, right = figure.subplots(1, 2)
    norms = tracking[tracking["measure"] == "head_norm"].sort_values("step")
    left.plot(norms["epoch"], norms["value"], color=BLACK, marker="o", markersize=3, linewidth=1.4)
    _label(left, "Head norm", "‖V‖")
    if norms["value"].max() - norms["value"].min() < 0.02 * norms["value"].max():
        # Otherwise a change of a few thousandths looks like a rise from nothing.
        left.set_ylim(0.9 * norms["value"].min(), 1.1 * norms["value"].max())
    _by_split(right, tracking, "accuracy")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    _label(right, "Accuracy", "Accuracy")
    _time(left, probed)
    _time(right, probed)
    _legend(figure, right)
    return figure


@checked
def feature_curves(tracking: pd.DataFrame, measure: str, probed: bool = False) -> Figure:
    """One measure of features over training, a curve for each split.

    Args:
        tracking: As for ``training_curves``.
        measure: ``feature_difference`` or ``fisher_discriminant_ratio``.
        probed: As for ``training_curves``.

    Returns:
        The figure, of one panel.
    """
    titles = {
        "feature_difference": ("Feature difference to the pretrained model", "Mean ‖φ − φ₀‖"),
        "fisher_discriminant_ratio": ("Fisher's discriminant ratio", "Between / within classes"),
    }
    title, axis = titles[measure]
    figure = empty_figure(5.6, _HEIGHT)
    axes = figure.subplots()
    _by_split(axes, tracking, measure)
    values = tracking[tracking["measure"] == measure]["value"]
    if measure == "fisher_discriminant_ratio" and len(values) and values.min() > 0:
        axes.set_yscale("log")
    _label(axes, title, axis)
    _time(axes, probed)
    _legend(figure, axes)
    return figure


@checked
def head_scale_curves(grid: pd.DataFrame) -> Figure:
    """Features' change and accuracy against the head norm at the start of fine-tuning.

    Source: Tomihari and Sato (2024), the figures of feature difference against head norm.

    Args:
        grid: One row for each factor and split, with ``head_scale``, ``norm_at_start``, ``split``,
            ``feature_difference`` and ``accuracy``; the row of factor 1 gives the dashed line.

    Returns:
        The figure, of two panels.
    """
    figure = empty_figure(8.6, _HEIGHT)
    panels = figure.subplots(1, 2)
    drawn = (("feature_difference", "Feature difference", "Mean ‖φ − φ₀‖"), ("accuracy", "Accuracy", "Accuracy"))
    for axes, (measure, title, label) in zip(panels, drawn, strict=True):
        _norm_axis(axes, grid["norm_at_start"])
        for (name, rows), style in zip(grid.groupby("split", sort=False), cycle(CURVES), strict=False):
            rows = rows.sort_values("norm_at_start")
            axes.plot(rows["norm_at_start"], rows[measure], color=style.colour, linestyle=style.line, linewidth=1.4,
                      marker=style.marker, markersize=4, label=drawn_name(name))  # fmt: skip
        original = grid[grid["head_scale"] == 1]["norm_at_start"]
        if len(original):
            axes.axvline(float(original.iloc[0]), color="0.4", linestyle="--", linewidth=1, label="original norm")
        _label(axes, title, label)
        if measure == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(figure, panels[1])
    return figure


def _norm_axis(axes: Axes, norms: pd.Series) -> None:
    axes.set_xlabel("‖V‖ at the start of fine-tuning", fontsize=TEXT_SIZE)
    positive = norms[norms > 0]
    if positive.empty:
        return
    if (norms > 0).all():
        axes.set_xscale("log")
    else:  # a head multiplied by 0 has a place too
        axes.set_xscale("symlog", linthresh=10.0 ** math.ceil(math.log10(positive.min())), linscale=0.5)


def _by_split(axes: Axes, tracking: pd.DataFrame, measure: str) -> None:
    rows = tracking[(tracking["measure"] == measure) & tracking["value"].notna()]
    for (name, part), style in zip(rows.groupby("split", sort=False), cycle(CURVES), strict=False):
        part = part.sort_values("step")
        axes.plot(part["epoch"], part["value"], color=style.colour, linestyle=style.line, linewidth=1.4,
                  marker=style.marker, markersize=3, label=drawn_name(name))  # fmt: skip


def _legend(figure: Figure, axes: Axes) -> None:
    """Name a panel's curves beside all panels, where no curve runs."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=SMALL_SIZE, handlelength=3.2)


def _time(axes: Axes, probed: bool) -> None:
    if probed:
        axes.set_xticks([0, 1], ["before LP", "after LP"], fontsize=TEXT_SIZE)
        axes.margins(x=0.2)
        return
    axes.set_xlabel("Epoch", fontsize=TEXT_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _label(axes: Axes, title: str, y: str) -> None:
    axes.set_title(title, fontsize=TITLE_SIZE)
    axes.set_ylabel(y, fontsize=TEXT_SIZE)
    dress(axes)
    axes.tick_params(labelsize=SMALL_SIZE, which="minor")  # of short logarithmic axes, which have labels there
    draw_grid(axes)
