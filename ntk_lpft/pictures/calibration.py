"""Pictures of calibration: reliability diagrams before and after, and confidence against head norm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from ntk_lpft.calibration import Bins
from ntk_lpft.errors import InputError
from ntk_lpft.pictures.names import drawn_name
from ntk_lpft.pictures.style import (
    BLACK,
    BLUE,
    CURVES,
    MOST_CURVES,
    SMALL_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    VERMILLION,
    CurveStyle,
    draw_grid,
    dress,
    empty_figure,
)


def reliability_diagram(before: Bins, after: Bins, heading: str, titles: tuple[str, str]) -> Figure:
    """Draw accuracy and gap of each bin above a histogram of confidences, before beside after.

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", figures 1 and 4.

    Args:
        before: Bins of the confidences as they are.
        after: Bins of the calibrated confidences.
        heading: What stands above the whole.
        titles: What stands above the two sides.

    Returns:
        The figure, with four axes.
    """
    figure = empty_figure(6.4, 5.0)
    figure.set_layout_engine("constrained", wspace=0.06)
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (bins, title) in enumerate(zip((before, after), titles, strict=True)):
        _accuracies(grid[0, column], bins)
        _histogram(grid[1, column], bins)
        grid[0, column].set_title(drawn_name(title, 60), fontsize=TITLE_SIZE)
        grid[1, column].set_xlabel("Confidence", fontsize=TEXT_SIZE)
        grid[1, column].xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    grid[0, 0].set_ylabel("Accuracy", fontsize=TEXT_SIZE)
    grid[1, 0].set_ylabel("Share of samples", fontsize=TEXT_SIZE)
    tallest = max(float((bins.counts / bins.counts.sum()).max()) for bins in (before, after))
    grid[1, 0].set_ylim(0, min(1.0, 1.15 * tallest))
    figure.suptitle(drawn_name(heading, 75), fontsize=TITLE_SIZE, fontweight="bold")
    handles = [
        Patch(color=BLUE, label="Accuracy"),
        Patch(facecolor=VERMILLION + "22", edgecolor=VERMILLION, hatch="////", label="Gap to confidence"),
        Line2D([], [], color=BLACK, linestyle="-", label="Mean accuracy"),
        Line2D([], [], color=BLACK, linestyle="--", label="Mean confidence"),
    ]
    # Below the axes: inside them, some bars or lines lie under it for some classifier.
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL_SIZE)
    return figure


def _accuracies(axes: Axes, bins: Bins) -> None:
    filled = bins.counts > 0
    left, width = bins.edges[:-1][filled], np.diff(bins.edges)[filled]
    accuracy, gap = bins.accuracy[filled], bins.gap[filled]
    axes.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white", linewidth=0.6)
    axes.bar(left, -gap, width, bottom=accuracy, align="edge", facecolor=VERMILLION + "22", edgecolor=VERMILLION,
             hatch="////", linewidth=0.8)  # fmt: skip
    axes.plot([0, 1], [0, 1], color="0.35", linestyle=":", linewidth=1.2, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    dress(axes)


def _histogram(axes: Axes, bins: Bins) -> None:
    share = bins.counts / bins.counts.sum()
    axes.bar(bins.edges[:-1], share, np.diff(bins.edges), align="edge", color="0.72", edgecolor="white", linewidth=0.6)
    for values, line in ((bins.accuracy, "-"), (bins.confidence, "--")):
        axes.axvline(float(np.nansum(share * values)), color=BLACK, linestyle=line, linewidth=1.2)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    dress(axes)


@dataclass(frozen=True)
class NormCurve:
    """Confidence of one classifier as its head is rescaled.

    Attributes:
        name: What the legend calls it; classifiers of one name share a colour.
        norm: ‖V‖/T of each point, of shape (K,), increasing; 1/T where ‖V‖ is not known.
        confidence: Mean confidence at each, of shape (K,).
        before: Norm and confidence at T = 1.
        after: Norm and confidence at the fitted T.
        accuracy: Of the same samples, whatever T.
    """

    name: str
    norm: Float64[np.ndarray, " k"]
    confidence: Float64[np.ndarray, " k"]
    before: tuple[float, float]
    after: tuple[float, float]
    accuracy: float


def confidence_against_head_norm(curves: Sequence[NormCurve], *, norms_known: bool, split: str) -> Figure:
    """Draw the mean confidence of classifiers against their head norm, before and after temperature scaling.

    Dividing logits by T divides the head norm by T, so that a classifier moves along its own curve.

    Source: Tomihari and Sato (2024), on temperature scaling as a rescaling of the head.

    Args:
        curves: One for each classifier; at most seven names.
        norms_known: Whether ‖V‖ is known, else the axis is relative to it.
        split: Which samples they are of.

    Returns:
        The figure: filled markers before, hollow ones after, and a line at the accuracy of each name, averaged.

    Raises:
        InputError: There are no curves, or more than seven names.
    """
    names = list(dict.fromkeys(curve.name for curve in curves))
    if not 1 <= len(names) <= MOST_CURVES:
        raise InputError(f"there are {len(names)} methods; between 1 and {MOST_CURVES} can be told apart in a picture")
    figure = empty_figure(5.6, 3.7)
    axes = figure.subplots()
    styles = dict(zip(names, CURVES, strict=False))
    for curve in curves:
        _norm_curve(axes, curve, styles[curve.name], opacity=1 if len(curves) == 1 else 0.6)
    for name in names:
        level = float(np.mean([curve.accuracy for curve in curves if curve.name == name]))
        axes.axhline(level, color=styles[name].colour, linestyle=":", linewidth=1.2)
    axes.set_xscale("log")
    _log_ticks(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("Head norm, ‖V‖/T" if norms_known else "Head norm relative to the classifier's own, 1/T",
                    fontsize=TEXT_SIZE)  # fmt: skip
    axes.set_ylabel(f"Mean confidence ({drawn_name(split)})", fontsize=TEXT_SIZE)
    axes.set_title("Confidence against head norm", fontsize=TITLE_SIZE, fontweight="bold")
    draw_grid(axes, "y")
    axes.set_axisbelow(True)
    dress(axes)
    _norm_legend(figure, styles if names != [""] else {}, several=len(curves) > len(names))
    return figure


def _norm_curve(axes: Axes, curve: NormCurve, style: CurveStyle, opacity: float) -> None:
    axes.plot(curve.norm, curve.confidence, color=style.colour, linewidth=1.2, alpha=opacity)
    axes.plot(*curve.before, color=style.colour, marker=style.marker, markersize=7, markeredgecolor="white", zorder=4)
    axes.plot(*curve.after, marker=style.marker, markerfacecolor="white", markeredgecolor=style.colour, markersize=6.5,
              markeredgewidth=1.5, zorder=3)  # fmt: skip


def _log_ticks(axes: Axes) -> None:
    """Write plain numbers, the closer the fewer decades there are."""
    low, high = axes.get_xlim()
    decades = np.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _norm_legend(figure: Figure, styles: Mapping[str, CurveStyle], *, several: bool) -> None:
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle="-", markeredgecolor="white", markersize=7,
               label=drawn_name(name))
        for name, style in styles.items()
    ]  # fmt: skip
    handles += [
        Line2D([], [], color="0.35", marker="o", linestyle="", markersize=6, label="before scaling"),
        Line2D([], [], color="0.35", marker="o", linestyle="", markersize=6, markerfacecolor="white",
               markeredgewidth=1.5, label="after scaling"),
        Line2D([], [], color="0.35", linestyle=":", label="mean accuracy" if several else "accuracy"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=SMALL_SIZE)
