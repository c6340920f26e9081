"""What is drawn, from results written by hand: every point against one worked out on paper."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.drawn_results import METHODS, Folder, clouds, signed
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from figures import caption, draw
from figures.style import METHODS as LOOKS


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "results")


def panel(figure: Figure, title: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title() == title]
    return found


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Points of the curves; not the two ends of vertical lines."""
    return [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in axes.get_lines()
            if line.get_transform() == axes.transData]  # fmt: skip


def line_in(axes: Axes, colour: str) -> tuple[list[float], list[float]]:
    (found,) = [line for line in axes.get_lines() if line.get_color() == colour and len(line.get_xdata()) > 2]
    return np.asarray(found.get_xdata()).tolist(), np.asarray(found.get_ydata()).tolist()


def band_at(axes: Axes, x: float) -> tuple[float, float]:
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices
    at = heights[np.isclose(heights[:, 0], x), 1]
    return at.min(), at.max()


def standing_lines(axes: Axes) -> list[float]:
    ends = [line.get_xdata() for line in axes.get_lines() if line.get_transform() != axes.transData]
    return sorted(float(start) for start, end in ends if start == end)


def test_training_means_and_bands(folder: Folder) -> None:
    folder.training("probe", "cb", "lp", 1, {0: 1.0, 1: 2.0, 2: 4.0}, accuracy=0.6)
    folder.training("probe", "cb", "lp", 2, {0: 1.0, 1: 4.0, 2: 6.0}, accuracy=0.8)
    folder.training("finetune", "cb", "ft", 1, {0.0: 1.0, 0.5: 7.0, 1.0: 2.0})
    folder.training("finetune", "cb", "ft", 2, {0.0: 1.0, 1.0: 3.0})  # without the moment 0.5
    folder.training("finetune", "rte", "ft", 2, {0.0: 50.0, 1.0: 60.0})  # of another data set
    figure = draw(folder.read(), "figure1")
    probe_norm, ft_norm, probe_accuracy, ft_accuracy = figure.axes
    assert lines(probe_norm) == [([0, 1, 2], [1, 3, 5])]
    low, high = band_at(probe_norm, 1.0)
    assert (low, high) == pytest.approx((3 - math.sqrt(2), 3 + math.sqrt(2)))
    assert lines(ft_norm) == [([0, 1], [1, 2.5])]
    training, validation = lines(probe_accuracy)
    assert training[1] == pytest.approx([0.7] * 3)
    assert validation[1] == pytest.approx([0.5] * 3)
    assert [y for _, y in lines(ft_accuracy)] == [[0.5, 0.5], [0.3, 0.3]]
    assert probe_norm.get_ylim() == ft_norm.get_ylim()  # norms can be compared
    assert probe_norm.get_lines()[0].get_color() == LOOKS["lp"].colour
    assert ft_norm.get_lines()[0].get_color() == LOOKS["ft"].colour
    assert "mean over 2 seeds" in caption(folder.read(), "figure1")


@pytest.mark.parametrize("name", ["figure1", "figure4"])
@pytest.mark.parametrize(("after_lp", "after_ft"), [(3.0, 50.0), (50.0, 3.0)])
def test_a_shared_axis_holds_both_panels(folder: Folder, name: str, after_lp: float, after_ft: float) -> None:
    folder.training("probe", "cb", "lp", 1, {0: 2.0, 1: after_lp}, accuracy=0.9)
    folder.training("finetune", "cb", "ft", 1, {0.0: 2.0, 1.0: after_ft}, accuracy=0.4)
    drawn = [axes for axes in draw(folder.read(), name).axes if axes.lines]
    assert len(drawn) == 4
    for axes in drawn:
        low, high = axes.get_ylim()
        heights = [y for _, ys in lines(axes) for y in ys]
        assert low < min(heights)
        assert high > max(heights)
    assert sorted(axes.get_ylim()[0] == 0 for axes in drawn) == [False, False, True, True]


def test_a_longer_run_below_a_shorter_one_is_whole(folder: Folder) -> None:
    for dataset, epochs in (("rte", 1.0), ("cb", 7.0)):
        folder.training("finetune", dataset, "ft", 1, {0.0: 2.0, epochs: 3.0})
        folder.training("probe", dataset, "lp", 1, {0: 2.0, int(10 * epochs): 3.0})
    longest = {"LP iteration": 70, "FT epoch": 7}
    found = [axes.get_xlim()[1] > longest[label] for axes in draw(folder.read(), "figure4").axes
             if (label := axes.get_xlabel())]  # fmt: skip
    assert found == [True] * 4


