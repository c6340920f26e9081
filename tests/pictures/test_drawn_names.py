"""Names from data are drawn letter by letter, whatever is in them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from ntk_lpft import pictures
from ntk_lpft.calibration import Bins
from ntk_lpft.pictures import drawn_name

NASTY = ["$20_$50", r"$\frac{$", "_two\nlines\0", "\ud800", "$" + "x" * 500]


def shown(figure: Figure) -> list[str]:
    """Draw a figure, and return what legends, titles and ticks say."""
    figure.draw_without_rendering()
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        texts += [text.get_text() for text in (axes.get_legend().get_texts() if axes.get_legend() else [])]
    return texts


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("positive", "positive"),
        ("$20_$50", r"\$20_\$50"),
        (r"\$", r"\\$"),
        ("_hidden", " _hidden"),
        ("a\nb\0", "a\ufffdb\ufffd"),
        ("\udcff", "\ufffd"),
        (3, "3"),
        ("a" * 20 + "b" * 20, "a" * 20 + "b" * 20),
        ("a" * 30 + "b" * 30, "a" * 20 + "…" + "b" * 19),
    ],
)
def test_what_is_drawn(name: object, drawn: str) -> None:
    assert drawn_name(name) == drawn


def kernels(name: str) -> list[Figure]:
    return [
        pictures.singular_values({name: np.array([2.0, 1.0])}),
        pictures.group_shares({name: 0.4, "other": 0.6}),
        pictures.block_heat_maps(np.eye(4), np.eye(4), torch.tensor([0, 0, 1, 1]), [name, "other"]),
    ]


def training(name: str) -> list[Figure]:
    log = pd.DataFrame(
        [[s, s, split, m, 0.1 + s] for s in (0, 1) for split, m in [("all", "head_norm"), (name, "accuracy"),
                                                                    (name, "feature_difference")]],
        columns=["step", "epoch", "split", "measure", "value"],
    )  # fmt: skip
    grid = pd.DataFrame(
        {"head_scale": [1.0, 2.0], "norm_at_start": [1.0, 2.0], "split": name, "feature_difference": [1.0, 2.0],
         "accuracy": [0.5, 0.6]}
    )  # fmt: skip
    return [
        pictures.training_curves(log),
        pictures.feature_curves(log, "feature_difference"),
        pictures.head_scale_curves(grid),
    ]


def calibration(name: str) -> list[Figure]:
    bins = Bins(np.linspace(0, 1, 3), np.array([2, 3]), np.array([0.5, 1.0]), np.array([0.4, 0.6]))
    norms = np.array([1.0, 2.0])
    curve = pictures.NormCurve(name, norms, np.array([0.5, 0.6]), (1.0, 0.5), (2.0, 0.6), 0.5)
    return [
        pictures.reliability_diagram(bins, bins, f"{name}: test", (name, name)),
        pictures.confidence_against_head_norm([curve], norms_known=True, split=name),
    ]


@pytest.mark.parametrize("name", NASTY)
def test_pictures_of_any_names(name: str) -> None:
    # A table of pandas takes no lone surrogate.
    figures = [*kernels(name), *calibration(name), *(training(name) if name != "\ud800" else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of a letter that the font lacks
        for figure in figures:
            figure.draw_without_rendering()
    for figure in figures[:3]:  # those of kernels, which name what they show at the axes
        assert any(drawn_name(name, most) in text for most in (24, 40, 60) for text in shown(figure))
