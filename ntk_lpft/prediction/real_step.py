"""One real step of full-batch gradient descent, and how far the first-order predictions are from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.classifier.classifier import Classifier, Outputs
from ntk_lpft.errors import InputError
from ntk_lpft.prediction.descent import Descent, check_learning_rate, descent
from ntk_lpft.prediction.one_step import QUANTITIES, Change, StepPrediction, predict_step


@dataclass(frozen=True, eq=False)
class Step:
    """One real full-batch gradient step on the summed cross-entropy.

    Attributes:
        learning_rate: η, for the sum over the training samples.
        part: Which parameters moved: ``all``, those of the ``head``, or of the ``body``.
        before: φ0 and f0 of ``train`` and, where there are such samples, ``eval``.
        after: φ and f after the step.
    """

    learning_rate: float
    part: str
    before: dict[str, Outputs]
    after: dict[str, Outputs]

    def logit_change(self, split: str = "train") -> Float64[Tensor, "n c"]:
        """Compute f − f0."""
        return self.after[split].logits - self.before[split].logits

    def feature_change(self, split: str = "train") -> Float64[Tensor, "n h"]:
        """φ − φ0."""
        return self.after[split].features - self.before[split].features


def take_step(
    model: nn.Module | Classifier,
    train: Any,
    labels: Int[Tensor, " n"],
    learning_rate: float,
    evaluation: Any = None,
    *,
    part: str = "all",
    precision: str = "float64",
    device: str | None = None,
) -> Step:
    """Take one step of plain full-batch SGD on Σ_i CE(f(x_i), y_i) in eval mode, measure it, and take it back.

    Args:
        model: As for ``compute_ntk``. Its parameters with ``requires_grad`` move, and are put back bit by bit.
        train: Training samples.
        labels: Their classes, of shape (N,).
        learning_rate: η, for the sum over the training samples.
        evaluation: More samples to measure; None for none.
        part: Which parameters move: ``all``, those of the ``head``, or of the ``body``.
        precision: As for ``compute_ntk``.
        device: As for ``compute_ntk``.

    Returns:
        Features and logits before and after.

    Raises:
        InputError: η is not a positive number, labels that do not fit, or as for ``compute_ntk``.
    """
    check_learning_rate(learning_rate)
    with descent(model, train, labels, evaluation, part=part, precision=precision, device=device) as moving:
        before = moving.state()
        moving.step(moving.gradients(), learning_rate)
        return Step(learning_rate, part, before, moving.state())


def step_errors(
    model: nn.Module | Classifier,
    train: Any,
    labels: Int[Tensor, " n"],
    evaluation: Any = None,
    learning_rates: Sequence[float] | None = None,
    *,
    prediction: StepPrediction | None = None,
    precision: str = "float64",
    device: str | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compare real steps of several sizes with the predicted: ‖real − predicted‖_F / ‖predicted‖_F for each split.

    The predictions are first order, so that the error of ``logits``, ``features`` and ``logits_body_only`` falls
    linearly with η until rounding takes over. That of ``logits_head_only`` is rounding alone: f is linear in V and b.

    Each η is one real step of all parameters. Its features are those of a step of the body alone, since the gradients
    are taken at the same weights; so body and head alone change the logits by V0 (φ − φ0) and (V − V0) φ0 + b − b0.

    Args:
        model: As for ``compute_ntk``. Its parameters with ``requires_grad`` move, and are put back bit by bit.
        train: Training samples.
        labels: Their classes, of shape (N,).
        evaluation: More samples to measure; None for none.
        learning_rates: The sizes η; None takes `StepPrediction.learning_rates`.
        prediction: What `predict_step` says of exactly this model and these samples; None asks it.
        precision: As for ``compute_ntk``.
        device: As for ``compute_ntk``.
        progress: Whether to show progress bars.

    Returns:
        A row for each η, split and quantity: ``learning_rate``, ``split``, ``quantity``, ``relative_error`` (NaN where
        neither moves, infinite where the real alone does), ``actual_norm`` and ``predicted_norm``. Parts of the model
        without trainable parameters have no rows.

    Raises:
        InputError: As for `take_step` and `predict_step`, or there are no learning rates.
    """
    if learning_rates is not None and not len(learning_rates):
        raise InputError("there are no learning rates to compare steps at; give at least one")
    for learning_rate in learning_rates or ():
        check_learning_rate(learning_rate)
    if prediction is None:
        prediction = predict_step(
            model, train, labels, evaluation, precision=precision, device=device, progress=progress
        )
    chosen = prediction.learning_rates() if learning_rates is None else learning_rates
    rows: list[dict[str, Any]] = []
    with descent(model, train, labels, evaluation, precision=precision, device=device) as moving:
        before, gradients = moving.state(), moving.gradients()
        for learning_rate in tqdm(chosen, desc="real steps", unit="step", delay=1, disable=not progress):
            moving.step(gradients, learning_rate)
            for split, change in _real_changes(moving, before).items():
                rows += _compare(learning_rate, split, change, prediction.change(learning_rate, split), moving)
            moving.restore()
    return pd.DataFrame(rows)


