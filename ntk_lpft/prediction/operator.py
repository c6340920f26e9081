"""P, F and P + F as linear maps from changes of the training samples' logits to changes of any samples' logits."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.decomposition import NTKDecomposition
from ntk_lpft.statistics.matrix import as_matrix, check_feature_kernel, in_float64

COMPONENTS = ("P", "F", "P+F")

# Relative accuracy of the largest eigenvalue, which sets the scale of a learning rate and nothing finer.
_EIGENVALUE_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class KernelOperator:
    """u ↦ Σ_i K(x, x_i) u_i for one component K of the NTK, in float64 on the CPU; P = k ⊗ I_C is never built.

    Attributes:
        feature_kernel: k, of shape (N, M); None leaves P out.
        ft_effective: F, of shape (N, C, M, C); None leaves F out.
    """

    feature_kernel: Float64[Tensor, "n m"] | None
    ft_effective: Float64[Tensor, "n c m c"] | None

    def __call__(self, values: Float64[Tensor, "m c"]) -> Float64[Tensor, "n c"]:
        """Apply the component to one vector of C entries for each training sample."""
        total: Float64[Tensor, "n c"] | None = None
        if self.feature_kernel is not None:
            total = self.feature_kernel @ values
        if self.ft_effective is not None:
            n, c, m, _ = self.ft_effective.shape
            part = (self.ft_effective.reshape(n * c, m * c) @ values.reshape(m * c)).reshape(n, c)
            total = part if total is None else total + part
        assert total is not None
        return total


@checked
def kernel_operator(ntk: NTKDecomposition, component: str = "P+F") -> KernelOperator:
    """Take one component of a kernel as a linear map.

    Args:
        ntk: The kernel, with the outputs ``full``.
        component: ``P``, ``F`` or ``P+F``.

    Returns:
        The map.

    Raises:
        InputError: An unknown component, or a kernel with reduced outputs or entries that are not finite.
    """
    if component not in COMPONENTS:
        raise InputError(f"unknown component {component!r} of the kernel; choose one of {', '.join(COMPONENTS)}")
    if ntk.outputs != "full":
        raise InputError(f"a kernel of the {ntk.outputs} outputs cannot move logits; compute it with outputs full")
    feature_kernel, ft_effective = ntk.feature_kernel, ntk.ft_effective
    check_feature_kernel(feature_kernel)
    as_matrix(ft_effective, "F")
    return KernelOperator(
        in_float64(feature_kernel).cpu() if "P" in component else None,
        in_float64(ft_effective).cpu() if "F" in component else None,
    )


@checked
def largest_eigenvalue(ntk: NTKDecomposition, component: str = "P+F") -> float:
    """Compute λ_max of a train × train kernel by the Lanczos method.

    Gradient descent in function space on the summed cross-entropy lowers the loss at every step for η < 4 / λ_max, as
    the Hessian diag(p) − p pᵀ of the cross-entropy with respect to the logits has no eigenvalue above ½.

    Args:
        ntk: A symmetric kernel with the outputs ``full``.
        component: ``P``, ``F`` or ``P+F``.

    Returns:
        λ_max, in the kernel's units.

    Raises:
        InputError: As for `kernel_operator`, or the kernel is not one of a set of samples against itself.
    """
    operator = kernel_operator(ntk, component)
    if not ntk.symmetric:
        raise InputError("the largest eigenvalue is that of a kernel of training samples against themselves")
    n, c = ntk.row_logits.shape

    def product(vector: Float64[np.ndarray, " nc"]) -> Float64[np.ndarray, " nc"]:
        return operator(torch.from_numpy(np.ascontiguousarray(vector)).reshape(n, c)).reshape(-1).numpy()

    # Not the vector of ones: F sends it to zero where the head's rows add up to zero, as after linear probing.
    start = np.random.default_rng(0).normal(size=n * c)
    if not np.any(product(start)):
        return 0.0
    matrix = LinearOperator((n * c, n * c), matvec=product, dtype=np.float64)
    largest = eigsh(matrix, k=1, which="LA", v0=start, tol=_EIGENVALUE_TOLERANCE, return_eigenvectors=False)
    return float(largest[0])
