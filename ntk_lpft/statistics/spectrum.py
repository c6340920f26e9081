"""The spectrum of a kernel and what is read from it: rank, effective rank, norms, extreme eigenvalues."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import (
    as_matrix,
    asymmetry,
    check_feature_kernel,
    check_num_classes,
    in_float64,
    require_symmetric,
    symmetry_tolerance,
)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values and eigenvalues of one kernel, computed once.

    Attributes:
        shape: The shape of the kernel as a matrix, (NC, MC).
        singular_values: σ_1 ≥ σ_2 ≥ …, of shape (min(NC, MC),), in float64 and in the kernel's units.
        eigenvalues: λ_1 ≥ λ_2 ≥ …, of shape (NC,), in float64; None where the kernel is not symmetric.
        rank_tolerance: Singular values above this count towards the rank.
        least_rank: A rank that this kernel has at least, as is known from elsewhere: that of P + F is no smaller than
            those of P and F, whose small directions the rounding of a larger sum may hide.
    """

    shape: tuple[int, int]
    singular_values: Float64[np.ndarray, " r"]
    eigenvalues: Float64[np.ndarray, " r"] | None
    rank_tolerance: float
    least_rank: int = 0

    @property
    def rank(self) -> int:
        """The number of singular values above `rank_tolerance`, or `least_rank` where that is more."""
        return max(self._counted, self.least_rank)

    @property
    def _counted(self) -> int:
        return int(np.count_nonzero(self.singular_values > self.rank_tolerance))

    @property
    def effective_rank(self) -> float:
        """exp(−Σ p_i ln p_i) with p_i = σ_i / Σ_j σ_j; 0 for the zero kernel.

        Source: Roy and Vetterli (2007), "The effective rank: a measure of effective dimensionality", definition 1.
        """
        total = self.trace_norm
        if total == 0:
            return 0.0
        shares = self.singular_values / total
        shares = shares[shares > 0]
        return float(np.exp(-np.sum(shares * np.log(shares))))

    @property
    def frobenius_norm(self) -> float:
        """(Σ σ_i²)^½."""
        return float(np.linalg.norm(self.singular_values))

    @property
    def trace_norm(self) -> float:
        """Σ σ_i, also called the nuclear norm."""
        return float(self.singular_values.sum())

    @property
    def spectral_norm(self) -> float:
        """σ_1, the largest singular value."""
        return float(self.singular_values[0])

    @property
    def trace(self) -> float | None:
        """Σ λ_i; None where the kernel is not symmetric."""
        return None if self.eigenvalues is None else float(self.eigenvalues.sum())

    @property
    def largest_eigenvalue(self) -> float | None:
        """λ_1; None where the kernel is not symmetric."""
        return None if self.eigenvalues is None else float(self.eigenvalues[0])

    @property
    def smallest_eigenvalue(self) -> float | None:
        """The last of the λ_i, below zero by rounding at most for an exact NTK; None where not symmetric."""
        return None if self.eigenvalues is None else float(self.eigenvalues[-1])

    @property
    def condition_number(self) -> float:
        """σ_1 / σ_min; infinite where the kernel is singular, that is where its rank is below min(NC, MC).

        Below `rank_tolerance` the smallest singular value is rounding noise, and so would be the quotient.
        """
        if self._counted < min(self.shape):
            return math.inf
        return self.spectral_norm / float(self.singular_values[-1])


@checked
def numerical_rank_tolerance(shape: tuple[int, int], largest_singular_value: float, dtype: torch.dtype) -> float:
    """State the singular value up to which a matrix computed in `dtype` may owe its rank to rounding.

    For float32 and float64 this is the convention of MATLAB's `rank` and of `numpy.linalg.matrix_rank`, by which the
    paper counts: max(shape) · eps · σ_1. In narrower dtypes that exceeds σ_1 itself for some hundred rows; there it is
    √max(shape) · eps · σ_1, as independent roundings add up.

    Source: Higham and Mary (2019), "A New Approach to Probabilistic Rounding Error Analysis": n·u becomes √n·u.

    Args:
        shape: The shape of the matrix.
        largest_singular_value: σ_1.
        dtype: The dtype in which the matrix was computed.

    Returns:
        The tolerance, in the units of the matrix.
    """
    size = float(max(shape))
    if torch.finfo(dtype).bits < 32:
        size = math.sqrt(size)
    return size * torch.finfo(dtype).eps * largest_singular_value


