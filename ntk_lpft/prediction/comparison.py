"""Theory against practice on one classifier: single steps, and training over many."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor, nn

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.kernel.precision import resolve_precision
from ntk_lpft.kernel.setup import open_setup
from ntk_lpft.prediction.descent import check_learning_rate, trained_parameters
from ntk_lpft.prediction.gradient_flow import (
    Trajectory,
    compare_trajectories,
    kernel_gradient_descent,
    real_gradient_descent,
    recorded_steps,
)
from ntk_lpft.prediction.one_step import StepPrediction, compute_kernels, predict_step
from ntk_lpft.prediction.operator import COMPONENTS
from ntk_lpft.prediction.real_step import error_slopes, step_errors
from ntk_lpft.statistics.matrix import check_labels
from ntk_lpft.tasks import EncodedSplit


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the kernel at the start predicts, beside what training does.

    Attributes:
        one_step: Errors of single steps of several sizes, see `step_errors`.
        flow: Loss, accuracy and errors over many steps. Columns ``step``, ``split``, ``run``, ``measure``, ``value``; a
            run is a component of the kernel, P, F or P+F, or a part of the model that is really trained, ``all``,
            ``head`` or ``body``; the measures are ``loss`` and ``accuracy``, and for a kernel ``change_error`` and
            ``agreement`` with a real run, as in ``change_error_all``, see `compare_trajectories`.
        rate_in_eigenvalues: η λ_max of training over many steps.
        summary: What there is to say in few numbers, as JSON holds it.
    """

    one_step: pd.DataFrame
    flow: pd.DataFrame
    rate_in_eigenvalues: float
    summary: dict[str, Any]


