"""Pictures of predictions show the numbers of their tables, real runs apart from predicted ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ntk_lpft.errors import InputError
from ntk_lpft.pictures import flow_picture, step_error_picture


def lines_of(figure: Figure, place: int = 0) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in figure.axes[place].get_lines()}


def error_table() -> pd.DataFrame:
    rates = np.geomspace(1e-6, 1e-2, 5)
    factors = {"logits": 2, "features": 5, "logits_body_only": 3}
    errors = {quantity: factor * rates for quantity, factor in factors.items()} | {
        "logits_head_only": 0 * rates + 3e-13
    }
    rows = [
        {"learning_rate": rate, "split": split, "quantity": quantity, "relative_error": error}
        for split in ("train", "eval")
        for quantity, values in errors.items()
        for rate, error in zip(rates, values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_errors_are_drawn_against_the_learning_rate() -> None:
    figure = step_error_picture(error_table())
    assert [axes.get_title() for axes in figure.axes] == ["Training samples", "Evaluation samples"]
    for place, axes in enumerate(figure.axes):
        assert axes.get_xscale() == axes.get_yscale() == "log"
        lines = lines_of(figure, place)
        assert set(lines) == {"logits", "logits, body alone", "features", "slope 1"}
        np.testing.assert_allclose(lines["features"], 5 * np.geomspace(1e-6, 1e-2, 5))
        assert np.log10(lines["slope 1"][1] / lines["slope 1"][0]) == pytest.approx(4)
        assert len({line.get_linestyle() for line in axes.get_lines()[:3]}) == 3
    assert "10^{-13}" in figure.get_supxlabel()


def test_errors_without_evaluation_samples_make_one_panel() -> None:
    table = error_table()
    figure = step_error_picture(table[table["split"] == "train"])
    assert len(figure.axes) == 1
    with pytest.raises(InputError, match="nothing moved"):
        step_error_picture(table.assign(relative_error=np.nan))


def test_training_is_drawn_beside_its_predictions() -> None:
    rows = [
        (step, split, run, measure, value)
        for split in ("train", "eval")
        for place, run in enumerate(("P", "F", "P+F", "all"))
        for step, value in ((0, 0.9), (3, 0.1 * place))
        for measure in ("loss", "accuracy")
    ]
    table = pd.DataFrame(rows, columns=["step", "split", "run", "measure", "value"])
    figure = flow_picture(table, 0.5)
    assert len(figure.axes) == 4
    for place, axes in enumerate(figure.axes):
        lines = lines_of(figure, place)
        np.testing.assert_allclose(lines["predicted: F"], [0.9, 0.1])
        np.testing.assert_allclose(lines["real: all parameters"], [0.9, 0.3])
        solid = [line.get_label() for line in axes.get_lines() if line.get_linestyle() == "-"]
        assert solid == ["real: all parameters"]
    assert "0.5" in figure.axes[2].get_xlabel()
    with pytest.raises(InputError, match="no training to draw"):
        flow_picture(table[:0], 0.5)
