"""Pictures of kernels: singular values, class-sorted heat maps of blocks, shares of parameter groups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter
from torch import Tensor

from ntk_lpft.arguments import checked
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
    draw_grid,
    dress,
    empty_figure,
)
from ntk_lpft.statistics.blocks import class_boundaries, class_order
from ntk_lpft.statistics.matrix import check_labels
from ntk_lpft.statistics.spectrum import Spectrum

# P, F and P + F come first. P + F often runs over F, so that it is black and dotted; purple takes the dashes of black.
_PURPLE_CURVE, _BLACK_CURVE = CURVES[3], CURVES[6]
_SPECTRA = (
    *CURVES[:2],
    replace(_BLACK_CURVE, line=_PURPLE_CURVE.line),
    CURVES[2],
    replace(_PURPLE_CURVE, line=_BLACK_CURVE.line),
    *CURVES[4:6],
)
_SMALLEST_SHARE_SHOWN = 1e-17  # of σ_1: float64 resolves no singular value below it


@checked
def singular_values(spectra: Mapping[str, Spectrum | Float[np.ndarray, " r"] | Float[Tensor, " r"]]) -> Figure:
    """Draw the singular values of kernels, each divided by the largest of its kernel, on a logarithmic scale.

    A marker shows the rank of each kernel that comes as a `Spectrum`; the values to its right are rounding noise.

    Source: Tomihari and Sato (2024), the figures of the singular values of P and F.

    Args:
        spectra: The spectrum of each kernel under the name that the legend gives it, for example "P" and "F"; or the
            singular values alone, of shape (r,), in any order. At most seven.

    Returns:
        The figure, with one line for each kernel that is not zero; of one that is, as F is where the head is, the
        legend says so.

    Raises:
        InputError: There are no spectra or more than seven, or one has no values, or values that are negative or not
            finite.
    """
    if not 1 <= len(spectra) <= MOST_CURVES:
        raise InputError(
            f"there are {len(spectra)} spectra; between 1 and {MOST_CURVES} can be told apart in a picture"
        )
    figure, axes = _single_panel(5.2, 3.6)
    # Each curve is thinner than those before it, so that curves that coincide are all seen: P + F often does with F.
    widths = np.linspace(2.8, 1.4, len(spectra))
    for (name, spectrum), style, width in zip(spectra.items(), _SPECTRA, widths, strict=False):
        values = _singular_values(name, spectrum)
        if values[0] == 0:  # no largest to divide by, and no place on a logarithmic scale
            axes.plot([], [], linestyle="none", label=f"{drawn_name(name)}: zero")
            continue
        shares = np.where(values > 0, values / values[0], np.nan)
        index = np.arange(1, len(shares) + 1)
        (curve,) = axes.plot(
            index, shares, color=style.colour, linestyle=style.line, linewidth=width, label=drawn_name(name)
        )
        if isinstance(spectrum, Spectrum):
            curve.set_label(f"{drawn_name(name)}, rank {spectrum.rank}")
        if isinstance(spectrum, Spectrum) and spectrum.rank > 0:
            curve.set(marker=style.marker, markersize=4 + 1.8 * width, markeredgecolor="white")
            curve.set_markevery([spectrum.rank - 1])
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], _SMALLEST_SHARE_SHOWN), top=2)
    axes.set_xlim(left=0)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("Index of singular value", fontsize=TEXT_SIZE)
    axes.set_ylabel("Singular value / largest of its kernel", fontsize=TEXT_SIZE)
    axes.set_title("Singular values", fontsize=TITLE_SIZE)
    draw_grid(axes, "y")
    title = "Marker at the rank" if any(isinstance(spectrum, Spectrum) for spectrum in spectra.values()) else None
    axes.legend(frameon=False, fontsize=TEXT_SIZE, handlelength=3.6, title=title, title_fontsize=TEXT_SIZE)
    return figure


@checked
def block_heat_maps(
    p_blocks: Float[np.ndarray, "n n"] | Float[Tensor, "n n"],
    f_blocks: Float[np.ndarray, "n n"] | Float[Tensor, "n n"],
    labels: Int[Tensor, " n"],
    label_names: Sequence[str],
) -> Figure:
    """Draw heat maps of the trace norms of the C×C blocks of P and of F, samples sorted by class.

    Each map has a linear colour scale of its own, which spans the blocks of two different samples. A sample's block
    with itself is often far larger; an arrow at the end of the colour bar says that some lie beyond it.

    Source: Tomihari and Sato (2024), the heat maps of the trace norm of P and F.

    Args:
        p_blocks: The trace norms of the blocks of P, of shape (N, N), in the order of the labels.
        f_blocks: The same of F.
        labels: The class of each sample, of shape (N,).
        label_names: The name of each of the C classes.

    Returns:
        The figure, with one image each for P and F.

    Raises:
        InputError: The blocks are not square matrices of finite numbers of the labels' length, or a label has no name.
    """
    checked = check_labels(labels, len(labels), len(label_names))
    order = class_order(checked).numpy()
    figure = empty_figure(7.6, 3.7)
    left, right = figure.subplots(1, 2)
    for axes, name, blocks in ((left, "P", p_blocks), (right, "F", f_blocks)):
        matrix = _blocks(name, blocks, len(checked))[np.ix_(order, order)]
        low, high = _different_samples(matrix)
        image = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        beyond = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
        extend = beyond[(bool(matrix.min() < low), bool(matrix.max() > high))]
        scale = ScalarFormatter(useMathText=True)
        scale.set_powerlimits((-2, 4))
        bar = figure.colorbar(image, cax=axes.inset_axes((1.04, 0, 0.05, 1)), extend=extend, format=scale)
        bar.set_label("Trace norm of C×C block (linear)", fontsize=TEXT_SIZE)
        bar.ax.tick_params(labelsize=SMALL_SIZE)
        axes.set_title(name, fontsize=TITLE_SIZE)
        _mark_classes(axes, checked, label_names, with_counts=axes is left)
    return figure


@checked
def group_shares(shares: Mapping[str, float], measure: str = "Share in the trace of F") -> Figure:
    """Draw the share of each parameter group in F as horizontal bars, in network order from top to bottom.

    Args:
        shares: The share of each group, 1 for the whole of F, in network order.
        measure: What the shares are shares of, for the axis.

    Returns:
        The figure, whose height grows with the number of groups; the largest share stands out and bears its value, and
        with up to 30 groups each bears it.

    Raises:
        InputError: There are no groups, or a share is not finite.
    """
    if not shares:
        raise InputError("there are no parameter groups to draw; pass the shares of at least one")
    names, widths = list(shares), np.array(list(shares.values()), dtype=np.float64)
    if not np.isfinite(widths).all():
        raise InputError(f"these shares are not finite: {[name for name in names if not np.isfinite(shares[name])]}")
    crowded = len(names) > 30
    text = TEXT_SIZE - 2.5 if crowded else TEXT_SIZE
    figure, axes = _single_panel(5.6, 1.1 + len(names) * (0.135 if crowded else 0.22))
    largest = int(widths.argmax())
    colours = [VERMILLION if index == largest else BLUE for index in range(len(names))]
    bars = axes.barh(np.arange(len(names)), widths, color=colours, height=0.72)
    values = [_percent(width) if index == largest or not crowded else "" for index, width in enumerate(widths)]
    for index, label in enumerate(axes.bar_label(bars, values, padding=3, fontsize=text)):
        label.set_fontweight("bold" if index == largest else "normal")
    axes.set_yticks(np.arange(len(names)), [drawn_name(name, 60) for name in names], fontsize=text)
    axes.get_yticklabels()[largest].set_fontweight("bold")
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first group on top
    axes.margins(x=0.12)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_axisbelow(True)
    draw_grid(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(drawn_name(measure, 60), fontsize=TEXT_SIZE)
    axes.set_title("Parameter groups of F", fontsize=TITLE_SIZE)
    return figure


def _percent(share: float) -> str:
    """Write a share in percent, a small one with two digits that say something."""
    return f"{share:.1%}" if abs(share) >= 0.01 or share == 0 else f"{100 * share:.2g}%"


def _single_panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = empty_figure(width, height)
    axes = figure.subplots()
    dress(axes)
    return figure, axes


def _array(values: np.ndarray | Tensor) -> Float64[np.ndarray, "..."]:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def _singular_values(name: str, spectrum: Spectrum | np.ndarray | Tensor) -> Float64[np.ndarray, " r"]:
    """Return the singular values in descending order."""
    values = _array(spectrum.singular_values if isinstance(spectrum, Spectrum) else spectrum)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"the spectrum of {name} is no list of singular values: finite, zero or above")
    return np.sort(values)[::-1]


def _blocks(name: str, blocks: np.ndarray | Tensor, num_samples: int) -> Float64[np.ndarray, "n n"]:
    matrix = _array(blocks)
    if matrix.shape != (num_samples, num_samples) or not np.isfinite(matrix).all():
        raise InputError(
            f"the blocks of {name} have shape {matrix.shape}; expected ({num_samples}, {num_samples}), finite, as many "
            "as labels"
        )
    return matrix


def _different_samples(matrix: Float64[np.ndarray, "n n"]) -> tuple[float, float]:
    """Return the smallest and largest entry of two different samples (of the matrix, if there is one sample)."""
    entries = matrix[~np.eye(len(matrix), dtype=bool)] if len(matrix) > 1 else matrix
    return float(entries.min()), float(entries.max())


def _mark_classes(axes: Axes, labels: Tensor, label_names: Sequence[str], *, with_counts: bool) -> None:
    """Draw the boundaries between classes and name each class at the middle of its samples."""
    boundaries = class_boundaries(labels)
    for boundary in boundaries:
        axes.axhline(boundary - 0.5, color="white", linewidth=1)
        axes.axvline(boundary - 0.5, color="white", linewidth=1)
    edges = [0, *boundaries, len(labels)]
    counts = np.diff(edges)
    middles = [start + count / 2 - 0.5 for start, count in zip(edges, counts, strict=False)]
    names = [drawn_name(label_names[index], 24) for index in labels.unique().tolist()]
    counted = [f"{name}\nn = {count}" for name, count in zip(names, counts, strict=True)]
    axes.set_xticks(middles, names, fontsize=SMALL_SIZE, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, counted if with_counts else [""] * len(names), fontsize=SMALL_SIZE)
    axes.tick_params(length=0)
