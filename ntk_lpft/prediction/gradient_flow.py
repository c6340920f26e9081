"""Training under cross-entropy as the kernel at the start predicts it, over many steps, beside the real training.

With the kernel K held fixed, full-batch descent on the summed cross-entropy moves the logits of any sample x by
f_{t+1}(x) = f_t(x) + η Σ_i K(x, x_i) δ_i(f_t), with δ_i(f) = e_{y_i} − softmax(f(x_i)): exact where the logits are
linear in what is trained, as they are in the head's V and b alone (K = P), and first order in the change of the
weights elsewhere.

All of it depends on u_t = η Σ_{s<t} δ(f_s) alone: f_t(x) = f_0(x) + Σ_i K(x, x_i) u_{t,i}.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.arguments import checked
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.prediction.descent import check_learning_rate, descent
from ntk_lpft.prediction.operator import kernel_operator, largest_eigenvalue
from ntk_lpft.statistics import initial_residual
from ntk_lpft.statistics.matrix import check_labels, in_float64

# Relative accuracy of the continuous flow, and the absolute one as a share of η · steps.
_FLOW_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Logits on the way, at some of the steps.

    Attributes:
        learning_rate: η, for the sum over the training samples.
        steps: The recorded steps, ascending; 0 is the start.
        logits: f_t by split, each of shape (R, N, C).
    """

    learning_rate: float
    steps: tuple[int, ...]
    logits: dict[str, Float64[Tensor, "r n c"]]

    def measures(self, labels: Mapping[str, Int[Tensor, " n"]]) -> pd.DataFrame:
        """Compute loss and accuracy at the recorded steps.

        Args:
            labels: The classes of each split's samples.

        Returns:
            Columns ``step``, ``split``, ``measure`` (``loss``, the mean cross-entropy in nats, or ``accuracy``, from 0
            to 1) and ``value``.

        Raises:
            InputError: Labels that are missing or do not fit.
        """
        rows = []
        for split, logits in self.logits.items():
            if split not in labels:
                raise InputError(f"there are no labels of the {split} samples")
            classes = check_labels(labels[split], logits.shape[1], logits.shape[2], f"labels of {split}")
            for step, at_step in zip(self.steps, logits, strict=True):
                loss = float(nn.functional.cross_entropy(at_step, classes))
                accuracy = float((at_step.argmax(dim=1) == classes).double().mean())
                rows += [(step, split, "loss", loss), (step, split, "accuracy", accuracy)]
        return pd.DataFrame(rows, columns=["step", "split", "measure", "value"])


def recorded_steps(steps: int, most: int = 24) -> tuple[int, ...]:
    """Choose which of the steps 0 … ``steps`` to record: all, or about ``most`` that lie closest at the start.

    Args:
        steps: Number of steps of the whole way.
        most: About how many steps to record.

    Returns:
        The chosen steps, ascending, 0 and ``steps`` among them.

    Raises:
        InputError: ``steps`` is below one.
    """
    if steps < 1:
        raise InputError(f"{steps} steps are not enough; take 1 or more")
    if steps <= most:
        return tuple(range(steps + 1))
    return (0, *sorted({int(step) for step in np.geomspace(1, steps, most).round()}))


@checked
def kernel_gradient_descent(
    kernels: Mapping[str, NTKDecomposition],
    labels: Int[Tensor, " n"],
    *,
    learning_rate: float,
    steps: int,
    component: str = "P+F",
    record: Sequence[int] | None = None,
) -> Trajectory:
    """Predict full-batch gradient descent on the summed cross-entropy with the kernel held fixed.

    Args:
        kernels: ``train`` (train × train) and, where other samples are to be predicted, ``eval`` (eval × train), as
            ``compute_train_eval_ntk`` returns them. Their logits are those at the start.
        labels: Classes of the training samples, of shape (N,).
        learning_rate: η, for the sum over the training samples. The loss falls at every step where η λ_max < 4.
        steps: Number of steps.
        component: What is trained: ``P`` the head, ``F`` the body, ``P+F`` both.
        record: Steps to record besides the first and the last; None takes `recorded_steps`.

    Returns:
        The logits at the recorded steps.

    Raises:
        InputError: A learning rate or number of steps that is not positive, labels that do not fit, kernels that miss
            the training samples or have reduced outputs, or logits that overflow.

    Warns:
        UserWarning: η λ_max is 4 or more, so that the prediction may swing or grow.
    """
    chosen = _check(learning_rate, steps, record)
    function = _FunctionSpace(kernels, labels, component)
    top = largest_eigenvalue(kernels["train"], component)
    if learning_rate * top >= 4:
        warnings.warn(
            f"learning rate {learning_rate:.3g} is {learning_rate * top:.3g} / λ_max of {component}; from 4 / λ_max on "
            "gradient descent may not lower the loss",
            UserWarning,
            stacklevel=2,
        )
    passed = torch.zeros_like(function.start["train"])
    kept = []
    for step in range(steps + 1):
        if step in chosen:
            kept.append(function.logits(passed))
        if step < steps:
            passed = passed + learning_rate * function.residual(passed, step)
    return _trajectory(learning_rate, chosen, kept)


