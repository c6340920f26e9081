"""The path of a linear head in gradient training on fixed features, recorded at every iteration."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.classifier.prepare import plain_arithmetic
from ntk_lpft.errors import InputError
from ntk_lpft.runs.tracking_log import ALL, COLUMNS, TRAIN
from ntk_lpft.statistics.matrix import as_matrix, check_labels, in_float64
from ntk_lpft.statistics.residual import initial_residual
from ntk_lpft.storage import write_table

_Row = tuple[int, float, str, str, float]
_LEARNING_RATES = {"adam": 1e-3, "lbfgs": 1.0}
_LINE_SEARCH = 25  # most evaluations of one line search
_PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class PathSettings:
    """How a head is trained.

    The objective is the mean cross-entropy over the training samples plus (l2 / 2) ‖V‖_F². scikit-learn's logistic
    regression of strength C has the same optimum for l2 = 1 / (C N), with two classes, where it fits a single row,
    for l2 = 2 / (C N).

    Attributes:
        solver: ``adam``, or ``lbfgs`` with a strong Wolfe line search; both on the full batch.
        iterations: Most iterations.
        learning_rate: Adam's step size, by default 0.001; for L-BFGS, by default 1, what the line search tries first.
        l2: The factor of the penalty; b is not penalised.
        tolerance: The path ends where no entry of the gradient is larger than this. The loss resolves no gradient far
            below 1e-8 in float64, 1e-4 in float32, where the line search of L-BFGS finds nothing lower and ends it too.
        precision: ``float64`` or ``float32``.
    """

    solver: str = "adam"
    iterations: int = 1000
    learning_rate: float | None = None
    l2: float = 0.0
    tolerance: float = 1e-7
    precision: str = "float64"

    def check(self) -> None:
        """Refuse settings that make no sense.

        Raises:
            InputError: Which one it is.
        """
        for what, value, known in (
            ("solver", self.solver, _LEARNING_RATES),
            ("precision", self.precision, _PRECISIONS),
        ):
            if value not in known:
                raise InputError(f"unknown {what} {value!r} of the linear probe; choose one of {', '.join(known)}")
        if self.iterations < 1:
            raise InputError(f"the linear probe's {self.iterations} iterations are not positive")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise InputError(f"the linear probe's learning rate {self.step_size} is not a positive number")
        for what, size in (("l2", self.l2), ("tolerance", self.tolerance)):
            if not (math.isfinite(size) and size >= 0):
                raise InputError(f"the linear probe's {what} {size} is not a number from 0 on")

    @property
    def step_size(self) -> float:
        """The learning rate, or its default."""
        return _LEARNING_RATES[self.solver] if self.learning_rate is None else self.learning_rate


class LabelledFeatures(NamedTuple):
    """Features φ, (N, h), and classes y, (N,)."""

    features: Float[Tensor, "n h"]
    labels: Int[Tensor, " n"]


class GradientPath(NamedTuple):
    """Where the path ended, and what it passed.

    Attributes:
        weight: V at its end, (C, h).
        bias: b, (C), or None.
        table: One row for each iteration, split and measure: step, epoch, split, measure, value.
        converged: Whether the gradient fell below the tolerance.
    """

    weight: Float[Tensor, "c h"]
    bias: Float[Tensor, " c"] | None
    table: pd.DataFrame
    converged: bool


def gradient_path(
    weight: Float[Tensor, "c h"],
    bias: Float[Tensor, " c"] | None,
    train: LabelledFeatures,
    settings: PathSettings | None = None,
    *,
    others: Mapping[str, LabelledFeatures] | None = None,
    file: Path | None = None,
    progress: bool = False,
) -> GradientPath:
    """Train a head on fixed features by gradient, and record each iteration.

    Step t is the head after t iterations, step 0 the head that it starts from. As every iteration sees the whole
    training set, step and epoch are the same. Measured are, on each split, the ``loss`` (mean cross-entropy without
    penalty) and the ``accuracy``; on the split ``train`` also ``gradient_norm.head``, that of the penalised objective
    with respect to V and b; and under the split ``all`` the ``head_norm`` ‖V‖_F, each ``head_norm.class_k`` ‖v_k‖ and
    the ``head_bias_norm`` ‖b‖ (0 without bias). Columns and names are those of a tracking log.

    Args:
        weight: V to start from.
        bias: b to start from; None trains V alone.
        train: What it is trained on. The path runs on the device of these features.
        settings: How it is trained; by default 1000 iterations of Adam.
        others: Further splits to measure on, by name.
        file: Where the table is written, in any case: also where the path breaks off, up to that iteration.
        progress: Whether to show a progress bar.

    Returns:
        The trained head and the table.

    Raises:
        InputError: Settings that make no sense, shapes that do not fit, labels out of range, or a loss or gradient
            that is NaN or infinite (the message names the iteration).
    """
    settings = settings or PathSettings()
    settings.check()
    others = others or {}
    if {TRAIN, ALL} & set(others):
        raise InputError(f"a further split cannot be called {TRAIN!r} or {ALL!r}; choose another name")
    rows: list[_Row] = []
    with plain_arithmetic(train.features.device):
        training = _HeadTraining(weight, bias, {TRAIN: train, **others}, settings)
        try:
            converged = _follow(training, rows, progress)
        finally:
            if file is not None:
                write_table(file, _table(rows))
    end = None if training.bias is None else training.bias.detach()
    return GradientPath(training.weight.detach(), end, _table(rows), converged)


def head_norm_derivative(
    weight: Float[Tensor, "c h"],
    bias: Float[Tensor, " c"] | None,
    features: Float[Tensor, "n h"],
    labels: Int[Tensor, " n"],
) -> Float64[Tensor, " c"]:
    """Compute ∂L/∂‖v_k‖ = ⟨∂L/∂v_k, v_k / ‖v_k‖⟩, L the mean cross-entropy: how the loss asks the norms to change.

    With p the softmax it is (1/N) Σ_i (p_ik − 1[y_i = k]) ⟨φ_i, v_k⟩ / ‖v_k‖. Where ⟨φ_i, v_k⟩ is positive for every
    sample of class k and negative for every other, each term is negative, so that gradient descent lengthens v_k, and
    on separable features for ever.

    Source: Tomihari and Sato (2024), the norm of the head under cross-entropy.

    Args:
        weight: V.
        bias: b, or None.
        features: φ.
        labels: y.

    Returns:
        One number a class, (C,); NaN where v_k = 0, which has no direction.

    Raises:
        InputError: Shapes that do not fit, or numbers that are not finite.
    """
    _check_head(weight, bias)
    labels = _check_split(LabelledFeatures(features, labels), weight, "samples").labels
    v, phi = in_float64(weight), in_float64(features)
    logits = nn.functional.linear(phi, v, None if bias is None else in_float64(bias))
    residual = initial_residual(logits, labels)  # e_y − p, so minus the gradient of each sample's loss
    gradient = -residual.T @ phi / len(phi)
    return (gradient * v).sum(dim=1) / torch.linalg.vector_norm(v, dim=1)


class _HeadTraining:
    """A head as parameters, its objective, and its optimiser."""

    def __init__(
        self,
        weight: Float[Tensor, "c h"],
        bias: Float[Tensor, " c"] | None,
        splits: Mapping[str, LabelledFeatures],
        settings: PathSettings,
    ) -> None:
        _check_head(weight, bias)
        device, dtype = splits[TRAIN].features.device, _PRECISIONS[settings.precision]
        self.settings = settings
        self.splits = {}
        for name, split in splits.items():
            checked = _check_split(split, weight, name)
            self.splits[name] = LabelledFeatures(checked.features.to(device, dtype), checked.labels.to(device))
        self.weight = weight.detach().to(device, dtype, copy=True).requires_grad_()
        self.bias = None if bias is None else bias.detach().to(device, dtype, copy=True).requires_grad_()
        self._head = self.weight, self.bias
        self.parameters = [parameter for parameter in self._head if parameter is not None]
        self.optimizer: torch.optim.Optimizer
        if settings.solver == "adam":
            self.optimizer = torch.optim.Adam(self.parameters, lr=settings.step_size)
        else:
            # One iteration a step, so that each can be recorded; where to stop is decided outside. The evaluations must
            # be named: torch allows 1.25 for each iteration, which would leave the line search none.
            self.optimizer = torch.optim.LBFGS(
                self.parameters,
                lr=settings.step_size,
                max_iter=1,
                max_eval=1 + _LINE_SEARCH,
                tolerance_grad=0.0,
                tolerance_change=0.0,
                history_size=20,
                line_search_fn="strong_wolfe",
            )

    def evaluate(self) -> Tensor:
        """Return the objective, and leave its gradient in the parameters."""
        self.optimizer.zero_grad()
        with torch.enable_grad():
            train = self.splits[TRAIN]
            loss = nn.functional.cross_entropy(nn.functional.linear(train.features, *self._head), train.labels)
            objective = loss + self.settings.l2 / 2 * self.weight.square().sum()
            objective.backward()
        return objective.detach()

    @property
    def gradient(self) -> Tensor:
        """The gradient that ``evaluate`` left, as one vector."""
        return torch.cat([parameter.grad.flatten() for parameter in self.parameters if parameter.grad is not None])

    def step(self) -> bool:
        """Make one iteration; return whether the head moved."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        closure: Callable[[], Any] | None = self.evaluate if self.settings.solver == "lbfgs" else None
        self.optimizer.step(closure)
        return not all(torch.equal(old, new) for old, new in zip(before, self.parameters, strict=True))

    @torch.no_grad()
    def measures(self) -> list[tuple[str, str, float]]:
        """Split, measure and value of all that is recorded."""
        measured = []
        for name, (features, labels) in self.splits.items():
            logits = nn.functional.linear(features, *self._head)
            measured.append((name, "loss", float(nn.functional.cross_entropy(logits, labels))))
            measured.append((name, "accuracy", float((logits.argmax(1) == labels).double().mean())))
        measured.append((TRAIN, "gradient_norm.head", float(in_float64(self.gradient).norm())))
        weight = in_float64(self.weight)  # as squares may overflow float32
        norms = torch.linalg.vector_norm(weight, dim=1).tolist()
        measured.append((ALL, "head_norm", float(weight.norm())))
        measured += [(ALL, f"head_norm.class_{k}", norm) for k, norm in enumerate(norms)]
        measured.append((ALL, "head_bias_norm", 0.0 if self.bias is None else float(in_float64(self.bias).norm())))
        return measured


