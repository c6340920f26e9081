"""One style for all pictures, which leaves matplotlib as it was."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from ntk_lpft import pictures
from ntk_lpft.pictures.style import SMALL_SIZE, draw_grid, dress

# Red, green and blue from 0 to 255, as in the table of Okabe and Ito (2008), "Color universal design".
OKABE_ITO = {"BLACK": (0, 0, 0), "ORANGE": (230, 159, 0), "SKY": (86, 180, 233), "GREEN": (0, 158, 115),
             "BLUE": (0, 114, 178), "VERMILLION": (213, 94, 0), "PURPLE": (204, 121, 167)}  # fmt: skip


@pytest.mark.parametrize("name", OKABE_ITO)
def test_colours_are_those_of_okabe_and_ito(name: str) -> None:
    assert tuple(round(255 * part) for part in to_rgb(getattr(pictures, name))) == OKABE_ITO[name]


def test_any_two_curves_differ_in_colour_line_and_marker() -> None:
    assert len(pictures.CURVES) == pictures.MOST_CURVES == 7
    for one, other in combinations(pictures.CURVES, 2):
        assert one.colour != other.colour
        assert one.line != other.line
        assert one.marker != other.marker


def test_axes_are_dressed() -> None:
    figure = pictures.empty_figure(4, 3)
    axes = figure.subplots()
    dress(axes)
    draw_grid(axes, "y")
    figure.draw_without_rendering()
    assert [name for name, spine in axes.spines.items() if spine.get_visible()] == ["left", "bottom"]
    assert {label.get_fontsize() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]} == {SMALL_SIZE}
    assert [line.get_visible() for line in axes.get_xgridlines()] == [False] * len(axes.get_xticks())
    assert [line.get_visible() for line in axes.get_ygridlines()] == [True] * len(axes.get_yticks())
    assert tuple(figure.get_size_inches()) == (4, 3)


def test_matplotlib_keeps_its_settings(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    pictures.save(pictures.group_shares({"a": 1.0}), tmp_path / "a.png")
    pictures.singular_values({"P": np.ones(2)})
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
