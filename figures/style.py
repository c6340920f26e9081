"""The house style: one look for every figure, and the same colour, line and marker for a method everywhere.

Colours are those of the library's pictures. As lines and markers differ too, methods are told apart in print without
colours. Figures are as wide as the text of a page, with letters that are read at that size.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ntk_lpft.pictures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, CurveStyle, drawn_name, empty_figure

WIDTH, PAGE = 5.5, 9.2  # inches: the text of a page, which figures are printed as wide as, and no higher than
TEXT, SMALL, TINY = 8.0, 7.0, 6.0  # points
GREY, PALE = "0.35", "0.92"
_LINE, _MARKER = 1.3, 4.0  # points
_DEVIATIONS = 0.18  # how opaque bands are
_LETTERS = 120  # of a note in TINY letters, across WIDTH

_HOUSE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has ‖, φ and subscripts
    "font.size": TEXT,
    "mathtext.fontset": "dejavusans",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # letters stay letters, which can be searched and edited
}


@dataclass(frozen=True)
class Look(CurveStyle):
    """How the curve of a method is told from others.

    Attributes:
        name: For legends.
    """

    name: str


METHODS: Mapping[str, Look] = {
    "lp": Look(GREEN, (0, (5, 1, 1, 1, 1, 1)), "v", "LP"),
    "ft": Look(VERMILLION, (0, (5, 1.5)), "s", "FT"),
    "lp-ft": Look(BLUE, "-", "o", "LP-FT"),
    "lora": Look(ORANGE, (0, (5, 1.5, 1, 1.5)), "^", "LoRA"),
    "lp-lora": Look(SKY, (0, (1, 1)), "D", "LP-LoRA"),
}
P_LOOK = Look(BLACK, (0, (2.5, 1)), "X", "P")
# Classes are no methods: the first come in colours that no method of their figures has, and with markers of their own.
CLASSES: Sequence[tuple[str, str]] = (
    (GREEN, "o"),
    (PURPLE, "^"),
    (BLACK, "s"),
    (ORANGE, "D"),
    (SKY, "v"),
    (VERMILLION, "P"),
    (BLUE, "X"),
)


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the style while a figure is drawn or saved; matplotlib's settings are then as they were."""
    with matplotlib_style.context(["default", dict(_HOUSE)]):
        yield


def panels(
    count: int, *, most_columns: int = 3, width: float = WIDTH, height: float = 1.8, extra: float = 0.45
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels, row by row.

    Args:
        count: How many.
        most_columns: In a row.
        width: Of the figure, in inches; that of one panel alone is less.
        height: Of a row, in inches.
        extra: Room for a legend below, in inches.

    Returns:
        The figure and its panels.
    """
    columns = min(count, most_columns)
    rows = math.ceil(count / columns)
    figure = empty_figure(width if columns > 1 else min(width, 4.2), rows * height + extra)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[:count]:
        dress(axes)
    return figure, grid[:count]


def dress(axes: Axes, *, grid: bool = True) -> None:
    """Set what matplotlib looks up as late as when it draws, so that a figure looks the same wherever it is saved."""
    axes.tick_params(which="major", labelsize=SMALL, width=0.6, length=2.5, pad=2)
    axes.tick_params(which="minor", labelsize=SMALL, width=0.4, length=1.5)
    axes.xaxis.label.set_fontsize(TEXT)
    axes.yaxis.label.set_fontsize(TEXT)
    axes.title.set_fontsize(TEXT)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(color=PALE, linewidth=0.5)


def logarithmic(axes: Axes, *which: str) -> None:
    """Put axes (``x``, ``y``) on logarithmic scales, with few enough labels to be read."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        low, high = axis.get_view_interval()
        decades = math.log10(high / low) if low > 0 else 1.0
        if decades < 1.5:  # powers of ten alone would be one label or none
            axis.set_major_locator(MaxNLocator(4) if decades < 0.8 else LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(_plain))
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(LogLocator(numticks=4))
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float, place: int | None = None) -> str:
    return number(value, 2)


