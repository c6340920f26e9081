"""Kernels as matrices: the NC×NC view of a kernel, and the checks that every statistic starts with."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError


@checked
def as_matrix(kernel: Float[Tensor, "n c m c"] | Float[Tensor, "n m"], name: str = "kernel") -> Float[Tensor, "nc mc"]:
    """Flatten a kernel to the matrix whose rows and columns are pairs (sample, class), the class running fastest.

    Args:
        kernel: The kernel of logits, of shape (N, C, M, C), or a reduced kernel of shape (N, M), which is a matrix
            already.
        name: What error messages call the kernel.

    Returns:
        The matrix of shape (NC, MC), or (N, M) for a reduced kernel, in the kernel's dtype and on its device.

    Raises:
        InputError: The kernel has another shape, is empty, is not of a floating dtype, or has entries that are not
            finite.
    """
    if not kernel.is_floating_point():
        raise InputError(f"{name} has dtype {kernel.dtype}; pass a float32 or float64 tensor")
    if kernel.ndim not in (2, 4) or (kernel.ndim == 4 and kernel.shape[1] != kernel.shape[3]):
        raise InputError(f"{name} has shape {tuple(kernel.shape)}; expected (N, C, M, C) or (N, M)")
    if kernel.numel() == 0:
        raise InputError(f"{name} is empty: its shape is {tuple(kernel.shape)}")
    if not torch.isfinite(kernel).all():
        bad = int((~torch.isfinite(kernel)).sum())
        raise InputError(
            f"{name} has {bad} entries that are infinite or NaN; compute it again, in float64 if it overflows"
        )
    if kernel.ndim == 2:
        return kernel
    n, c, m, _ = kernel.shape
    return kernel.reshape(n * c, m * c)


@checked
def pretrain_effective(feature_kernel: Float[Tensor, "n m"], num_classes: int) -> Float[Tensor, "n c m c"]:
    """Build the pre-train-effective component P = k ⊗ I_C from the feature kernel.

    Source: Tomihari and Sato (2024), the decomposition of the empirical NTK into P and F.

    Args:
        feature_kernel: k, of shape (N, M): ⟨φ(x), φ(x')⟩, plus 1 where the head has a bias.
        num_classes: C, the number of logits.

    Returns:
        P, of shape (N, C, M, C), dense: C² times the memory of k.

    Raises:
        InputError: The feature kernel is not a finite matrix, or `num_classes` is not positive.
    """
    check_feature_kernel(feature_kernel)
    check_num_classes(num_classes)
    identity = torch.eye(num_classes, dtype=feature_kernel.dtype, device=feature_kernel.device)
    # Not as a product of matrices, which an autocast around would round.
    return feature_kernel[:, None, :, None] * identity[:, None, :]


@checked
def transposed(kernel: Float[Tensor, "n c m c"] | Float[Tensor, "n m"]) -> Tensor:
    """Exchange the rows and columns of a kernel: Θ(x', x) = Θ(x, x')ᵀ.

    Args:
        kernel: A kernel of shape (N, C, M, C) or (N, M), for example train rows × evaluation columns.

    Returns:
        A view of the kernel, of shape (M, C, N, C) or (M, N).

    Raises:
        InputError: The kernel has neither two nor four axes.
    """
    if kernel.ndim == 2:
        return kernel.T
    if kernel.ndim == 4:
        return kernel.permute(2, 3, 0, 1)
    raise InputError(f"kernel has shape {tuple(kernel.shape)}; expected (N, C, M, C) or (N, M)")


def check_feature_kernel(feature_kernel: Float[Tensor, "n m"]) -> None:
    """Refuse a feature kernel that is not a finite matrix.

    Args:
        feature_kernel: k, of shape (N, M).

    Raises:
        InputError: It has another number of axes, is empty, or has entries that are not finite.
    """
    if feature_kernel.ndim != 2:
        raise InputError(f"feature kernel has shape {tuple(feature_kernel.shape)}; expected (N, M)")
    as_matrix(feature_kernel, "feature kernel")


def check_num_classes(num_classes: int) -> None:
    """Refuse a number of classes below one.

    Args:
        num_classes: C, the number of logits.

    Raises:
        InputError: `num_classes` is not positive.
    """
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; a classifier has at least one logit")


def check_labels(labels: Int[Tensor, " n"], num_samples: int, num_classes: int, name: str = "labels") -> Tensor:
    """Check class indices against the samples and the classes that they belong to.

    Args:
        labels: The class index of each sample, of shape (N,).
        num_samples: N.
        num_classes: C; labels run from 0 to C − 1.
        name: What error messages call the labels.

    Returns:
        The labels as int64 on the CPU.

    Raises:
        InputError: The labels are no integers, not one a sample, or outside 0 … C − 1.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"{name} have dtype {labels.dtype}; pass class indices as integers")
    if tuple(labels.shape) != (num_samples,):
        raise InputError(f"{name} have shape {tuple(labels.shape)}; expected ({num_samples},), one a sample")
    labels = labels.detach().to("cpu", torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(f"{name} run from {low} to {high}; expected class indices from 0 to {num_classes - 1}")
    return labels


def in_float64(tensor: Tensor) -> Tensor:
    """Convert to float64, on the tensor's device where that device has float64, else on the CPU."""
    device = tensor.device if tensor.device.type in ("cpu", "cuda") else torch.device("cpu")
    return tensor.detach().to(device).to(torch.float64)


def asymmetry(matrix: Float[Tensor, "n n"]) -> float:
    """Measure how far a square matrix is from symmetric.

    Args:
        matrix: A square matrix.

    Returns:
        max |A − Aᵀ| / max |A|; 0 for the zero matrix.
    """
    largest = float(matrix.abs().max())
    if largest == 0:
        return 0.0
    return float((matrix - matrix.T).abs().max()) / largest


def symmetry_tolerance(dtype: torch.dtype) -> float:
    """State the asymmetry that rounding explains: a thousand times the machine epsilon of `dtype`.

    The two triangles of a kernel may have been summed in different orders; two different sets of samples of the same
    size differ by far more.
    """
    return 1e3 * torch.finfo(dtype).eps


def require_symmetric(matrix: Float[Tensor, "n m"], name: str, computed_in: torch.dtype | None = None) -> Tensor:
    """Return the symmetric part, in float64, of a kernel matrix that should be symmetric.

    Args:
        matrix: A kernel matrix of a set of samples against itself.
        name: What error messages call the kernel.
        computed_in: The dtype in which the kernel was computed, if not its own.

    Returns:
        (A + Aᵀ) / 2 in float64.

    Raises:
        InputError: The matrix is not square, or its asymmetry is beyond `symmetry_tolerance`.
    """
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"{name} is a {matrix.shape[0]}×{matrix.shape[1]} matrix; this statistic needs the kernel of a set of "
            "samples against itself"
        )
    matrix64 = in_float64(matrix)
    difference, allowed = asymmetry(matrix64), symmetry_tolerance(computed_in or matrix.dtype)
    if difference > allowed:
        raise InputError(
            f"{name} is not symmetric: max|A − Aᵀ| is {difference:.1e} of its largest entry, {allowed:.1e} allowed; "
            "this statistic needs the kernel of a set of samples against itself"
        )
    return (matrix64 + matrix64.T) / 2
