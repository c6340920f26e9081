"""Per-sample gradients of one parameter, in the compact form that its place in the network allows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class DenseGradients:
    """Gradients as they are.

    Attributes:
        start: Internal number of the first sample.
        jacobian: (n, k, p), k channels, p entries of the parameter.
    """

    start: int
    jacobian: Float[Tensor, "n k p"]

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.jacobian.shape[0]


@dataclass(frozen=True)
class OuterGradients:
    """Gradients Σ_t g_nkt a_ntᵀ of a matrix, as their factors.

    Attributes:
        start: Internal number of the first sample.
        inputs: a, (n, t, i).
        grads: g, (n, t, k, o).
    """

    start: int
    inputs: Float[Tensor, "n t i"]
    grads: Float[Tensor, "n t k o"]

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.inputs.shape[0]

    @property
    def positions(self) -> int:
        """Number of positions kept, t."""
        return self.inputs.shape[1]


@dataclass(frozen=True)
class SparseGradients:
    """Gradients of an embedding table: one vector for each token that a sample holds.

    Attributes:
        owners: Internal numbers of the samples, (u,).
        tokens: Row numbers in the table, (u,); each (owner, token) pair stands once.
        values: (u, k, d).
    """

    owners: Int[Tensor, " u"]
    tokens: Int[Tensor, " u"]
    values: Float[Tensor, "u k d"]


SampleGradients = DenseGradients | OuterGradients | SparseGradients


def is_zero(record: SampleGradients) -> bool:
    """Whether a record holds nothing but zero gradients."""
    if isinstance(record, DenseGradients):
        return not bool(record.jacobian.any())
    return not bool((record.grads if isinstance(record, OuterGradients) else record.values).any())


def keep_active(
    inputs: Float[Tensor, "n t i"], grads: Float[Tensor, "n t k o"]
) -> tuple[Float[Tensor, "n s i"], Float[Tensor, "n s k o"]]:
    """Drop the positions whose gradient is zero: padding, and in the last block all but the pooled one.

    Exact, as a zero g adds nothing to Σ_t g_t a_tᵀ. Samples keep as many positions as the fullest of them needs.
    """
    # Nearly always the first output feature alone shows that every position counts, at a fraction of the reading.
    if bool(grads[..., 0].ne(0).any(dim=2).all()):
        return inputs, grads
    active = grads.flatten(2).ne(0).any(dim=2)
    kept = int(active.sum(dim=1).max())
    if kept == active.shape[1]:
        return inputs, grads
    kept = max(kept, 1)
    # A stable sort puts the active positions first and keeps their order.
    order = torch.sort(active.to(torch.int8), dim=1, descending=True, stable=True).indices[:, :kept]
    rows = torch.arange(order.shape[0], device=order.device)[:, None]
    return inputs[rows, order], grads[rows, order]


def add_at_(target: Float[Tensor, "r ..."], places: Int[Tensor, " n"], values: Float[Tensor, "n ..."]) -> None:
    """Add values to rows of a tensor, several to one row, always in the same order.

    On the CPU ``index_add_`` adds one after the other, while ``index_put_`` spreads float32 over threads that overtake
    each other; on CUDA ``index_put_`` sorts before it adds, while ``index_add_`` takes them as they come.

    Args:
        target: What is added to, (r, …).
        places: The row of each value, (n,).
        values: Of shape (n, …).
    """
    if target.is_cuda:
        target.index_put_((places,), values, accumulate=True)
    else:
        target.index_add_(0, places, values)


def sum_by_token(
    start: int,
    tokens: Int[Tensor, "n t"],
    grads: Float[Tensor, "n t k d"],
    skipped: int | None,
    dtype: torch.dtype | None = None,
) -> SparseGradients:
    """Sum an embedding's output gradients over the positions of a sample that hold the same token.

    Args:
        start: Internal number of the first sample.
        tokens: Row numbers looked up, (n, t).
        grads: Gradients of the looked-up vectors, (n, t, k, d).
        skipped: The table's ``padding_idx``, whose row gets no gradient.
        dtype: What the sums are stored in; they are made in that of the gradients.

    Returns:
        The record; (owner, token) pairs in ascending order.
    """
    n, _ = tokens.shape
    span = int(tokens.max()) + 1
    owners = torch.arange(n, device=tokens.device)[:, None].expand_as(tokens)
    keys, inverse = torch.unique((owners * span + tokens).flatten(), return_inverse=True)
    values = grads.new_zeros((len(keys), *grads.shape[2:]))
    add_at_(values, inverse, grads.flatten(0, 1))
    positions = keys % span
    wanted = values.flatten(1).ne(0).any(dim=1)
    if skipped is not None:
        wanted &= positions != skipped
    return SparseGradients((keys // span)[wanted] + start, positions[wanted], values[wanted].to(dtype or values.dtype))
