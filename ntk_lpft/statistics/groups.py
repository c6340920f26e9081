"""Which parameters F comes from: the share of each parameter group, by trace, by inner product and by norm."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import as_matrix, in_float64, require_symmetric


@checked
def trace_shares(groups: Mapping[str, Float[Tensor, "n c n c"] | Float[Tensor, "n n"]]) -> dict[str, float]:
    """Compute tr(F_g) / tr(F), the share of each parameter group in the squared gradient norms.

    The shares add up to 1, and none is negative, for the trace of F_g is Σ ‖∂f_c(x) / ∂θ_g‖² over samples and classes.

    Args:
        groups: F_g of each parameter group, symmetric, of shape (N, C, N, C) (or (N, N) where reduced); F is their sum.

    Returns:
        The share of each group, in the order of `groups`.

    Raises:
        InputError: There is no group, the groups' shapes differ, a kernel is not finite or not symmetric, or F has no
            trace to share.
    """
    matrices = _matrices(groups)
    traces = {}
    for name, matrix in matrices.items():
        traces[name] = float(require_symmetric(matrix, f"group {name!r}").diagonal().sum())
    total = sum(traces.values())
    if total <= 0:
        raise InputError(f"the trace of F is {total:g}, so that its groups have no shares in it; is the head zero?")
    return {name: trace / total for name, trace in traces.items()}


@checked
def projection_shares(groups: Mapping[str, Float[Tensor, "n c m c"] | Float[Tensor, "n m"]]) -> dict[str, float]:
    """Compute ⟨F_g, F⟩ / ⟨F, F⟩, the share of each parameter group in F as a whole.

    The shares add up to 1 and serve rectangular kernels too; one is negative where a group works against the sum,
    which no symmetric positive semi-definite kernels do.

    Args:
        groups: F_g of each parameter group, of shape (N, C, M, C) (or (N, M) where reduced); F is their sum.

    Returns:
        The share of each group, in the order of `groups`.

    Raises:
        InputError: There is no group, the groups' shapes differ, a kernel is not finite, or F is zero.
    """
    matrices = _matrices(groups)
    total = _sum(matrices)
    square = _squared_norm(total)
    return {name: float((in_float64(matrix) * total).sum()) / square for name, matrix in matrices.items()}


@checked
def frobenius_shares(groups: Mapping[str, Float[Tensor, "n c m c"] | Float[Tensor, "n m"]]) -> dict[str, float]:
    """Compute ‖F_g‖ / ‖F‖, the norm of each parameter group's kernel beside that of the sum.

    These do not add up to 1: norms of a sum are no sums of norms.

    Args:
        groups: F_g of each parameter group, of shape (N, C, M, C) (or (N, M) where reduced); F is their sum.

    Returns:
        The quotient of each group, in the order of `groups`.

    Raises:
        InputError: There is no group, the groups' shapes differ, a kernel is not finite, or F is zero.
    """
    matrices = _matrices(groups)
    norm = _squared_norm(_sum(matrices)) ** 0.5
    return {name: float(torch.linalg.matrix_norm(in_float64(matrix))) / norm for name, matrix in matrices.items()}


def _matrices(groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Check the groups and flatten each to its matrix."""
    if not groups:
        raise InputError("there are no parameter groups; pass the group kernels that F is the sum of")
    matrices = {name: as_matrix(kernel, f"group {name!r}") for name, kernel in groups.items()}
    shapes = {name: tuple(kernel.shape) for name, kernel in groups.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"parameter groups differ in shape: {shapes}")
    return matrices


def _sum(matrices: Mapping[str, Tensor]) -> Tensor:
    """Add the groups up in float64, one at a time: together they are far larger than F."""
    total: Tensor | None = None
    for matrix in matrices.values():
        total = in_float64(matrix).clone() if total is None else total.add_(in_float64(matrix))
    assert total is not None  # _matrices refuses an empty mapping
    return total


def _squared_norm(total: Tensor) -> float:
    square = float(total.square().sum())
    if square == 0:
        raise InputError("F is zero, so that its groups have no shares in it; is the head zero?")
    return square
