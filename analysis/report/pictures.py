"""Figures as they stand in the page: inside it, with words for those who cannot see them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import house_style

# A drawing of many points or cells is smaller as pixels, and looks the same at this resolution.
_MOST_VECTOR_BYTES = 300_000
_PIXELS_PER_INCH = 200
_CSS_PIXELS_PER_INCH = 96
_ON_SCREEN = 1.4  # figures are drawn for the column of a printed page, whose letters are small on a screen
_MOST_NAMES = 12
_MOST_PANELS_WITH_CURVES = 6  # more would be too long to listen to


@dataclass(frozen=True)
class Picture:
    """A picture within a page.

    Attributes:
        uri: A ``data:`` address that holds all of it.
        width: In CSS pixels.
        height: In CSS pixels.
        alt: What is drawn, in words.
    """

    uri: str
    width: int
    height: int
    alt: str


def picture_of(figure: Figure, title: str) -> Picture:
    """Turn a figure into a picture: as vectors, or as pixels where those would be many.

    Args:
        figure: The figure.
        title: What it shows, to begin the alternative text with.

    Returns:
        The picture, the same bytes for the same figure.
    """
    width, height = (round(inches * _CSS_PIXELS_PER_INCH * _ON_SCREEN) for inches in figure.get_size_inches())
    # Text as outlines looks the same on every machine; fixed salt and no date make the same page of the same results.
    with house_style(), matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "figure"}):
        data, kind = _drawn(figure, format="svg", metadata={"Date": None, "Creator": None}), "svg+xml"
        if len(data) > _MOST_VECTOR_BYTES:
            data, kind = _drawn(figure, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None}), "png"
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(uri, width, height, describe(figure, title))


def _drawn(figure: Figure, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **settings)
    return buffer.getvalue()


def describe(figure: Figure, title: str) -> str:
    """Say in words what is drawn: the panels, their axes, and where their curves begin and end."""
    axes = [one for one in figure.axes if one.get_visible() and one.get_label() != "<colorbar>" and one.has_data()]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    parts = [title.rstrip(".") + "."]
    if len(axes) > 1:
        parts.append(f"{len(axes)} panels.")
    parts += [_panel(one, with_curves=len(axes) <= _MOST_PANELS_WITH_CURVES) for one in axes]
    if legends:
        parts.append(f"Legend: {_list(legends)}.")
    return " ".join(" ".join(part.split()) for part in parts).replace(r"\$", "$")


def _panel(axes: Axes, *, with_curves: bool) -> str:
    title = axes.get_title() or axes.get_title("left") or axes.get_title("right")
    said = f"{_kind(axes)} “{title}”" if title else _kind(axes)
    labels = [text for text in (axes.get_ylabel(), axes.get_xlabel()) if text]
    if labels:
        said += f": {' against '.join(labels)}"
    curves = [words for line in axes.lines if (words := _curve(line))] if with_curves else []
    return said + (f". {_list(curves)}." if curves else ".")


def _kind(axes: Axes) -> str:
    if axes.images or any(isinstance(each, QuadMesh) for each in axes.collections):
        return "Heat map"
    return "Chart" if axes.lines else "Scatter plot"


def _curve(line: Line2D) -> str:
    """Say where a named curve begins and ends; nothing of a mark without a name, such as a line across the panel."""
    name, values = str(line.get_label()), np.asarray(line.get_ydata(), dtype=np.float64)
    values = values[np.isfinite(values)]
    if name.startswith("_") or len(values) < 2:
        return ""
    return f"{name}: from {values[0]:.3g} to {values[-1]:.3g}"


def _list(names: Sequence[str]) -> str:
    kept = list(dict.fromkeys(name for name in names if name))
    more = len(kept) - _MOST_NAMES
    return "; ".join(kept[:_MOST_NAMES]) + (f"; and {more} more" if more > 0 else "")