def compare_with_training(
    model: nn.Module | Classifier,
    train: EncodedSplit,
    evaluation: EncodedSplit,
    *,
    etas: Sequence[float] | None = None,
    learning_rate: float | None = None,
    steps: int = 50,
    real: Sequence[str] = ("all",),
    precision: str = "float64",
    training_precision: str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare what the kernel at the start predicts with what training does.

    The loss trained on is the sum over the training samples, so that a learning rate here is 1 / N of one for their
    mean.

    Args:
        model: The classifier, at the weights that training starts from; it is not changed.
        train: Training samples.
        evaluation: Samples that are predicted but not trained on.
        etas: Sizes of the single steps; None takes nine from 10⁻⁴ / λ_max to 1 / λ_max (largest eigenvalue of P + F).
        learning_rate: η of training over many steps; None takes 1 / λ_max.
        steps: Number of those steps.
        real: Parts of the model that are really trained over many steps, each in a run of its own: ``all``, ``head``,
            ``body``. Most of the time goes here.
        precision: That of kernels and single steps, as for ``compute_ntk``. In float32 small steps drown in rounding.
        training_precision: That of training over many steps, whose distance from its prediction is far above the
            rounding of float32; None for the model's own.
        device: As for ``compute_ntk``.
        progress: Whether to show progress bars.

    Returns:
        Both, and how far they are from each other.

    Raises:
        InputError: Settings that make no sense, labels that do not fit, or as for ``compute_ntk``.
    """
    labels = {"train": torch.tensor(train.labels), "eval": torch.tensor(evaluation.labels)}
    classifier = Classifier.of(model, train)
    # Before the kernel, which may take long.
    for split, classes in labels.items():
        check_labels(classes, len(classes), classifier.head.module.out_features, f"labels of {split}")
    for rate in (*(etas or ()), *(() if learning_rate is None else (learning_rate,))):
        check_learning_rate(rate)
    recorded_steps(steps)
    if training_precision is None:
        training_precision = resolve_precision(None, classifier.device, classifier.dtype).name
    for kind in (training_precision, precision):
        with open_setup(classifier, train, evaluation, precision=kind, device=device) as setup:
            for part in real:
                trained_parameters(setup, part)
    kernels = compute_kernels(classifier, train, evaluation, precision=precision, device=device, progress=progress)
    common: dict[str, Any] = {"device": device, "progress": progress}
    exact = {"precision": precision, **common}
    prediction = predict_step(classifier, train, labels["train"], evaluation, kernels=kernels, **exact)
    errors = step_errors(classifier, train, labels["train"], evaluation, etas, prediction=prediction, **exact)
    # By default 1 / λ_max: a quarter of the rate from which the predicted loss may rise.
    rate = prediction.learning_rates()[-1] if learning_rate is None else learning_rate
    trained = {
        part: real_gradient_descent(
            classifier,
            train,
            labels["train"],
            evaluation,
            learning_rate=rate,
            steps=steps,
            part=part,
            precision=training_precision,
            **common,
        )
        for part in real
    }
    flow = flow_table(kernels, labels, trained, learning_rate=rate, steps=steps)
    summary = {
        "loss": "sum over the training samples",
        "samples": {"train": len(train), "eval": len(evaluation)},
        "precision": precision,
        "largest_eigenvalue": prediction.largest_eigenvalue,
        "one_step": _describe_steps(prediction, errors),
        "gradient_descent": {
            "learning_rate": rate,
            "steps": steps,
            "precision": training_precision,
            "at_the_end": _describe_end(flow),
        },
    }
    return Comparison(errors, flow, rate * prediction.largest_eigenvalue, summary)


def flow_table(
    kernels: Mapping[str, NTKDecomposition],
    labels: Mapping[str, Int[Tensor, " n"]],
    real: Mapping[str, Trajectory],
    *,
    learning_rate: float,
    steps: int,
) -> pd.DataFrame:
    """Put the predictions of P, F and P + F beside real runs.

    Args:
        kernels: ``train`` and ``eval``, as for `kernel_gradient_descent`.
        labels: Classes of both splits.
        real: Real runs of the same learning rate and steps, by the part of the model that was trained.
        learning_rate: η, for the sum over the training samples.
        steps: Number of steps.

    Returns:
        The columns of `Comparison.flow`.

    Raises:
        InputError: As for `kernel_gradient_descent` and `compare_trajectories`.
    """
    tables = [trajectory.measures(labels).assign(run=part) for part, trajectory in real.items()]
    record = next((trajectory.steps for trajectory in real.values()), None)
    for component in COMPONENTS:
        predicted = kernel_gradient_descent(
            kernels, labels["train"], learning_rate=learning_rate, steps=steps, component=component, record=record
        )
        tables.append(predicted.measures(labels).assign(run=component))
        for part, trajectory in real.items():
            table = compare_trajectories(predicted, trajectory)
            tables.append(table.assign(run=component, measure=table["measure"] + f"_{part}"))
    return pd.concat(tables, ignore_index=True)[["step", "split", "run", "measure", "value"]]


def _describe_steps(prediction: StepPrediction, errors: pd.DataFrame) -> dict[str, Any]:
    smallest = errors[errors["learning_rate"] == errors["learning_rate"].min()]
    return {
        "learning_rates": sorted({float(rate) for rate in errors["learning_rate"]}),
        "error_slope": _nested(error_slopes(errors), "split", "quantity", "slope"),
        "error_at_smallest": _nested(smallest, "split", "quantity", "relative_error"),
        "kernel_against_features": prediction.kernel_against_features(),
        **prediction.norms(),
    }


def _describe_end(flow: pd.DataFrame) -> dict[str, Any]:
    last = flow[flow["step"] == flow["step"].max()]
    return {
        str(split): _nested(of_split, "run", "measure", "value")
        for split, of_split in last.groupby("split", sort=False)
    }


def _nested(table: pd.DataFrame, outer: str, inner: str, value: str) -> dict[str, dict[str, float | None]]:
    """Turn rows into nested dictionaries; JSON has no number for what is not finite."""
    nested: dict[str, dict[str, float | None]] = {}
    for row in table.to_dict(orient="records"):
        number = float(row[value])
        nested.setdefault(str(row[outer]), {})[str(row[inner])] = number if math.isfinite(number) else None
    return nested
