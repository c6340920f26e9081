"""Pictures of calibration show the numbers they are given, and what is before and after scaling."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ntk_lpft import pictures
from ntk_lpft.calibration import Bins
from ntk_lpft.errors import InputError

EDGES = np.linspace(0, 1, 5)
# Ten samples; the first bin is empty. Mean accuracy 0.2·0.5 + 0.3·1 + 0.5·0.6 = 0.7, mean confidence 0.66.
BEFORE = Bins(EDGES, np.array([0, 2, 3, 5]), np.array([np.nan, 0.5, 1.0, 0.6]), np.array([np.nan, 0.4, 0.6, 0.8]))
AFTER = Bins(EDGES, np.array([0, 0, 10, 0]), np.array([np.nan, np.nan, 0.7, np.nan]),
             np.array([np.nan, np.nan, 0.72, np.nan]))  # fmt: skip


def diagram() -> Figure:
    return pictures.reliability_diagram(BEFORE, AFTER, "cb: test", ("before", "after"))


def boxes(axes: Axes) -> list[tuple[float, float, float]]:
    """Left end, foot and signed height of each bar."""
    return [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in axes.patches if isinstance(bar, Rectangle)]


def test_bars_are_accuracies_with_gaps_to_the_confidence() -> None:
    before, after, *_ = diagram().axes
    assert [axes.get_title() for axes in (before, after)] == ["before", "after"]
    accuracy, gap = boxes(before)[:3], boxes(before)[3:]
    np.testing.assert_allclose(accuracy, [(0.25, 0, 0.5), (0.5, 0, 1.0), (0.75, 0, 0.6)])
    # From the accuracy to the confidence.
    np.testing.assert_allclose(gap, [(0.25, 0.5, -0.1), (0.5, 1.0, -0.4), (0.75, 0.6, 0.2)])
    np.testing.assert_allclose(boxes(after), [(0.5, 0, 0.7), (0.5, 0.7, 0.02)])
    assert before.get_xlim() == before.get_ylim() == (0, 1)


def test_below_is_the_share_of_each_bin_with_both_means() -> None:
    *_, before, after = diagram().axes
    np.testing.assert_allclose(boxes(before), [(0, 0, 0), (0.25, 0, 0.2), (0.5, 0, 0.3), (0.75, 0, 0.5)])
    means = {line.get_linestyle(): line.get_xdata()[0] for line in before.get_lines()}
    assert means == {"-": pytest.approx(0.7), "--": pytest.approx(0.66)}
    assert before.get_ylim() == after.get_ylim()
    assert after.get_ylim()[1] == 1  # all samples of one bin fit


def curve(name: str, scale: float = 1.0, accuracy: float = 0.7) -> pictures.NormCurve:
    norm = scale * np.array([1.0, 2.0, 4.0])
    return pictures.NormCurve(name, norm, np.array([0.5, 0.7, 0.9]), (4 * scale, 0.9), (2 * scale, 0.7), accuracy)


def test_a_classifier_moves_along_its_curve() -> None:
    figure = pictures.confidence_against_head_norm([curve("ft")], norms_known=True, split="test")
    (axes,) = figure.axes
    line, before, after, level = axes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 4])
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 0.7, 0.9])
    assert (list(before.get_xdata()), list(before.get_ydata())) == ([4], [0.9])
    assert (list(after.get_xdata()), list(after.get_ydata())) == ([2], [0.7])
    assert before.get_markerfacecolor() == line.get_color()
    assert same_color(after.get_markerfacecolor(), "white")
    assert list(level.get_ydata()) == [0.7, 0.7]
    assert axes.get_xscale() == "log"
    assert "‖V‖" in axes.get_xlabel()
    assert "test" in axes.get_ylabel()
    assert legend_of(figure) == ["ft", "before scaling", "after scaling", "accuracy"]


def test_runs_of_one_method_share_a_look_and_a_mean_accuracy() -> None:
    runs = [curve("ft"), curve("ft", 2.0, 0.8), curve("lp-ft", 3.0)]
    figure = pictures.confidence_against_head_norm(runs, norms_known=False, split="test")
    lines = figure.axes[0].get_lines()
    first, second, third = lines[0], lines[3], lines[6]
    assert first.get_color() == second.get_color() != third.get_color()
    markers = [lines[place].get_marker() for place in (1, 4, 7)]
    assert markers[0] == markers[1] != markers[2]
    assert [line.get_ydata()[0] for line in lines[9:]] == pytest.approx([0.75, 0.7])
    assert "relative" in figure.axes[0].get_xlabel()
    assert legend_of(figure) == ["ft", "lp-ft", "before scaling", "after scaling", "mean accuracy"]


def test_one_classifier_without_a_name_has_none_in_the_legend() -> None:
    figure = pictures.confidence_against_head_norm([curve("")], norms_known=True, split="test")
    assert legend_of(figure) == ["before scaling", "after scaling", "accuracy"]


@pytest.mark.parametrize("count", [0, 8])
def test_more_methods_than_can_be_told_apart_are_refused(count: int) -> None:
    curves = [curve(f"method {number}") for number in range(count)]
    with pytest.raises(InputError, match=f"there are {count} methods"):
        pictures.confidence_against_head_norm(curves, norms_known=True, split="test")


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]
