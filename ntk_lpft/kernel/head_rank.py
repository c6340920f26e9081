"""How many combinations of the logits a head can move, and which."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ntk_lpft.classifier.head import Head, head_input_gradients
from ntk_lpft.kernel.autograd import random_seeds


@dataclass(frozen=True)
class HeadRank:
    """Which combinations of the logits the body can move through the head.

    f = Vφ + b, so that a body's parameter moves f within the range of V alone. With Q an orthonormal basis of it, and
    F_r the kernel of the r = rank(V) combinations Qᵀf, F = V Θ^φ Vᵀ = Q F_r Qᵀ (the first by Tomihari and Sato, 2024).

    Attributes:
        basis: Q, of shape (C, r); of one column, that F_r is zero for, where V is zero.
        rank: r.
        cut: Singular values of V up to this one count as zero: ε ‖V‖_F, with ε that of the dtype, twice what rounding
            V's entries can make of a zero. They change F by no more than such rounding does.
        largest: V's largest singular value.
    """

    basis: Float64[Tensor, "c k"]
    rank: int
    cut: float
    largest: float

    @property
    def reduces(self) -> bool:
        """Whether r < C."""
        return self.rank < self.basis.shape[0]


def rank_of_head(weight: Float[Tensor, "c h"], dtype: torch.dtype) -> HeadRank:
    """Find the range of V.

    The rows of a head from logistic regression add up to zero, so that r = C − 1; a random head has r = C.

    Args:
        weight: V, of shape (C, h).
        dtype: The dtype that the kernel is computed in.

    Returns:
        Its rank, and a basis of its range.
    """
    # On the CPU, as results must not depend on the device's own algorithm.
    left, values, _ = torch.linalg.svd(weight.detach().to("cpu", torch.float64), full_matrices=False)
    cut = torch.finfo(dtype).eps * float(torch.linalg.vector_norm(values))
    rank = int((values > cut).sum())
    largest = float(values[0])
    if rank == 0:
        return HeadRank(torch.eye(weight.shape[0], 1, dtype=torch.float64, device="cpu"), 0, cut, largest)
    # The sign of a singular vector is arbitrary, and may depend on the processor.
    basis = left[:, :rank]
    pivots = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
    return HeadRank(basis * pivots.sign(), rank, cut, largest)


def unreachable_share(
    module: nn.Module, head: Head, tensors: Mapping[str, Tensor], basis: Float64[Tensor, "c k"]
) -> float:
    """Measure how much of a logit the body moves outside the range of V: nothing, if logits are Vφ + b.

    Args:
        module: The classifier, opened.
        head: Its head.
        tensors: A batch of one sample.
        basis: Q.

    Returns:
        ‖∂(s − QQᵀs)ᵀf / ∂φ‖ / ‖∂sᵀf / ∂φ‖, the larger of two random s; 0 where the denominator is.
    """
    seeds = random_seeds(basis.shape[0])
    outside = seeds - seeds @ basis @ basis.T
    gradients = head_input_gradients(module, head, tensors, torch.cat([seeds, outside]))
    whole, rest = (gradients[half].double().flatten(1).norm(dim=1) for half in (slice(0, 2), slice(2, 4)))
    return float((rest / whole.clamp_min(torch.finfo(torch.float64).tiny)).max())
