"""How well a kernel fits the labels: kernel-target alignment, plain and centred."""

import math

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import (
    as_matrix,
    check_feature_kernel,
    check_labels,
    check_num_classes,
    in_float64,
    require_symmetric,
)

# A centred kernel whose norm is this share of the kernel's own is what rounding left of a constant kernel.
_CENTRED_NOISE = 1e-13


@checked
def alignment(
    kernel: Float[Tensor, "n c n c"], labels: Int[Tensor, " n"], *, computed_in: torch.dtype | None = None
) -> float:
    """Compute the alignment of a kernel with its targets, ⟨K, y yᵀ⟩ / (‖K‖ ‖y yᵀ‖) = yᵀ K y / (‖K‖ N).

    K is the NC×NC matrix and y in {0, 1}^{NC} the one-hot labels flattened in the same order, so that ‖y‖² = N;
    norms and products are Frobenius's. It lies in [0, 1] for a positive semi-definite kernel.

    Source: Cristianini, Shawe-Taylor, Elisseeff and Kandola (2001), "On kernel-target alignment", definition 1.

    Args:
        kernel: A symmetric kernel of shape (N, C, N, C).
        labels: The class of each sample, of shape (N,).
        computed_in: The dtype in which the kernel was computed, which sets its allowed asymmetry; by default its own.

    Returns:
        The alignment; 0 for the zero kernel.

    Raises:
        InputError: The kernel is not of that shape, not finite or not symmetric, or the labels do not fit it.
    """
    matrix, targets = _checked(kernel, labels, computed_in)
    y = targets.flatten()
    return _quotient(y @ matrix @ y, torch.linalg.matrix_norm(matrix) * (y @ y))


@checked
def centred_alignment(
    kernel: Float[Tensor, "n c n c"], labels: Int[Tensor, " n"], *, computed_in: torch.dtype | None = None
) -> float:
    """Compute the alignment of the centred kernel with its centred targets, ⟨K_c, T_c⟩ / (‖K_c‖ ‖T_c‖).

    K_c = H K H and T_c = H y yᵀ H with H = I − 1 1ᵀ / (NC), and K and y as for `alignment`. Centring takes away what
    is common to all pairs (sample, class), which a plain alignment rewards.

    Source: Cortes, Mohri and Rostamizadeh (2012), "Algorithms for learning kernels based on centered alignment",
    definition 4 (equation 4).

    Args:
        kernel: A symmetric kernel of shape (N, C, N, C), with at least two classes.
        labels: The class of each sample, of shape (N,).
        computed_in: The dtype in which the kernel was computed, which sets its allowed asymmetry; by default its own.

    Returns:
        The centred alignment; 0 for a constant kernel, whose centred kernel is zero.

    Raises:
        InputError: The kernel is not of that shape, not finite or not symmetric, it has a single class, or the labels
            do not fit it.
    """
    matrix, targets = _checked(kernel, labels, computed_in)
    _check_can_be_centred(targets)
    centred = _centre(matrix)
    y = (targets - targets.mean()).flatten()
    norm, whole = torch.linalg.matrix_norm(centred), torch.linalg.matrix_norm(matrix)
    if norm <= _CENTRED_NOISE * whole:
        return 0.0
    return _quotient(y @ centred @ y, norm * (y @ y))