class _RealChange(NamedTuple):
    """Changes of one split in a real step, each under the name that `QUANTITIES` gives it."""

    logits: Float64[Tensor, "n c"]
    features: Float64[Tensor, "n h"]
    logits_head_only: Float64[Tensor, "n c"]
    logits_body_only: Float64[Tensor, "n c"]


def _real_changes(moving: Descent, before: Mapping[str, Outputs]) -> dict[str, _RealChange]:
    """Measure what changed from ``before``, the state at the start, to the weights as they are now."""
    head = moving.setup.classifier.head

    def start(local: str, parameter: Tensor) -> Tensor:
        return moving.own.get(f"{head.name}.{local}", parameter.data).double().cpu()

    weight, bias = head.module.weight, head.module.bias
    weight0 = start("weight", weight)
    weight_change = weight.data.double().cpu() - weight0
    bias_change = weight0.new_zeros(len(weight0)) if bias is None else bias.data.double().cpu() - start("bias", bias)
    changes = {}
    for split, after in moving.state().items():
        features = after.features - before[split].features
        head_only = before[split].features @ weight_change.T + bias_change
        changes[split] = _RealChange(after.logits - before[split].logits, features, head_only, features @ weight0.T)
    return changes


def _compare(
    learning_rate: float, split: str, real: _RealChange, predicted: Change, moving: Descent
) -> list[dict[str, Any]]:
    has_body, has_head = bool(moving.setup.parameters), len(moving.parameters) > len(moving.setup.parameters)
    present = {"logits": True, "features": has_body, "logits_head_only": has_head, "logits_body_only": has_body}
    rows = []
    for quantity in (name for name in QUANTITIES if present[name]):
        actual, expected = getattr(real, quantity), predicted.quantity(quantity)
        rows.append(
            {
                "learning_rate": learning_rate,
                "split": split,
                "quantity": quantity,
                "relative_error": relative_error(actual, expected),
                "actual_norm": float(actual.norm()),
                "predicted_norm": float(expected.norm()),
            }
        )
    return rows


def relative_error(actual: Float64[Tensor, "n k"], predicted: Float64[Tensor, "n k"]) -> float:
    """‖actual − predicted‖_F / ‖predicted‖_F; NaN for 0/0, infinite where ‖predicted‖ alone is 0."""
    difference, scale = float((actual - predicted).norm()), float(predicted.norm())
    if scale == 0:
        return math.nan if difference == 0 else math.inf
    return difference / scale


def error_slopes(errors: pd.DataFrame) -> pd.DataFrame:
    """Compute the slope of log error against log η, which is 1 where the error falls linearly with η.

    Args:
        errors: What `step_errors` returns.

    Returns:
        A row for each split and quantity: ``split``, ``quantity`` and ``slope``, the median of the slopes between
        neighbouring learning rates, which neither rounding at one end nor curvature at the other moves much; NaN with
        fewer than two learning rates. ``logits_head_only`` is left out, its error being rounding.
    """
    rows = []
    first_order = errors[errors["quantity"] != "logits_head_only"]
    for (split, quantity), group in first_order.groupby(["split", "quantity"], sort=False):
        group = group[np.isfinite(group["relative_error"]) & (group["relative_error"] > 0)].sort_values("learning_rate")
        rises = np.diff(np.log(group["relative_error"])) / np.diff(np.log(group["learning_rate"]))
        rows.append(
            {"split": split, "quantity": quantity, "slope": float(np.median(rises)) if len(rises) else math.nan}
        )
    return pd.DataFrame(rows, columns=["split", "quantity", "slope"])