@checked
def kernel_spectrum(
    kernel: Float[Tensor, "n c m c"] | Float[Tensor, "n m"],
    *,
    symmetric: bool | None = None,
    computed_in: torch.dtype | None = None,
    rank_tolerance: float | None = None,
) -> Spectrum:
    """Compute the spectrum of a kernel in float64.

    A symmetric kernel is decomposed through its symmetric part, whose |λ_i| are the singular values; any other kernel
    through its singular values alone.

    Args:
        kernel: A kernel of shape (N, C, M, C), or a reduced one of shape (N, M).
        symmetric: Whether the kernel is that of a set of samples against itself; by default it is looked at: square,
            and symmetric to a thousand machine epsilons of its largest entry.
        computed_in: The dtype in which the kernel was computed, which sets the rank tolerance; by default its own.
            Name it where a kernel was computed in a lower precision than it is stored in.
        rank_tolerance: The largest singular value, in the units of the kernel, that does not count towards the rank;
            by default `numerical_rank_tolerance`.

    Returns:
        The spectrum.

    Raises:
        InputError: The kernel has another shape, is empty or not finite; it was said to be symmetric and is not; or
            `rank_tolerance` is negative.
    """
    matrix = as_matrix(kernel)
    dtype = computed_in or kernel.dtype
    if symmetric is None:
        square = matrix.shape[0] == matrix.shape[1]
        symmetric = square and asymmetry(in_float64(matrix)) <= symmetry_tolerance(dtype)
    if symmetric:
        eigenvalues = torch.linalg.eigvalsh(require_symmetric(matrix, "kernel", dtype)).flip(0).cpu().numpy()
        singular_values = np.sort(np.abs(eigenvalues))[::-1].copy()
    else:
        eigenvalues = None
        singular_values = torch.linalg.svdvals(in_float64(matrix)).cpu().numpy()
    return _spectrum(tuple(matrix.shape), singular_values, eigenvalues, dtype, rank_tolerance)


@checked
def pretrain_effective_spectrum(
    feature_kernel: Float[Tensor, "n m"],
    num_classes: int,
    *,
    symmetric: bool | None = None,
    computed_in: torch.dtype | None = None,
    rank_tolerance: float | None = None,
) -> Spectrum:
    """Compute the spectrum of P = k ⊗ I_C from k: each singular value and each eigenvalue of k, C times.

    Exact, and without the dense matrix. The rank tolerance is that of P, whose shape is (NC, MC), so that the rank is
    the one `numpy.linalg.matrix_rank` would give the dense P.

    Args:
        feature_kernel: k, of shape (N, M).
        num_classes: C, the number of logits.
        symmetric: As for `kernel_spectrum`.
        computed_in: As for `kernel_spectrum`.
        rank_tolerance: As for `kernel_spectrum`.

    Returns:
        The spectrum of P.

    Raises:
        InputError: As for `kernel_spectrum`, or `num_classes` is not positive.
    """
    check_feature_kernel(feature_kernel)
    check_num_classes(num_classes)
    of_features = kernel_spectrum(feature_kernel, symmetric=symmetric, computed_in=computed_in)
    eigenvalues = of_features.eigenvalues
    return _spectrum(
        (feature_kernel.shape[0] * num_classes, feature_kernel.shape[1] * num_classes),
        np.repeat(of_features.singular_values, num_classes),
        None if eigenvalues is None else np.repeat(eigenvalues, num_classes),
        computed_in or feature_kernel.dtype,
        rank_tolerance,
    )


def sum_spectrum(total: Spectrum, *parts: Spectrum) -> Spectrum:
    """Return the spectrum of a sum with the rank that its parts prove.

    Adding a positive semi-definite matrix lowers no eigenvalue (Weyl), so that rank(P + F) ≥ rank(P), rank(F).

    Args:
        total: The spectrum of a sum of positive semi-definite kernels.
        *parts: The spectra of what is summed.

    Returns:
        The spectrum, whose rank is no smaller than that of any part.
    """
    return replace(total, least_rank=max([total.least_rank, *(part.rank for part in parts)]))


def _spectrum(
    shape: tuple[int, ...],
    singular_values: Float64[np.ndarray, " r"],
    eigenvalues: Float64[np.ndarray, " r"] | None,
    dtype: torch.dtype,
    rank_tolerance: float | None,
) -> Spectrum:
    """Put a spectrum together, with the rank tolerance that was asked for or the usual one."""
    matrix_shape = (shape[0], shape[1])
    if rank_tolerance is None:
        rank_tolerance = numerical_rank_tolerance(matrix_shape, float(singular_values[0]), dtype)
    if not rank_tolerance >= 0:
        raise InputError(f"rank_tolerance is {rank_tolerance}; it is a singular value, zero or above")
    return Spectrum(matrix_shape, singular_values, eigenvalues, rank_tolerance)
