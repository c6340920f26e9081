"""The one style of the library's pictures: colours, curves, the size of text, empty figures and the look of axes.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart, and no curve differs by colour alone.
"""

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
TEXT_SIZE = 9  # points
SMALL_SIZE, TITLE_SIZE = TEXT_SIZE - 1, TEXT_SIZE + 1

Dashes = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class CurveStyle:
    """How one curve is told from others.

    Attributes:
        colour: Of line and marker.
        line: Dashes, as matplotlib writes them.
        marker: Where there are points.
    """

    colour: str
    line: Dashes
    marker: str


CURVES = (
    CurveStyle(BLUE, "-", "o"),
    CurveStyle(VERMILLION, "--", "s"),
    CurveStyle(GREEN, "-.", "^"),
    CurveStyle(PURPLE, ":", "v"),
    CurveStyle(ORANGE, (0, (5, 2)), "P"),
    CurveStyle(SKY, (0, (3, 1, 1, 1)), "X"),
    CurveStyle(BLACK, (0, (1, 1)), "D"),
)
MOST_CURVES = len(CURVES)  # more cannot be told apart in a picture

# Lines that cross darken each other to the eye, so that those of both directions are paler.
_GRID_GREYS = {"x": "0.9", "y": "0.9", "both": "0.92"}


def empty_figure(width: float, height: float) -> Figure:
    """Make a figure of its own, outside pyplot's list of figures, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes) -> None:
    """Take off the frame above and on the right, and write ticks in small letters."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL_SIZE)


def draw_grid(axes: Axes, axis: Literal["x", "y", "both"] = "both") -> None:
    """Draw pale lines at the ticks of one axis, or of both."""
    axes.grid(axis=axis, color=_GRID_GREYS[axis], linewidth=0.6)
