"""Kernel layouts for property-based tests, and the kernel of dense gradients in each."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.kernel.layout import Layout


@st.composite
def layouts(draw: st.DrawFn, most: int = 5) -> Layout:
    """Symmetric, rectangular and joint; traced or not.

    Args:
        draw: Given by hypothesis.
        most: Largest number of column samples, and of samples that are rows only.

    Returns:
        A layout of at least one row, one column and one channel.
    """
    symmetric = draw(st.booleans())
    extra = draw(st.integers(0 if symmetric else 1, most))
    return Layout(draw(st.integers(1, most)), extra, symmetric, draw(st.integers(1, 3)), draw(st.booleans()))


def dense_kernel(layout: Layout, jacobian: Float[Tensor, "n k p"]) -> Float[Tensor, "rows columns"]:
    """Return J Jᵀ in internal order, by one sum over the parameter's entries for each pair."""
    rows = jacobian if layout.symmetric else jacobian[layout.columns :]
    columns = jacobian[: layout.columns]
    if layout.traced:
        return torch.einsum("nkp,mkp->nm", rows, columns)
    kernel = torch.einsum("ncp,mdp->ncmd", rows, columns)
    return kernel.reshape(layout.shape)
