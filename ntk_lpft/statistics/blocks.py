"""Kernels seen sample by sample: the trace norm of each C×C block, and the order that sorts samples by class."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import as_matrix, check_feature_kernel, check_num_classes, in_float64


@checked
def block_trace_norms(kernel: Float[Tensor, "n c m c"], *, blocks_at_a_time: int = 65536) -> Float64[Tensor, "n m"]:
    """Compute ‖K(x, x')‖_tr, the trace (nuclear) norm of the C×C block of each pair of samples.

    Source: Tomihari and Sato (2024), the heat maps of the trace norm of P and F.

    Args:
        kernel: A kernel of shape (N, C, M, C).
        blocks_at_a_time: How many blocks are decomposed in one batch, which bounds the memory; the result does not
            depend on it.

    Returns:
        The sum of the singular values of each block, of shape (N, M), in float64, in the kernel's units.

    Raises:
        InputError: The kernel is not of that shape or not finite, or `blocks_at_a_time` is not positive.
    """
    if kernel.ndim != 4:
        raise InputError(f"kernel has shape {tuple(kernel.shape)}; blocks need (N, C, M, C)")
    if blocks_at_a_time < 1:
        raise InputError(f"blocks_at_a_time is {blocks_at_a_time}; at least one block is needed")
    as_matrix(kernel)
    n, c, m, _ = kernel.shape
    rows_at_a_time = max(1, blocks_at_a_time // m)
    norms = []
    for rows in kernel.split(rows_at_a_time):
        blocks = in_float64(rows).permute(0, 2, 1, 3).reshape(-1, c, c)
        norms += [torch.linalg.svdvals(some).sum(dim=1) for some in blocks.split(blocks_at_a_time)]
    return torch.cat(norms).reshape(n, m)


@checked
def pretrain_effective_block_trace_norms(
    feature_kernel: Float[Tensor, "n m"], num_classes: int
) -> Float64[Tensor, "n m"]:
    """Compute `block_trace_norms` for P = k ⊗ I_C in closed form: C |k|.

    Args:
        feature_kernel: k, of shape (N, M).
        num_classes: C, the number of logits.

    Returns:
        The trace norm of each block of P, of shape (N, M), in float64.

    Raises:
        InputError: The feature kernel is not a finite matrix, or `num_classes` is not positive.
    """
    check_feature_kernel(feature_kernel)
    check_num_classes(num_classes)
    return num_classes * in_float64(feature_kernel).abs()


@checked
def class_order(labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return the sample order that sorts by class and keeps the samples of one class as they were.

    Args:
        labels: The class of each sample, of shape (N,).

    Returns:
        Sample indices, of shape (N,): `kernel[order][:, order]` is sorted by class.

    Raises:
        InputError: The labels are no vector of integers.
    """
    _check_vector(labels)
    return torch.argsort(labels, stable=True)


@checked
def class_boundaries(labels: Int[Tensor, " n"]) -> list[int]:
    """Return where one class ends and the next begins in the class-sorted order.

    Args:
        labels: The class of each sample, of shape (N,), in any order.

    Returns:
        The position of the first sample of each class that occurs, after the first class: ascending, within 1 … N − 1.

    Raises:
        InputError: The labels are no vector of integers.
    """
    _check_vector(labels)
    counts = torch.unique(labels, return_counts=True)[1]
    return counts.cumsum(0)[:-1].tolist()


def _check_vector(labels: Tensor) -> None:
    if labels.ndim != 1 or labels.numel() == 0 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; expected (N,) integers")