@checked
def kernel_gradient_flow(
    kernels: Mapping[str, NTKDecomposition],
    labels: Int[Tensor, " n"],
    *,
    learning_rate: float,
    steps: int,
    component: str = "P+F",
    record: Sequence[int] | None = None,
) -> Trajectory:
    """Predict gradient flow, df(x)/dτ = Σ_i K(x, x_i) δ_i(f): the limit of many small steps of gradient descent.

    Args:
        kernels: ``train`` (train × train) and, where other samples are to be predicted, ``eval`` (eval × train).
        labels: Classes of the training samples, of shape (N,).
        learning_rate: Time that one step stands for.
        steps: The flow goes on to the time η · steps.
        component: What is trained: ``P`` the head, ``F`` the body, ``P+F`` both.
        record: Steps t at whose times τ = η t logits are recorded.

    Returns:
        The logits at the recorded steps.

    Raises:
        InputError: As for `kernel_gradient_descent`.
    """
    chosen = _check(learning_rate, steps, record)
    function = _FunctionSpace(kernels, labels, component)
    shape, end = function.start["train"].shape, learning_rate * steps

    def velocity(time: float, passed: np.ndarray) -> np.ndarray:
        return function.residual(torch.from_numpy(passed).reshape(shape), time / learning_rate).reshape(-1).numpy()

    solution = solve_ivp(
        velocity,
        (0.0, end),
        np.zeros(shape.numel()),
        method="DOP853",
        t_eval=[min(learning_rate * step, end) for step in chosen],
        rtol=_FLOW_TOLERANCE,
        atol=_FLOW_TOLERANCE * end,
    )
    if not solution.success:
        raise InputError(f"the gradient flow cannot be followed to time {end:.3g}: {solution.message}")
    kept = [function.logits(torch.from_numpy(np.ascontiguousarray(passed)).reshape(shape)) for passed in solution.y.T]
    return _trajectory(learning_rate, chosen, kept)


@checked
def real_gradient_descent(
    model: nn.Module | Classifier,
    train: Any,
    labels: Int[Tensor, " n"],
    evaluation: Any = None,
    *,
    learning_rate: float,
    steps: int,
    part: str = "all",
    record: Sequence[int] | None = None,
    precision: str = "float64",
    device: str | None = None,
    progress: bool = False,
) -> Trajectory:
    """Train a classifier by plain full-batch SGD on the summed cross-entropy, in eval mode, and put its weights back.

    Args:
        model: As for ``compute_ntk``. Its parameters with ``requires_grad`` move, and are put back bit by bit.
        train: Training samples.
        labels: Their classes, of shape (N,).
        evaluation: More samples to record the logits of; None for none.
        learning_rate: η, for the sum over the training samples.
        steps: Number of steps.
        part: Which parameters move: ``all``, those of the ``head``, or of the ``body``.
        record: Steps to record besides the first and the last; None takes `recorded_steps`.
        precision: As for ``compute_ntk``.
        device: As for ``compute_ntk``.
        progress: Whether to show a progress bar.

    Returns:
        The logits at the recorded steps.

    Raises:
        InputError: A learning rate or number of steps that is not positive, labels that do not fit, training that ends
            in NaN or infinity (the message says at which step), or as for ``compute_ntk``.
    """
    chosen = _check(learning_rate, steps, record)
    kept = []
    with (
        descent(model, train, labels, evaluation, part=part, precision=precision, device=device) as moving,
        tqdm(total=steps, desc=f"gradient descent ({part})", unit="step", delay=1, disable=not progress) as bar,
    ):
        for step in range(steps + 1):
            if step in chosen:
                kept.append({split: state.logits for split, state in moving.state().items()})
                _check_finite(kept[-1]["train"], learning_rate, step)
            if step < steps:
                gradients = moving.gradients()
                for gradient in gradients.values():
                    _check_finite(gradient, learning_rate, step)
                moving.step(gradients, learning_rate)
                bar.update()
    return _trajectory(learning_rate, chosen, kept)


