"""Pictures of training show the numbers that were tracked, and stay readable at their edges."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntk_lpft import pictures
from ntk_lpft.pictures import feature_curves, head_scale_curves, training_curves

STEPS = {0: 0.0, 1: 0.25, 2: 0.5, 4: 1.0, 8: 2.0}
SPLITS = ("train", "validation", "test", "ood.sst5", "ood.semeval", "ood.dynasent", "ood.more")


def tracking(splits: tuple[str, ...] = SPLITS[:3], steps: dict[int, float] = STEPS) -> pd.DataFrame:
    """Make a table, its moments out of order, in which every value tells where it belongs."""
    rows = []
    for step, epoch in reversed(steps.items()):
        rows.append((step, epoch, "all", "head_norm", 1.0 + step))
        rows.append((step, epoch, "all", "head_norm.class_0", 99.0))
        for place, split in enumerate(splits):
            rows.append((step, epoch, split, "accuracy", 0.1 * place + 0.01 * step))
            rows.append((step, epoch, split, "feature_difference", 10.0 * place + step))
            rows.append((step, epoch, split, "fisher_discriminant_ratio", 10.0**place + step))
    return pd.DataFrame(rows, columns=["step", "epoch", "split", "measure", "value"])


def grid(factors: tuple[float, ...] = (4.0, 1.0, 0.5)) -> pd.DataFrame:
    rows = [
        {"head_scale": factor, "norm_at_start": 3 * factor, "split": split, "accuracy": 0.5 + 0.01 * factor,
         "feature_difference": 2 + factor}
        for factor in factors for split in SPLITS[:2]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def curves(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def names_in_legend(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def saved(figure: Figure, tmp_path: Path) -> None:
    """Draw it, as some faults show only then, and see that nothing is cut off."""
    pictures.save(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "x.png").stat().st_size < 300_000
    width, height = figure.canvas.get_width_height()
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width + 1
        assert 0 <= box.y0 < box.y1 <= height + 1
        for axes in figure.axes:
            assert box.x0 >= axes.get_window_extent().x1  # beside the curves


def test_head_norm_and_accuracy_over_epochs(tmp_path: Path) -> None:
    figure = training_curves(tracking())
    left, right = figure.axes
    ((x, y),) = curves(left).values()
    assert (x, y) == (list(STEPS.values()), [1.0 + step for step in STEPS])
    found = curves(right)
    assert list(found) == list(SPLITS[:3])
    assert found["test"][1] == pytest.approx([0.2 + 0.01 * step for step in STEPS])
    assert names_in_legend(figure) == list(SPLITS[:3])
    assert (left.get_xlabel(), right.get_xlabel()) == ("Epoch", "Epoch")
    saved(figure, tmp_path)


def test_a_norm_that_hardly_moves_looks_so() -> None:
    table = tracking()
    table.loc[table["measure"] == "head_norm", "value"] = 39.0 + 0.001 * np.arange(len(STEPS))
    low, high = training_curves(table).axes[0].get_ylim()
    assert high - low > 5


@pytest.mark.parametrize("measure", ["feature_difference", "fisher_discriminant_ratio"])
def test_features_over_epochs(tmp_path: Path, measure: str) -> None:
    figure = feature_curves(tracking(SPLITS), measure)
    (axes,) = figure.axes
    assert list(curves(axes)) == list(SPLITS)
    assert axes.get_yscale() == ("log" if measure.startswith("fisher") else "linear")
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.get_lines()}
    assert len(styles) == len(SPLITS)  # told apart without colours, too
    assert len({line.get_marker() for line in axes.get_lines()}) == len(SPLITS)
    saved(figure, tmp_path)


def test_no_split_is_left_out_however_many() -> None:
    splits = tuple(f"ood.{number}" for number in range(9))
    (axes,) = feature_curves(tracking(splits), "feature_difference").axes
    assert list(curves(axes)) == list(splits)


def test_what_is_undefined_is_left_out(tmp_path: Path) -> None:
    table = tracking()
    table.loc[(table["split"] == "test") & (table["step"] < 4), "value"] = math.nan
    table.loc[table["split"] == "validation", "value"] = math.nan
    figure = feature_curves(table, "fisher_discriminant_ratio")
    assert {name: x for name, (x, _) in curves(figure.axes[0]).items()} == {"train": list(STEPS.values()),
                                                                           "test": [1.0, 2.0]}  # fmt: skip
    saved(figure, tmp_path)
    table["value"] = math.nan
    saved(feature_curves(table, "fisher_discriminant_ratio"), tmp_path)
    saved(training_curves(table), tmp_path)


def test_a_probe_has_a_before_and_an_after(tmp_path: Path) -> None:
    table = tracking(steps={0: 0.0, 1: 1.0})
    for figure in (training_curves(table, probed=True), feature_curves(table, "feature_difference", probed=True)):
        saved(figure, tmp_path)
        for axes in figure.axes:
            assert [label.get_text() for label in axes.get_xticklabels()] == ["before LP", "after LP"]


def test_features_against_head_norm(tmp_path: Path) -> None:
    figure = head_scale_curves(grid())
    left, right = figure.axes
    found = curves(left)
    assert found["train"] == ([1.5, 3.0, 12.0], [2.5, 3.0, 6.0])
    assert found["original norm"][0] == [3.0, 3.0]
    assert curves(right)["validation"][1] == pytest.approx([0.505, 0.51, 0.54])
    assert left.get_xscale() == right.get_xscale() == "log"
    assert names_in_legend(figure) == ["train", "validation", "original norm"]
    saved(figure, tmp_path)


def test_a_head_of_zero_has_a_place(tmp_path: Path) -> None:
    figure = head_scale_curves(grid((0.0, 0.1, 1.0, 10.0)))
    low, _ = figure.axes[0].get_xlim()
    assert low < 0
    assert curves(figure.axes[0])["train"][0][0] == 0
    saved(figure, tmp_path)
    saved(head_scale_curves(grid((0.0, -0.0))), tmp_path)


def test_a_grid_without_the_original_has_no_line() -> None:
    assert "original norm" not in curves(head_scale_curves(grid((2.0, 4.0))).axes[0])
