"""The one-step predictions of logits and features for full-batch gradient descent, from the kernel at the start.

The loss is the sum over the training samples, Σ_i CE(f(x_i), y_i), as in the paper. A learning rate η for their mean,
as optimizers are usually given, corresponds to η / N here.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import KernelSettings, NTKDecomposition, compute_train_eval_ntk
from ntk_lpft.kernel.setup import KernelSetup, open_setup
from ntk_lpft.library_errors import lacks_memory
from ntk_lpft.prediction.descent import (
    GRADIENT_CELLS,
    check_learning_rate,
    in_order,
    measure,
    train_batches,
)
from ntk_lpft.prediction.operator import largest_eigenvalue
from ntk_lpft.statistics import initial_residual, one_step_logit_change
from ntk_lpft.statistics.matrix import check_labels

# Logits of one model in float32 and in float64 agree better than that, relative to the largest.
_SAME_LOGITS = 1e-3

QUANTITIES = ("logits", "features", "logits_head_only", "logits_body_only")


class Change(NamedTuple):
    """The predicted change of a set of samples, for one step or for each unit of η.

    Attributes:
        pretrain: η Σ_i P(x, x_i) δ_i, of shape (N, C): the change of the logits that the head makes.
        ft: η Σ_i F(x, x_i) δ_i, of shape (N, C): the change of the logits that the body makes.
        features: η Σ_i Θ^φ(x, x_i) V0ᵀ δ_i, of shape (N, h).
    """

    pretrain: Float64[Tensor, "n c"]
    ft: Float64[Tensor, "n c"]
    features: Float64[Tensor, "n h"]

    @property
    def logits(self) -> Float64[Tensor, "n c"]:
        """η Σ_i (P + F)(x, x_i) δ_i."""
        return self.pretrain + self.ft

    def quantity(self, name: str) -> Float64[Tensor, "n k"]:
        """One of `QUANTITIES`."""
        return {
            "logits": self.logits,
            "features": self.features,
            "logits_head_only": self.pretrain,
            "logits_body_only": self.ft,
        }[name]


@dataclass(frozen=True, eq=False)
class StepPrediction:
    """What the kernel at the start says of one full-batch step on the summed cross-entropy.

    Attributes:
        rates: The change for each unit of η, of ``train`` and, where there are such samples, ``eval``.
        residual: δ, of shape (N, C), of the training samples.
        head_weight: V0, of shape (C, h).
        largest_eigenvalue: λ_max of P + F on the training samples.
    """

    rates: dict[str, Change]
    residual: Float64[Tensor, "n c"]
    head_weight: Float64[Tensor, "c h"]
    largest_eigenvalue: float

    def change(self, learning_rate: float, split: str = "train") -> Change:
        """Predicted change of one split for a step of size η.

        Args:
            learning_rate: η, for the sum over the training samples.
            split: ``train`` or ``eval``.

        Returns:
            Changes of the logits, of shape (N, C), by head and by body, and of the features, of shape (N, h).

        Raises:
            InputError: η is not a positive number.
        """
        check_learning_rate(learning_rate)
        return Change(*(learning_rate * part for part in self.rates[split]))

    def learning_rates(self) -> list[float]:
        """Nine learning rates, two for each factor of ten, from 10⁻⁴ / λ_max to 1 / λ_max.

        Returns:
            The learning rates, ascending, each rounded to four significant digits.

        Raises:
            InputError: P + F is zero, which sets no scale.
        """
        if not self.largest_eigenvalue > 0:
            raise InputError("the kernel is zero on the training samples, so that no step moves them")
        return [float(f"{share / self.largest_eigenvalue:.4g}") for share in np.geomspace(1e-4, 1.0, 9)]

    def kernel_against_features(self) -> float:
        """Largest ‖F δ − V0 Δφ‖ / ‖F δ‖ of the splits: two independent ways to one prediction, 0 but for rounding."""
        ways = [(rate.ft, rate.features @ self.head_weight.T) for rate in self.rates.values() if rate.ft.any()]
        return max((float((one - other).norm() / one.norm()) for one, other in ways), default=0.0)

    def norms(self) -> dict[str, Any]:
        """Return what the paper's account of feature change rests on.

        Returns:
            ``head_norm`` ‖V0‖_F, ``residual_norm`` ‖δ‖_F, and ``change_norms``, ‖Δf‖_F (also those of head and body
            alone) and ‖Δφ‖_F of each split for each unit of η.
        """
        return {
            "head_norm": float(self.head_weight.norm()),
            "residual_norm": float(self.residual.norm()),
            "change_norms": {
                split: {name: float(rate.quantity(name).norm()) for name in QUANTITIES}
                for split, rate in self.rates.items()
            },
        }


def predict_step(
    model: nn.Module | Classifier,
    train: Any,
    labels: Int[Tensor, " n"],
    evaluation: Any = None,
    *,
    precision: str = "float64",
    device: str | None = None,
    kernels: Mapping[str, NTKDecomposition] | None = None,
    progress: bool = False,
) -> StepPrediction:
    """Predict what one full-batch gradient step does to logits and features, from the kernel before it.

    f(x) − f0(x) = η Σ_i (P + F)(x, x_i) δ_i and φ(x) − φ0(x) = η Σ_i Θ^φ(x, x_i) V0ᵀ δ_i in the linearised regime, for
    the loss Σ_i CE(f(x_i), y_i). The second is J_φ(x) g with g = Σ_i J_f(x_i)ᵀ δ_i over the body's parameters, computed
    by forward-mode differentiation, so that Θ^φ with its h×h blocks is never built.

    Source: Tomihari and Sato (2024), the one-step changes of logits and features.

    Args:
        model: As for ``compute_ntk``; it is not changed.
        train: Training samples x_i, as for ``compute_ntk``.
        labels: Their classes, of shape (N,).
        evaluation: More samples x to predict; None for none.
        precision: As for ``compute_ntk``.
        device: As for ``compute_ntk``.
        kernels: Kernels of exactly this model and these samples, by the names that ``compute_train_eval_ntk`` gives;
            None computes them.
        progress: Whether to show progress bars.

    Returns:
        The prediction for each unit of η.

    Raises:
        InputError: As for ``compute_ntk``; labels that do not fit; kernels that do not; or an operator in the model
            that has no forward-mode derivative.
    """
    with open_setup(model, train, evaluation, precision=precision, device=device) as setup:
        # Before the kernel, which may take long.
        check_labels(labels, setup.layout.columns, setup.classifier.head.module.out_features)
        if kernels is not None:
            _check_kernels(kernels, setup)
    if kernels is None:
        kernels = compute_kernels(model, train, evaluation, precision=precision, device=device, progress=progress)
    residual = initial_residual(kernels["train"].row_logits, labels)
    with open_setup(model, train, evaluation, precision=precision, device=device) as setup:
        direction = _body_direction(setup, residual)
        features = _feature_change(setup, direction, progress)
        weight = setup.classifier.head.module.weight.detach().double().cpu().clone()
    rates = {}
    for split, of_split in features.items():
        kernel = kernels[split]
        change = one_step_logit_change(kernel.feature_kernel, kernel.ft_effective, residual)
        rates[split] = Change(change.pretrain.cpu(), change.ft.cpu(), of_split)
    return StepPrediction(rates, residual.cpu(), weight, largest_eigenvalue(kernels["train"]))


def compute_kernels(
    model: nn.Module | Classifier,
    train: Any,
    evaluation: Any = None,
    *,
    precision: str = "float64",
    device: str | None = None,
    progress: bool = False,
) -> dict[str, NTKDecomposition]:
    """Compute what `predict_step` takes as ``kernels``: ``train`` and, with evaluation samples, ``eval``.

    Args:
        model: As for ``compute_ntk``; it is not changed.
        train: Training samples, as for ``compute_ntk``.
        evaluation: More samples to predict; None for none.
        precision: As for ``compute_ntk``.
        device: As for ``compute_ntk``.
        progress: Whether to show progress bars.

    Returns:
        The kernels by those names, ``train`` (train × train) and ``eval`` (eval × train), with F as one group.

    Raises:
        InputError: As for ``compute_ntk``.
    """
    settings = KernelSettings(precision=precision, groups=False, device=device)
    return compute_train_eval_ntk(model, train, evaluation, settings=settings, progress=progress)


def _check_kernels(kernels: Mapping[str, NTKDecomposition], setup: KernelSetup) -> None:
    """Refuse kernels that miss a split, or whose logits are not those of the model on the samples."""
    for split, state in measure(setup).items():
        if split not in kernels:
            raise InputError(f"there is no kernel of the {split} samples; give all that compute_train_eval_ntk returns")
        logits = kernels[split].row_logits.double().cpu()
        if logits.shape != state.logits.shape or not torch.allclose(
            logits, state.logits, rtol=0, atol=_SAME_LOGITS * float(state.logits.abs().max())
        ):
            raise InputError(f"the kernel of the {split} samples is one of another model or of other samples")


def _body_direction(setup: KernelSetup, residual: Float64[Tensor, "n c"]) -> dict[str, Tensor]:
    """Compute g = Σ_i J_f(x_i)ᵀ δ_i over the body's trainable parameters: minus the gradient of the summed loss."""
    parameters = {parameter.name: parameter.tensor for parameter in setup.parameters}
    if not parameters:
        return {}
    delta = residual.cpu()[setup.column_order].to(setup.classifier.device, setup.precision.model)

    def passed(batch: Batch, logits: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
        return (logits * delta[batch.start : batch.start + batch.size]).sum()

    gradient = setup.classifier.gradient(train_batches(setup), list(parameters.values()), passed)
    return dict(zip(parameters, gradient, strict=True))


def _feature_change(
    setup: KernelSetup, direction: Mapping[str, Tensor], progress: bool
) -> dict[str, Float64[Tensor, "n h"]]:
    """J_φ(x) g of all samples, by split."""
    head = setup.classifier.head.module
    if not direction:
        return in_order(setup, torch.zeros(setup.layout.samples, head.in_features, device="cpu"))
    module = setup.classifier.module
    own = {name: parameter.detach() for name, parameter in module.named_parameters() if name in direction}
    # With V = I and b = 0 the logits are the features, whatever the model does between its body and its logits.
    identity = {name: torch.eye(head.in_features).to(head.weight) if name.endswith(".weight")
                else head.weight.new_zeros(head.in_features)
                for name in setup.classifier.head_parameters}  # fmt: skip
    parts: list[Float[Tensor, "b h"]] = []
    with tqdm(total=setup.layout.samples, desc="feature change", unit="row", delay=1, disable=not progress) as bar:
        for batch in setup.batches(GRADIENT_CELLS):
            parts.append(_directional_derivative(module, own, identity, direction, batch.tensors))
            bar.update(batch.size)
    return in_order(setup, torch.cat(parts))


def _directional_derivative(
    model: nn.Module,
    own: dict[str, Tensor],
    fixed: dict[str, Tensor],
    direction: Mapping[str, Tensor],
    tensors: dict[str, Tensor],
) -> Tensor:
    def output(values: dict[str, Tensor]) -> Tensor:
        returned = torch.func.functional_call(model, {**values, **fixed}, (), tensors)
        return returned.logits if hasattr(returned, "logits") else returned[0]

    with torch.no_grad(), warnings.catch_warnings():
        # torch compiles some of its forward-mode rules, on first use, by what it calls deprecated itself.
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated.*")
        try:
            return torch.func.jvp(output, (own,), ({name: direction[name] for name in own},))[1]
        except RuntimeError as error:
            if lacks_memory(error):
                raise
            raise InputError(
                f"the change of the features cannot be predicted: {' '.join(str(error).split())[:200]}"
            ) from error