def test_every_data_set_has_its_row(folder: Folder) -> None:
    for dataset, norm in (("rte", 5.0), ("cb", 9.0)):
        folder.training("probe", dataset, "lp", 1, {0: 1.0, 1: norm})
        folder.training("finetune", dataset, "ft", 1, {0.0: 1.0, 1.0: 2 * norm})
    figure = draw(folder.read(), "figure4")
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["rte", "cb"]
    rows = [figure.axes[:4], figure.axes[4:]]
    for row, norm in zip(rows, (5.0, 9.0), strict=True):
        assert lines(row[0]) == [([0, 1], [1, norm])]
        assert lines(row[1]) == [([0, 1], [1, 2 * norm])]
        assert not row[0].collections  # one seed has no band
    assert "Lines: one seed." in caption(folder.read(), "figure4")


def test_singular_values_are_divided_by_the_largest(folder: Folder) -> None:
    # ⟨φ, φ'⟩ + 1 has the eigenvalues 8 and 2, so that P has 8, 8, 2, 2.
    features = [[5.0, 3.0], [3.0, 5.0]]
    for seed, values in ((1, [0.5, 4.0, 2.0, 1.0]), (2, [8.0, 0.25, 1.0, 0.5])):
        f = torch.diag(torch.tensor(values)).reshape(2, 2, 2, 2)
        folder.kernel("cb", "ft", seed, features, f, [0, 1], ["a", "b"])
    folder.kernel("cb", "lora", 1, features, torch.zeros(2, 2, 2, 2), [0, 1], ["a", "b"])
    figure = draw(folder.read(), "figure2")
    (axes,) = figure.axes
    p, f = lines(axes)
    assert p[0] == f[0] == [1, 2, 3, 4]
    assert p[1] == pytest.approx([1, 1, 0.25, 0.25])
    # Shares 1, ½, ¼, ⅛ and 1, ⅛, 1/16, 1/32: their geometric means.
    assert f[1] == pytest.approx([1, 0.25, 0.125, 0.0625])
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["P", "F, FT"]  # F = 0 has no share


def test_feature_difference_against_norm(folder: Folder) -> None:
    folder.grid("cb", "ft", 1, 1.0, {"test": {2.0: 4.0, 0.5: 1.0, 1.0: 2.0}, "train": {1.0: 77.0}})
    folder.grid("cb", "ft", 2, 1.0, {"test": {0.5: 4.0, 1.0: 8.0, 2.0: 16.0, 5.0: 3.0}})
    folder.grid("cb", "lp-ft", 1, 10.0, {"test": {0.5: 0.3, 1.0: 0.2, 2.0: 0.1}})
    figure = draw(folder.read(), "figure3")
    (axes,) = figure.axes
    across, up = line_in(axes, LOOKS["ft"].colour)
    assert across == pytest.approx([0.5, 1.0, 2.0])  # the factor 5 was run with one seed alone
    assert up == pytest.approx([2.0, 4.0, 8.0])  # geometric means
    low, high = band_at(axes, 1.0)
    assert (low, high) == pytest.approx((4 / 2 ** math.sqrt(2), 4 * 2 ** math.sqrt(2)))
    assert line_in(axes, LOOKS["lp-ft"].colour) == ([5, 10, 20], [0.3, 0.2, 0.1])
    assert standing_lines(axes) == pytest.approx([1.0, 10.0])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_heads_of_very_different_norms_are_not_averaged(folder: Folder) -> None:
    for seed, norm in ((1, 10.0), (2, 1000.0)):
        folder.grid("cb", "lp-ft", seed, norm, {"test": {1.0: 0.1 * seed, 2.0: 0.05 * seed}})
    (axes,) = draw(folder.read(), "figure3").axes
    assert lines(axes) == [([10, 20], [0.1, 0.05]), ([1000, 2000], [0.2, 0.1])]
    assert standing_lines(axes) == [10, 1000]
    assert "each seed has a line of its own" in caption(folder.read(), "figure3")