@checked
def pretrain_effective_alignment(
    feature_kernel: Float[Tensor, "n n"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    *,
    computed_in: torch.dtype | None = None,
) -> float:
    """Compute `alignment` for P = k ⊗ I_C from k: tr(Yᵀ k Y) / (√C ‖k‖ N), with Y the one-hot labels (N, C).

    Args:
        feature_kernel: k, symmetric, of shape (N, N).
        labels: The class of each sample, of shape (N,).
        num_classes: C, the number of logits.
        computed_in: The dtype in which the kernel was computed, which sets its allowed asymmetry; by default its own.

    Returns:
        The alignment of P; 0 for the zero kernel.

    Raises:
        InputError: The kernel is not a finite symmetric matrix, or the labels do not fit.
    """
    matrix, targets = _checked_features(feature_kernel, labels, num_classes, computed_in)
    norm = math.sqrt(num_classes) * torch.linalg.matrix_norm(matrix)
    return _quotient((targets * (matrix @ targets)).sum(), norm * targets.sum())


@checked
def pretrain_effective_centred_alignment(
    feature_kernel: Float[Tensor, "n n"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    *,
    computed_in: torch.dtype | None = None,
) -> float:
    """Compute `centred_alignment` for P = k ⊗ I_C from k.

    With H_N and H_C the centring matrices over samples and over classes, H P H = k ⊗ H_C + (H_N k H_N) ⊗ 1 1ᵀ / C,
    whose two terms are orthogonal: ‖P_c‖² = (C − 1) ‖k‖² + ‖H_N k H_N‖². The targets Y − 1/C add up to zero over the
    classes, so that ⟨P_c, T_c⟩ = tr((Y − 1/C)ᵀ k (Y − 1/C)), and ‖T_c‖ = N (C − 1) / C.

    Args:
        feature_kernel: k, symmetric, of shape (N, N).
        labels: The class of each sample, of shape (N,).
        num_classes: C, the number of logits, at least two.
        computed_in: The dtype in which the kernel was computed, which sets its allowed asymmetry; by default its own.

    Returns:
        The centred alignment of P; 0 for the zero kernel.

    Raises:
        InputError: The kernel is not a finite symmetric matrix, there is a single class, or the labels do not fit.
    """
    matrix, targets = _checked_features(feature_kernel, labels, num_classes, computed_in)
    _check_can_be_centred(targets)
    norm = torch.hypot(
        math.sqrt(num_classes - 1) * torch.linalg.matrix_norm(matrix), torch.linalg.matrix_norm(_centre(matrix))
    )
    centred = targets - 1 / num_classes
    return _quotient((centred * (matrix @ centred)).sum(), norm * centred.square().sum())


def _checked(
    kernel: Tensor, labels: Tensor, computed_in: torch.dtype | None
) -> tuple[Float64[Tensor, "nc nc"], Float64[Tensor, "n c"]]:
    """Return the kernel's matrix and its one-hot targets in float64."""
    if kernel.ndim != 4:
        raise InputError(f"kernel has shape {tuple(kernel.shape)}; alignment needs (N, C, N, C)")
    matrix = require_symmetric(as_matrix(kernel), "kernel", computed_in)
    return matrix, _one_hot(labels, kernel.shape[0], kernel.shape[1], matrix.device)


def _checked_features(
    feature_kernel: Tensor, labels: Tensor, num_classes: int, computed_in: torch.dtype | None
) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, "n c"]]:
    """Return the feature kernel and the one-hot targets in float64."""
    check_feature_kernel(feature_kernel)
    check_num_classes(num_classes)
    matrix = require_symmetric(feature_kernel, "feature kernel", computed_in)
    return matrix, _one_hot(labels, feature_kernel.shape[0], num_classes, matrix.device)


def _one_hot(labels: Tensor, num_samples: int, num_classes: int, device: torch.device) -> Float64[Tensor, "n c"]:
    checked = check_labels(labels, num_samples, num_classes)
    return in_float64(torch.nn.functional.one_hot(checked, num_classes)).to(device)


def _check_can_be_centred(targets: Tensor) -> None:
    if targets.shape[1] < 2:
        raise InputError("centred alignment needs two classes or more: the targets of a single class are constant")


def _centre(matrix: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """Compute H A H, with H = I − 1 1ᵀ / n."""
    without_columns = matrix - matrix.mean(dim=0, keepdim=True)
    return without_columns - without_columns.mean(dim=1, keepdim=True)


def _quotient(numerator: Tensor, denominator: Tensor) -> float:
    """Divide, with 0 where the kernel is zero: it is aligned with nothing."""
    return float(numerator / denominator) if denominator > 0 else 0.0
