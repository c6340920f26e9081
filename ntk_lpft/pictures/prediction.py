"""Pictures of theory against practice: the error of one step against its size, and training beside its prediction."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.pictures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    SMALL_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    VERMILLION,
    Dashes,
    draw_grid,
    dress,
    empty_figure,
)

# Curves often coincide, so that each is thinner than those drawn before it.
_QUANTITIES = {
    "logits": ("logits", BLUE, "-", "o", 3.4),
    "logits_body_only": ("logits, body alone", ORANGE, "--", "s", 1.6),
    "features": ("features", GREEN, ":", "^", 1.6),
}
# Predictions are dashed, real runs solid.
_RUNS: dict[str, tuple[str, str, Dashes, float]] = {
    "all": ("real: all parameters", BLACK, "-", 4.2),
    "body": ("real: body alone", ORANGE, "-", 2.6),
    "head": ("real: head alone", SKY, "-", 2.6),
    "P": ("predicted: P", BLUE, "--", 1.7),
    "F": ("predicted: F", VERMILLION, (0, (6, 1.5, 1, 1.5)), 2.0),
    "P+F": ("predicted: P + F", PURPLE, (0, (2.5, 2.5)), 1.3),
}
_SPLITS = {"train": "Training samples", "eval": "Evaluation samples"}


@checked
def step_error_picture(errors: pd.DataFrame) -> Figure:
    """Draw the relative error of the one-step predictions against the size of the step, both logarithmic.

    Args:
        errors: What ``step_errors`` returns.

    Returns:
        The figure, with an axes for each split. A grey line of slope 1 is what first-order predictions run along; the
        prediction for the head alone, exact but for rounding, is given in words.

    Raises:
        InputError: No error is positive and finite.
    """
    drawn = errors[errors["quantity"].isin(_QUANTITIES)]
    drawn = drawn[np.isfinite(drawn["relative_error"]) & (drawn["relative_error"] > 0)]
    if drawn.empty:
        raise InputError("there are no errors to draw: nothing moved")
    splits = [split for split in _SPLITS if (drawn["split"] == split).any()]
    figure = empty_figure(0.9 + 3.5 * len(splits), 3.7)
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        of_split = drawn[drawn["split"] == split]
        for quantity, (label, colour, line, marker, width) in _QUANTITIES.items():
            curve = of_split[of_split["quantity"] == quantity].sort_values("learning_rate")
            if len(curve):
                axes.plot(
                    curve["learning_rate"],
                    curve["relative_error"],
                    color=colour,
                    linestyle=line,
                    linewidth=width,
                    marker=marker,
                    markersize=4 + 1.2 * width,
                    markeredgecolor="white",
                    label=label,
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        _guide(axes, of_split)
        _dress_panel(axes, _SPLITS[split])
        axes.set_xlabel("η, for the summed loss", fontsize=TEXT_SIZE)
    panels[0].set_ylabel("‖real − predicted‖ / ‖predicted‖", fontsize=TEXT_SIZE)
    panels[0].legend(frameon=False, fontsize=SMALL_SIZE, handlelength=3.2)
    figure.suptitle("One full-batch step: error of the first-order prediction", fontsize=TITLE_SIZE)
    head = errors[errors["quantity"] == "logits_head_only"]["relative_error"]
    if np.isfinite(head).any():
        worst = _power_of_ten(float(head[np.isfinite(head)].max()))
        figure.supxlabel(f"Logits, head alone: linear in V and b, error at most {worst}", fontsize=SMALL_SIZE)
    return figure


def _power_of_ten(value: float) -> str:
    if value == 0:
        return "0"
    digit, exponent = f"{value:.0e}".split("e")
    return f"${digit} \\cdot 10^{{{int(exponent)}}}$"


def _guide(axes: Axes, errors: pd.DataFrame) -> None:
    """Draw a line of slope 1 a little below the curves."""
    rates = np.array([errors["learning_rate"].min(), errors["learning_rate"].max()])
    ratio = float((errors["relative_error"] / errors["learning_rate"]).median())
    axes.plot(rates, ratio / 4 * rates, color="0.6", linewidth=1, label="slope 1", zorder=0)


@checked
def flow_picture(flow: pd.DataFrame, rate_in_eigenvalues: float) -> Figure:
    """Draw loss and accuracy over training, really trained (solid) and as P, F and P + F predict (dashed).

    Args:
        flow: What ``flow_table`` returns.
        rate_in_eigenvalues: η λ_max, λ_max being that of P + F, for the axis.

    Returns:
        The figure: a row each for loss and accuracy, a column for each split.

    Raises:
        InputError: There is nothing to draw.
    """
    splits = [split for split in _SPLITS if (flow["split"] == split).any()]
    runs = [run for run in _RUNS if (flow["run"] == run).any()]
    if not splits or not runs:
        raise InputError("there is no training to draw")
    figure = empty_figure(0.9 + 3.5 * len(splits), 5.2)
    panels = figure.subplots(2, len(splits), sharex=True, sharey="row", squeeze=False)
    for row, measure in zip(panels, ("loss", "accuracy"), strict=True):
        for axes, split in zip(row, splits, strict=True):
            chosen = flow[(flow["split"] == split) & (flow["measure"] == measure)]
            for run in runs:
                label, colour, line, width = _RUNS[run]
                curve = chosen[chosen["run"] == run].sort_values("step")
                axes.plot(curve["step"], curve["value"], color=colour, linestyle=line, linewidth=width, label=label)
            _dress_panel(axes, _SPLITS[split] if measure == "loss" else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.set_xlim(left=0)
    panels[0][0].set_ylabel("Cross-entropy, nats a sample", fontsize=TEXT_SIZE)
    panels[0][0].set_ylim(bottom=0)
    panels[1][0].set_ylabel("Accuracy", fontsize=TEXT_SIZE)
    panels[1][0].yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    for axes in panels[1]:
        axes.set_xlabel(f"Full-batch steps of η = {rate_in_eigenvalues:.3g} / $\\lambda_{{\\max}}$", fontsize=TEXT_SIZE)
    figure.suptitle("Training, and what the kernel at its start predicts", fontsize=TITLE_SIZE)
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns = len(runs) if len(runs) <= 4 else 3
    place = {"loc": "outside lower center", "ncols": columns, "frameon": False}
    figure.legend(handles, labels, fontsize=SMALL_SIZE, handlelength=3.2, **place)
    return figure


def _dress_panel(axes: Axes, title: str) -> None:
    dress(axes)
    draw_grid(axes)
    axes.set_title(title, fontsize=TEXT_SIZE)
