"""What one step of gradient descent does to the logits, and the share of it that F explains: the FT ratio."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import as_matrix, check_feature_kernel, check_labels, in_float64

# Rows of F that are held in float64 at a time: F itself may be as large as the memory allows in float32.
_ROWS_AT_A_TIME = 64


class OneStepChange(NamedTuple):
    """The change of the logits in one step, split by the component that causes it.

    Attributes:
        pretrain: η Σ_i P(x, x_i) δ_i, of shape (N, C): the change that training the head alone would make.
        ft: η Σ_i F(x, x_i) δ_i, of shape (N, C): the change that training the body alone would make.
    """

    pretrain: Float64[Tensor, "n c"]
    ft: Float64[Tensor, "n c"]

    @property
    def total(self) -> Float64[Tensor, "n c"]:
        """η Σ_i (P + F)(x, x_i) δ_i."""
        return self.pretrain + self.ft


@checked
def initial_residual(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float64[Tensor, "n c"]:
    """Compute δ_i = e_{y_i} − softmax(f_0(x_i)), the residual of the cross-entropy at the start of fine-tuning.

    It is minus the gradient of the loss of sample i with respect to its logits. The entry of the label is the sum of
    the other classes' probabilities, which keeps its digits where 1 − p would cancel: after linear probing p is often
    1 to rounding.

    Source: Tomihari and Sato (2024), the definition of δ_i.

    Args:
        logits: f_0(x_i), of shape (N, C).
        labels: y_i, of shape (N,), class indices.

    Returns:
        δ, of shape (N, C), in float64; each row adds up to zero.

    Raises:
        InputError: The shapes do not fit, the logits are not finite, or a label is out of range.
    """
    if logits.ndim != 2:
        raise InputError(f"logits have shape {tuple(logits.shape)}; expected (N, C)")
    as_matrix(logits, "logits")
    probabilities = torch.softmax(in_float64(logits), dim=1)
    of_label = check_labels(labels, *logits.shape).to(probabilities.device).unsqueeze(1)
    others = probabilities.scatter(1, of_label, 0.0)
    return (-others).scatter(1, of_label, others.sum(dim=1, keepdim=True))


@checked
def one_step_logit_change(
    feature_kernel: Float[Tensor, "n m"],
    ft_effective: Float[Tensor, "n c m c"],
    residual: Float[Tensor, "m c"],
    learning_rate: float = 1.0,
) -> OneStepChange:
    """Predict the change of the logits in one full-batch gradient step on the summed cross-entropy.

    f^FT(x) − f_0(x) = η Σ_i (P + F)(x, x_i) δ_i in the linearised regime.

    Source: Tomihari and Sato (2024), the one-step change of the logits.

    Args:
        feature_kernel: k, of shape (N, M): rows are the samples x, columns the training samples x_i.
        ft_effective: F, of shape (N, C, M, C), for the same samples.
        residual: δ, of shape (M, C), of the training samples.
        learning_rate: η, for the sum over the training samples (divide by M for their mean).

    Returns:
        The parts of the change that P and F make, each of shape (N, C), in float64.

    Raises:
        InputError: The shapes do not fit each other, or a tensor has entries that are not finite.
    """
    check_feature_kernel(feature_kernel)
    as_matrix(ft_effective, "ft_effective")
    if residual.ndim != 2:
        raise InputError(f"residual has shape {tuple(residual.shape)}; expected (M, C)")
    as_matrix(residual, "residual")
    n, m = feature_kernel.shape
    expected = (n, residual.shape[1], m, residual.shape[1])
    if residual.shape[0] != m or tuple(ft_effective.shape) != expected:
        raise InputError(
            f"shapes do not fit: feature kernel {(n, m)}, F {tuple(ft_effective.shape)}, residual "
            f"{tuple(residual.shape)}; expected (N, M), (N, C, M, C) and (M, C)"
        )
    kernel = in_float64(feature_kernel)
    delta = in_float64(residual).to(kernel.device)
    ft = torch.cat(
        [
            torch.einsum("ncmd,md->nc", in_float64(rows).to(kernel.device), delta)
            for rows in ft_effective.split(_ROWS_AT_A_TIME)
        ]
    )
    return OneStepChange(learning_rate * (kernel @ delta), learning_rate * ft)


@checked
def sample_ft_ratios(
    feature_kernel: Float[Tensor, "n m"], ft_effective: Float[Tensor, "n c m c"], residual: Float[Tensor, "m c"]
) -> Float64[Tensor, " n"]:
    """Compute ‖Σ_i F(x, x_i) δ_i‖ / ‖Σ_i (P + F)(x, x_i) δ_i‖ of each sample x.

    Args:
        feature_kernel: k, of shape (N, M): rows are the samples x, columns the training samples x_i.
        ft_effective: F, of shape (N, C, M, C), for the same samples.
        residual: δ, of shape (M, C), of the training samples.

    Returns:
        The ratio of each sample, of shape (N,), in float64: NaN where neither part moves the logits (0/0), infinite
        where the two parts cancel exactly.

    Raises:
        InputError: The shapes do not fit each other, or a tensor has entries that are not finite.
    """
    # The ratio does not depend on the size of δ, which may be so small after linear probing that its square underflows.
    delta = in_float64(residual)
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    change = one_step_logit_change(feature_kernel, ft_effective, delta / largest if largest > 0 else delta)
    return torch.linalg.vector_norm(change.ft, dim=1) / torch.linalg.vector_norm(change.total, dim=1)


@checked
def ft_ratio(
    feature_kernel: Float[Tensor, "n m"], ft_effective: Float[Tensor, "n c m c"], residual: Float[Tensor, "m c"]
) -> float:
    """Compute the FT ratio: how much of the first step's change of the logits the body makes.

    The mean over the samples x of ‖Σ_i F(x, x_i) δ_i‖ / ‖Σ_i (P + F)(x, x_i) δ_i‖. It is 0 for F = 0 and 1 for P = 0,
    and exceeds 1 where the two parts oppose each other.

    Rule for a zero denominator: a sample at which neither part moves the logits (0/0) has no ratio and is left out
    of the mean; a sample at which the two parts cancel exactly counts as infinite, and so makes the mean infinite.

    Source: Tomihari and Sato (2024), the FT ratio of their table of kernel statistics.

    Args:
        feature_kernel: k, of shape (N, M): rows are the samples of the mean (the paper's are the training samples),
            columns the training samples.
        ft_effective: F, of shape (N, C, M, C), for the same samples.
        residual: δ, of shape (M, C), of the training samples.

    Returns:
        The FT ratio, never NaN.

    Raises:
        InputError: The shapes do not fit each other, a tensor has entries that are not finite, or no sample has a
            ratio because nothing moves (δ = 0, or P = F = 0).
    """
    ratios = sample_ft_ratios(feature_kernel, ft_effective, residual)
    defined = ratios[~ratios.isnan()]
    if defined.numel() == 0:
        raise InputError("the FT ratio is undefined: no logit moves, because δ is zero or both kernels are")
    return float(defined.mean())
