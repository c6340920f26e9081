"""Spectra of F and of P + F from the kernel F_r of the combinations of the logits that the head can reach."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import as_matrix, check_feature_kernel, check_num_classes
from ntk_lpft.statistics.spectrum import Spectrum, kernel_spectrum, numerical_rank_tolerance


@checked
def ft_effective_spectrum(
    reduced: Float[Tensor, "n r m r"],
    num_classes: int,
    *,
    symmetric: bool | None = None,
    computed_in: torch.dtype | None = None,
) -> Spectrum:
    """Compute the spectrum of F = (I ⊗ Q) F_r (I ⊗ Qᵀ): that of F_r, and zeros.

    Exact for any Q with orthonormal columns, at (r/C)³ of the work of decomposing F. The rank tolerance is that of F,
    whose shape is (NC, MC).

    Args:
        reduced: F_r, of shape (N, r, M, r), see `NTKDecomposition.reduced_ft_effective`.
        num_classes: C, the number of logits.
        symmetric: As for `kernel_spectrum`.
        computed_in: As for `kernel_spectrum`.

    Returns:
        The spectrum of F.

    Raises:
        InputError: As for `kernel_spectrum`, or r > C.
    """
    n, r, m = _sizes(reduced, num_classes)
    small = kernel_spectrum(reduced, symmetric=symmetric, computed_in=computed_in)
    zeros = np.zeros(min(n, m) * (num_classes - r))
    return _joined(small, zeros, zeros, (n * num_classes, m * num_classes), computed_in or reduced.dtype)


@checked
def total_spectrum(
    feature_kernel: Float[Tensor, "n m"],
    reduced: Float[Tensor, "n r m r"],
    num_classes: int,
    *,
    symmetric: bool | None = None,
    computed_in: torch.dtype | None = None,
) -> Spectrum:
    """Compute the spectrum of P + F = k ⊗ I_C + (I ⊗ Q) F_r (I ⊗ Qᵀ): that of k ⊗ I_r + F_r, and C − r times that of k.

    With Q completed to an orthonormal basis of all logits, P + F has these two as its diagonal blocks, and nothing
    beside them, so that this is exact.

    Args:
        feature_kernel: k, of shape (N, M).
        reduced: F_r, of shape (N, r, M, r), for the same samples.
        num_classes: C, the number of logits.
        symmetric: As for `kernel_spectrum`.
        computed_in: As for `kernel_spectrum`.

    Returns:
        The spectrum of P + F.

    Raises:
        InputError: As for `kernel_spectrum`, r > C, or shapes that do not fit each other.
    """
    n, r, m = _sizes(reduced, num_classes)
    check_feature_kernel(feature_kernel)
    if tuple(feature_kernel.shape) != (n, m):
        raise InputError(
            f"shapes do not fit: feature kernel {tuple(feature_kernel.shape)}, F_r {tuple(reduced.shape)}; expected "
            "(N, M) and (N, r, M, r)"
        )
    within = reduced.clone()
    # P adds k to the diagonal of each block.
    torch.diagonal(within, dim1=1, dim2=3).add_(feature_kernel.to(within)[:, :, None])
    dtype = computed_in or reduced.dtype
    small = kernel_spectrum(within, symmetric=symmetric, computed_in=dtype)
    outside = kernel_spectrum(feature_kernel, symmetric=small.eigenvalues is not None, computed_in=dtype)
    copies = num_classes - r
    eigenvalues = np.zeros(0) if outside.eigenvalues is None else outside.eigenvalues
    return _joined(
        small,
        np.repeat(outside.singular_values, copies),
        np.repeat(eigenvalues, copies),
        (n * num_classes, m * num_classes),
        dtype,
    )


def _sizes(reduced: Tensor, num_classes: int) -> tuple[int, int, int]:
    check_num_classes(num_classes)
    as_matrix(reduced, "F_r")
    if reduced.ndim != 4 or reduced.shape[1] > num_classes:
        raise InputError(
            f"F_r has shape {tuple(reduced.shape)}; expected (N, r, M, r) with r of at most {num_classes} classes"
        )
    return reduced.shape[0], reduced.shape[1], reduced.shape[2]


def _joined(
    small: Spectrum, singular_values: np.ndarray, eigenvalues: np.ndarray, shape: tuple[int, int], dtype: torch.dtype
) -> Spectrum:
    """Return the spectrum of a matrix of two diagonal blocks from theirs."""
    values = np.sort(np.concatenate([small.singular_values, singular_values]))[::-1].copy()
    both = None
    if small.eigenvalues is not None:
        both = np.sort(np.concatenate([small.eigenvalues, eigenvalues]))[::-1].copy()
    return Spectrum(shape, values, both, numerical_rank_tolerance(shape, float(values[0]), dtype))