def test_ood_tests_have_a_panel_each(folder: Folder) -> None:
    folder.grid("amazon-snippets", "ft", 1, 1.0, {"test": {1.0: 9.0}, "ood.a": {1.0: 3.0}, "ood.b": {1.0: 4.0}})
    folder.grid("cb", "ft", 1, 1.0, {"test": {1.0: 9.0}})
    figure = draw(folder.read(), "figure11")
    assert {axes.get_title(): lines(axes) for axes in figure.axes} == {"a": [([1], [3])], "b": [([1], [4])]}
    assert [axes.get_title() for axes in draw(folder.read(), "figure10").axes] == ["amazon-snippets", "cb"]


def test_heat_maps_are_sorted_by_class_and_span_different_samples(folder: Folder) -> None:
    strengths = [[9.0, 1.0, 3.0], [1.0, 9.0, 2.0], [3.0, 2.0, 9.0]]
    features = [[70.0, 10.0, 20.0], [10.0, 80.0, 30.0], [20.0, 30.0, 90.0]]
    folder.kernel("cb", "ft", 1, features, signed(strengths), [1, 0, 1], ["no", "yes"])
    folder.kernel("cb", "ft", 2, features, 5 * signed(strengths), [1, 0, 1], ["no", "yes"])
    figure = draw(folder.read(), "figure8")
    # The middle sample comes first. Trace norms of F are 2·|a|: 2, 4 and 6 between different samples.
    f = panel(figure, "F, FT")
    assert np.asarray(f.images[0].get_array()).tolist() == [[1, 0, 0.5], [0, 1, 1], [0.5, 1, 1]]
    assert f.get_xlabel() == "2 – 6"
    # Of P they are C·k: 20, 40 and 60.
    p = panel(figure, "P")
    assert np.asarray(p.images[0].get_array()).tolist() == [[1, 0, 1], [0, 1, 0.5], [1, 0.5, 1]]
    assert p.get_xlabel() == "20 – 60"
    assert standing_lines(f) == [0.5]  # between the first sample and the two of the other class
    assert "Samples of seed 1." in caption(folder.read(), "figure8")
    (key,) = [axes for axes in figure.axes if axes.texts]
    assert key.texts[0].get_text() == "Classes (samples)\n1  no (1)\n2  yes (2)"


def test_features_that_stay_lie_where_they_were(folder: Folder) -> None:
    for method in METHODS:
        folder.features("cb", method, 1, 1e-4 if method.startswith("lp") else 60.0)
    figure = draw(folder.read(), "figure6")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Before", "After FT", "After LP-FT", "After LoRA", "After LP-LoRA"]
    places = {axes.get_title(): samples_in(axes) for axes in figure.axes}
    before = places["Before"]
    extent = np.ptp(np.concatenate(list(places.values())), axis=0).max()
    assert np.linalg.norm(places["After LP-FT"] - before, axis=1).max() < 0.1 * extent
    nearest = np.linalg.norm(places["After FT"][:, None] - before[None], axis=2).min(axis=1)
    assert nearest.min() > 0.1 * extent
    again = draw(folder.read(), "figure6")
    assert all((samples_in(axes) == places[axes.get_title()]).all() for axes in again.axes)
    said = caption(folder.read(), "figure6")
    assert "embedded as further points" in said
    assert "test samples (cb 12)" in said


def test_each_class_and_each_head_row_is_marked(folder: Folder) -> None:
    folder.features("cb", "ft", 1, 1.0, count=13)
    folder.features("cb", "lp-ft", 1, 1.0, count=13)
    figure = draw(folder.read(), "figure5")
    before, after_ft, _ = figure.axes
    _, labels = clouds(13, 2)
    _, first, second, *stars = scatters(before)
    assert [len(first.get_offsets()), len(second.get_offsets())] == [(labels == 0).sum(), (labels == 1).sum()]
    assert first.get_paths()[0].vertices.shape != second.get_paths()[0].vertices.shape  # markers differ
    assert len(stars) == 4  # two rows of the random and two of the probed head
    assert len(scatters(after_ft)) == 3 + 2
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["kind 0", "kind 1"]


def scatters(axes: Axes) -> list[PathCollection]:
    return [found for found in axes.collections if isinstance(found, PathCollection)]


def samples_in(axes: Axes) -> np.ndarray:
    """Places of the samples of two classes, class by class; the first scatter is that of the other panels."""
    _, first, second, *_ = scatters(axes)
    return np.concatenate([first.get_offsets(), second.get_offsets()])
