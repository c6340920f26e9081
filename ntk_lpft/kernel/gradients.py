"""Per-sample gradients of one parameter, in the compact form that its place in the network allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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


def has_gradient(record: SampleGradients) -> Bool[Tensor, ""]:
    """Whether a record holds anything but zero gradients; the answer stays on the device."""
    if isinstance(record, DenseGradients):
        return record.jacobian.any()
    return (record.grads if isinstance(record, OuterGradients) else record.values).any()


@dataclass(frozen=True)
class Active:
    """The positions of a layer whose gradient is not zero.

    Attributes:
        mask: Which they are, (n, t).
        most: How many they are in the sample that has the most.
    """

    mask: Bool[Tensor, "n t"]
    most: int


def active_positions(grads: Sequence[Float[Tensor, "n _t k _o"]]) -> list[Active]:
    """Find the active positions of several layers, with one question to the device.

    Args:
        grads: Gradients of the layers' outputs, each (n, t, k, o).

    Returns:
        For each layer its active positions.
    """
    masks = [g.flatten(2).ne(0).any(dim=2) for g in grads]
    most = torch.stack([mask.sum(dim=1).max() for mask in masks]).tolist() if masks else []
    return [Active(mask, count) for mask, count in zip(masks, most, strict=True)]


def keep_active(
    inputs: Float[Tensor, "n t i"], grads: Float[Tensor, "n t k o"], active: Active | None = None
) -> tuple[Float[Tensor, "n s i"], Float[Tensor, "n s k o"]]:
    """Drop the positions whose gradient is zero: padding, and in the last block all but the pooled one.

    Exact, as a zero g adds nothing to Σ_t g_t a_tᵀ. Samples keep as many positions as the fullest of them needs.

    Args:
        inputs: a, (n, t, i).
        grads: g, (n, t, k, o).
        active: The active positions, where they are known.

    Returns:
        a, (n, s, i), and g, (n, s, k, o), of the positions that are kept.
    """
    if active is None:
        # Nearly always the first output feature alone shows that every position counts, at a fraction of the reading.
        if bool(grads[..., 0].ne(0).any(dim=2).all()):
            return inputs, grads
        (active,) = active_positions([grads])
    if active.most == grads.shape[1]:
        return inputs, grads
    kept = max(active.most, 1)
    # A stable sort puts the active positions first and keeps their order.
    order = torch.sort(active.mask.to(torch.int8), dim=1, descending=True, stable=True).indices[:, :kept]
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
    table: int,
    skipped: int | None,
    dtype: torch.dtype | None = None,
) -> SparseGradients:
    """Sum an embedding's output gradients over the positions of a sample that hold the same token.

    Args:
        start: Internal number of the first sample.
        tokens: Row numbers looked up, (n, t).
        grads: Gradients of the looked-up vectors, (n, t, k, d).
        table: Number of the table's rows.
        skipped: The table's ``padding_idx``, whose row gets no gradient.
        dtype: What the sums are stored in; they are made in that of the gradients.

    Returns:
        The record; (owner, token) pairs in ascending order.
    """
    n, _ = tokens.shape
    owners = torch.arange(n, device=tokens.device)[:, None].expand_as(tokens)
    keys, inverse = torch.unique((owners * table + tokens).flatten(), return_inverse=True)
    values = grads.new_zeros((len(keys), *grads.shape[2:]))
    add_at_(values, inverse, grads.flatten(0, 1))
    positions = keys % table
    wanted = values.flatten(1).ne(0).any(dim=1)
    if skipped is not None:
        wanted &= positions != skipped
    # Numbers instead of the mask: a GPU is asked once how many there are.
    kept = wanted.nonzero()[:, 0]
    return SparseGradients((keys // table)[kept] + start, positions[kept], values[kept].to(dtype or values.dtype))