def _follow(training: _HeadTraining, rows: list[_Row], progress: bool) -> bool:
    """Train to the end and add to the rows; return whether it converged."""
    settings = training.settings
    with tqdm(total=settings.iterations, desc="linear probe", unit="it", delay=1, disable=not progress) as bar:
        for step in range(settings.iterations + 1):
            bar.update(step - bar.n)
            objective, gradient = training.evaluate(), training.gradient
            if not (torch.isfinite(objective) and torch.isfinite(gradient).all()):
                advice = f"lower its learning rate of {settings.step_size:g}" if step else "scale the features down"
                raise InputError(
                    f"the linear probe's loss or gradient is NaN or infinite at iteration {step} ({settings.solver}, "
                    f"{settings.precision}); {advice}, or use float64"
                )
            rows += [(step, float(step), *measured) for measured in training.measures()]
            if float(gradient.abs().max()) <= settings.tolerance:
                return True
            # A line search that finds nothing lower than where it stands has come to the end of the precision.
            if step < settings.iterations and not training.step():
                break
    return False


def _table(rows: list[_Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _check_head(weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or weight.shape[0] < 2 or not torch.isfinite(weight).all():
        raise InputError(f"V of shape {tuple(weight.shape)} must be finite and (C, h), with C of 2 or more")
    if bias is not None and (tuple(bias.shape) != (weight.shape[0],) or not torch.isfinite(bias).all()):
        raise InputError(f"b of shape {tuple(bias.shape)} must be finite and ({weight.shape[0]},), as V has it")


def _check_split(split: LabelledFeatures, weight: Tensor, name: str) -> LabelledFeatures:
    if split.features.dim() != 2 or split.features.shape[1] != weight.shape[1]:
        raise InputError(
            f"features of {name} have shape {tuple(split.features.shape)}; V of shape {tuple(weight.shape)} "
            f"needs (N, {weight.shape[1]})"
        )
    as_matrix(split.features, f"features of {name}")
    labels = check_labels(split.labels, len(split.features), weight.shape[0], f"labels of {name}")
    return LabelledFeatures(split.features, labels)
