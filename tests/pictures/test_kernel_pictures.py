"""Pictures of kernels show the numbers they are given, sorted and scaled as they say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

from ntk_lpft import pictures
from ntk_lpft.errors import InputError
from ntk_lpft.statistics import Spectrum


def spectrum(values, tolerance=0.0):
    return Spectrum((len(values), len(values)), np.array(values), None, tolerance)


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_singular_values_are_divided_by_the_largest():
    figure = pictures.singular_values(
        {"P": spectrum([8.0, 4.0, 2.0, 0.0]), "F": torch.tensor([1e-3, 1e-1]), "P+F": np.array([5.0])}
    )
    first, second, third = figure.axes[0].get_lines()
    np.testing.assert_allclose(first.get_ydata(), [1, 0.5, 0.25, np.nan])
    np.testing.assert_array_equal(first.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(second.get_ydata(), [1, 1e-2], rtol=1e-6)
    np.testing.assert_allclose(third.get_ydata(), [1])
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert "largest" in axes.get_ylabel()
    assert axes.get_xlabel()


def test_singular_values_mark_the_rank():
    figure = pictures.singular_values({"P": spectrum([8.0, 4.0, 2.0, 1.0], tolerance=1.5), "F": np.array([2.0, 1.0])})
    with_rank, without = figure.axes[0].get_lines()
    assert with_rank.get_markevery() == [2]  # the third value
    assert with_rank.get_marker() not in ("", "None")
    assert without.get_marker() in ("", "None")
    assert legend_of(figure) == ["P, rank 3", "F"]


def test_a_rank_of_zero_has_no_marker():
    figure = pictures.singular_values({"P": spectrum([8.0, 4.0], tolerance=9.0)})
    assert figure.axes[0].get_lines()[0].get_marker() in ("", "None")
    assert legend_of(figure) == ["P, rank 0"]


@pytest.mark.parametrize("others", [{}, {"P": np.array([2.0, 1.0])}])
def test_a_kernel_of_zeros_is_named_and_has_no_line(others: dict[str, np.ndarray], tmp_path: Path):
    figure = pictures.singular_values({**others, "F": np.zeros(3)})
    assert legend_of(figure) == [*others, "F: zero"]
    assert len(figure.axes[0].get_lines()[-1].get_xdata()) == 0
    pictures.save(figure, tmp_path / "x.png")


def test_curves_differ_by_more_than_colour():
    figure = pictures.singular_values({str(index): np.array([2.0, 1.0]) for index in range(7)})
    lines = figure.axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 7
    # is_dashed() alone does not tell the dash patterns apart.
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 7


@pytest.mark.parametrize(
    ("spectra", "words"),
    [
        ({}, "0 spectra"),
        ({str(index): np.ones(2) for index in range(8)}, "8 spectra"),
        ({"F": np.array([])}, "spectrum of F"),
        ({"F": np.ones((2, 2))}, "spectrum of F"),
        ({"F": np.array([1.0, -1.0])}, "spectrum of F"),
        ({"F": np.array([1.0, np.nan])}, "spectrum of F"),
    ],
)
@pytest.mark.unchecked
def test_singular_values_refused(spectra, words):
    with pytest.raises(InputError, match=words):
        pictures.singular_values(spectra)


LABELS = torch.tensor([1, 0, 1, 2, 0, 1])
SORTED = [1, 4, 0, 2, 5, 3]
NAMES = ["entailment", "contradiction", "neutral"]


def blocks(seed):
    matrix = np.random.default_rng(seed).uniform(1, 2, size=(6, 6))
    return matrix + matrix.T


def test_heat_maps_are_sorted_by_class():
    p, f = blocks(0), blocks(1)
    figure = pictures.block_heat_maps(torch.from_numpy(p), f, LABELS, NAMES)
    for axes, name, matrix in zip(figure.axes[:2], ("P", "F"), (p, f), strict=True):
        (image,) = axes.get_images()
        expected = [[matrix[i, j] for j in SORTED] for i in SORTED]
        np.testing.assert_allclose(image.get_array(), expected)
        assert axes.get_title() == name
        assert [text.get_text() for text in axes.get_xticklabels()] == NAMES
        # Two, three and one samples: boundaries after the second and the fifth, names in the middle.
        np.testing.assert_allclose(axes.get_xticks(), [0.5, 3, 5])
        assert sorted({line.get_ydata()[0] for line in axes.get_lines() if line.get_ydata()[0] > 0}) == [1.5, 4.5]
    counted = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert counted == ["entailment\nn = 2", "contradiction\nn = 3", "neutral\nn = 1"]


def test_the_colour_scale_spans_different_samples_and_is_stated():
    matrix = blocks(0)
    off = matrix[~np.eye(6, dtype=bool)]
    np.fill_diagonal(matrix, 100.0)
    figure = pictures.block_heat_maps(matrix, blocks(1), LABELS, NAMES)
    (image,) = figure.axes[0].get_images()
    assert image.get_clim() == (off.min(), off.max())
    assert image.colorbar.extend == "max"
    assert "linear" in image.colorbar.ax.get_ylabel()


def test_a_class_without_samples_is_not_named():
    figure = pictures.block_heat_maps(np.eye(2), np.eye(2), torch.tensor([2, 0]), NAMES)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["entailment", "neutral"]


@pytest.mark.parametrize(
    ("p", "labels", "names", "words"),
    [
        (np.ones((5, 5)), LABELS, NAMES, "blocks of P"),
        (np.ones((6, 5)), LABELS, NAMES, "blocks of P"),
        (np.full((6, 6), np.nan), LABELS, NAMES, "blocks of P"),
        (np.ones((6, 6)), LABELS, NAMES[:2], "labels run"),
    ],
)
@pytest.mark.unchecked
def test_heat_maps_refused(p, labels, names, words):
    with pytest.raises(InputError, match=words):
        pictures.block_heat_maps(p, np.ones((6, 6)), labels, names)


def test_group_shares_are_bars_in_network_order_from_the_top():
    shares = {"embeddings": 0.2, "layer.0.attention": 0.7, "layer.0.output": 0.101, "norm": -0.001}
    figure = pictures.group_shares(shares, "Projection share in F")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(shares.values())
    assert [text.get_text() for text in axes.get_yticklabels()] == list(shares)
    low, high = axes.get_ylim()
    assert low > high  # the first on top
    assert [text.get_text() for text in axes.texts] == ["20.0%", "70.0%", "10.1%", "-0.1%"]
    assert axes.get_xlabel() == "Projection share in F"
    largest, *others = axes.patches[1], axes.patches[0], axes.patches[2], axes.patches[3]
    assert not any(same_color(largest.get_facecolor(), bar.get_facecolor()) for bar in others)
    assert axes.get_yticklabels()[1].get_fontweight() == "bold"


def test_many_groups_stay_readable():
    names = [f"layer.{index // 3}.{('attention', 'intermediate', 'output')[index % 3]}" for index in range(75)]
    figure = pictures.group_shares({name: (index + 1) / 2850 for index, name in enumerate(names)})
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))  # no overlap
    assert min(box.x0 for box in boxes) >= 0  # inside the picture
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text()] == ["2.6%"]


def test_group_shares_refused():
    with pytest.raises(InputError, match="no parameter groups"):
        pictures.group_shares({})
    with pytest.raises(InputError, match="'b'"):
        pictures.group_shares({"a": 1.0, "b": float("nan")})