def number(value: float, digits: int) -> str:
    """Write a number with some significant digits: as 0.02, or, where that would be long, as 2·10⁻⁵."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"


def draw_mean(
    axes: Axes,
    across: Float[np.ndarray, " points"],
    values: Float[np.ndarray, "seeds points"],
    look: Look,
    *,
    log: bool = False,
    markers: bool = True,
    line: Any = None,
    colour: str | None = None,
    label: str | None = None,
) -> None:
    """Draw a mean over seeds, and its standard deviation as a band where there are two seeds or more.

    Args:
        axes: Where.
        across: x of each point, of shape (points,).
        values: y of each seed, of shape (seeds, points).
        look: Colour, line and marker.
        log: Whether mean and deviation are those of log y, as is right on a logarithmic axis.
        markers: Whether points are marked: all, or about eight of many.
        line: Dashes other than the look's.
        colour: Other than the look's.
        label: Other than the look's name.
    """
    middle, low, high = mean_and_band(values, log=log)
    points = np.isfinite(middle).sum()
    every = max(1, points // 8)
    own = colour or look.colour
    axes.plot(
        across,
        middle,
        color=own,
        linestyle=look.line if line is None else line,
        linewidth=_LINE,
        marker=look.marker if markers else None,
        markersize=_MARKER,
        markeredgecolor="white",
        markeredgewidth=0.3,
        markevery=every,
        label=look.name if label is None else label,
    )
    if len(values) > 1:
        axes.fill_between(across, low, high, color=own, alpha=_DEVIATIONS, linewidth=0)


def mean_and_band(
    values: Float[np.ndarray, "seeds points"], *, log: bool = False
) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
    """Return the mean over seeds, and the mean less and plus one standard deviation (ddof 1; 0 of one seed).

    Args:
        values: Of each seed, of shape (seeds, points).
        log: Whether to take them of log y; what is not above zero is undefined (NaN) then.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if log:
        numbers = np.where(numbers > 0, numbers, np.nan)
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    if log:
        numbers = np.log(numbers)
    middle, spread = numbers.mean(axis=0), numbers.std(axis=0, ddof=1)
    low, high = middle - spread, middle + spread
    return (np.exp(middle), np.exp(low), np.exp(high)) if log else (middle, low, high)


def fit_height(figure: Figure, margin: float = 0.03) -> None:
    """Make a figure as high as what is in it, where panels of fixed proportions leave room or lack it."""
    for _ in range(2):  # the first changes the layout a little
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        figure.set_figheight(box.height + 2 * margin)


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int = 5) -> None:
    """Put a legend under all panels."""
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(columns, max(1, len(names))),
        frameon=False,
        fontsize=SMALL,
        handlelength=2.8,
        columnspacing=1.4,
        handletextpad=0.5,
        borderaxespad=0.2,
    )


def line_of(look: Look, *, markers: bool = True, line: Any = None) -> Line2D:
    """Make a line for a legend."""
    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=look.line if line is None else line,
        linewidth=_LINE,
        marker=look.marker if markers else None,
        markersize=_MARKER,
        markeredgecolor="white",
        markeredgewidth=0.3,
    )


def say_above(figure: Figure, lines: Sequence[str], most: int = 3) -> None:
    """Write what a reader has to know of a picture's runs above it, as a picture travels without its caption."""
    if not lines:
        return
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    text = f"Incomplete. {'; '.join([*(drawn_name(line, 200) for line in lines[:most]), *more])}"
    letters = int(_LETTERS * figure.get_figwidth() / WIDTH)
    figure.suptitle(textwrap.fill(text, letters), fontsize=TINY, color=GREY, fontstyle="italic")


def say_inside(axes: Axes, text: str) -> None:
    """Write in a panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL, color=GREY)
    # Ticks themselves may be shared with other panels.
    axes.tick_params(which="both", left=False, bottom=False, labelleft=False, labelbottom=False)
    axes.spines[:].set_visible(False)