@checked
def compare_trajectories(predicted: Trajectory, real: Trajectory) -> pd.DataFrame:
    """Compare predicted with real logits at the recorded steps after the start.

    Args:
        predicted: What the kernel says.
        real: What training did; the same steps and samples.

    Returns:
        Columns ``step``, ``split``, ``measure`` and ``value``. The measures are ``change_error``, ‖f̂_t − f_t‖_F /
        ‖f_t − f_0‖_F over the split's samples (NaN where nothing moved), and ``agreement``, the share of samples for
        which both name the same class.

    Raises:
        InputError: The two are not of the same steps and samples.
    """
    shapes = [{split: logits.shape for split, logits in one.logits.items()} for one in (predicted, real)]
    if predicted.steps != real.steps or shapes[0] != shapes[1]:
        raise InputError("the trajectories differ in their recorded steps or samples; give both the same")
    rows = []
    for split, logits in real.logits.items():
        for step, guess, truth in zip(real.steps, predicted.logits[split], logits, strict=True):
            if step == 0:
                continue
            moved = (truth - logits[0]).norm()
            rows.append((step, split, "change_error", float((guess - truth).norm() / moved) if moved else float("nan")))
            same = guess.argmax(dim=1) == truth.argmax(dim=1)
            rows.append((step, split, "agreement", float(same.double().mean())))
    return pd.DataFrame(rows, columns=["step", "split", "measure", "value"])


class _FunctionSpace:
    """Training in function space: logits and residual as functions of u, the residuals passed through so far.

    Args:
        kernels: ``train`` (train × train) and, where other samples are to be predicted, ``eval`` (eval × train).
        labels: Classes of the training samples, of shape (N,).
        component: ``P``, ``F`` or ``P+F``.

    Raises:
        InputError: No kernel of the training samples, or labels that do not fit.
    """

    def __init__(self, kernels: Mapping[str, NTKDecomposition], labels: Int[Tensor, " n"], component: str) -> None:
        if "train" not in kernels:
            raise InputError("there is no kernel of the train samples; give all that compute_train_eval_ntk returns")
        self.start = {split: in_float64(ntk.row_logits).cpu() for split, ntk in kernels.items()}
        self.labels = check_labels(labels, *self.start["train"].shape)
        self.operators: dict[str, Callable[[Tensor], Tensor]] = {
            split: kernel_operator(ntk, component) for split, ntk in kernels.items()
        }

    def logits(self, passed: Float64[Tensor, "n c"]) -> dict[str, Float64[Tensor, "m c"]]:
        """f_0(x) + Σ_i K(x, x_i) u_i, by split."""
        return {split: start + self.operators[split](passed) for split, start in self.start.items()}

    def residual(self, passed: Float64[Tensor, "n c"], step: float) -> Float64[Tensor, "n c"]:
        """Compute the residual of the training samples.

        Args:
            passed: u, of shape (N, C): η times the sum of the residuals so far.
            step: Number of the step, for the message.

        Returns:
            δ(f) = e_y − softmax(f), of shape (N, C).

        Raises:
            InputError: The logits are NaN or infinite.
        """
        logits = self.start["train"] + self.operators["train"](passed)
        if not torch.isfinite(logits).all():
            raise InputError(f"the predicted logits are infinite at step {step:.0f}; take a smaller learning rate")
        return initial_residual(logits, self.labels)


def _check(learning_rate: float, steps: int, record: Sequence[int] | None) -> tuple[int, ...]:
    """Check what all three ways of training take, and return the steps to record."""
    check_learning_rate(learning_rate)
    usual = recorded_steps(steps)
    if record is None:
        return usual
    outside = [step for step in record if not 0 <= step <= steps]
    if outside:
        raise InputError(f"step {outside[0]} cannot be recorded; the steps run from 0 to {steps}")
    return tuple(sorted({0, *record, steps}))


def _check_finite(values: Tensor, learning_rate: float, step: int) -> None:
    if not torch.isfinite(values).all():
        raise InputError(
            f"gradient descent with learning rate {learning_rate:.3g} reached NaN or infinite values after {step} "
            "steps; take a smaller one"
        )


def _trajectory(learning_rate: float, steps: tuple[int, ...], kept: list[dict[str, Tensor]]) -> Trajectory:
    return Trajectory(learning_rate, steps, {split: torch.stack([one[split] for one in kept]) for split in kept[0]})
