"""The rank form of F: F = (I ⊗ Q) F_r (I ⊗ Qᵀ), where Q spans the logits that the head's V can move."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.errors import InputError

# Entries that are expanded at a time, in float64.
_EXPANDED = 1 << 22

# How far from orthonormal a Q that was stored may be.
_ORTHONORMAL = 1e-4


class RankFormGroups(Mapping[str, Tensor]):
    """F by parameter group, kept as F_r and expanded to (N, C, M, C) when it is asked for.

    Args:
        basis: Q, of shape (C, r), with orthonormal columns.
        reduced: F_r by group, each of shape (N, r, M, r).
        symmetric: Whether rows and columns are the same samples, so that expanded kernels are made exactly symmetric.

    Raises:
        InputError: Q is not orthonormal, or a group's r is not that of Q.
    """

    def __init__(self, basis: Float[Tensor, "c r"], reduced: Mapping[str, Tensor], *, symmetric: bool) -> None:
        if not isinstance(basis, Tensor):
            raise InputError(f"kernel: the head's basis is of type {type(basis).__name__}; pass a torch tensor")
        if basis.dim() != 2 or not 1 <= basis.shape[1] <= basis.shape[0] or not basis.is_floating_point():
            raise InputError(f"kernel: the head's basis is {basis.dtype} of shape {tuple(basis.shape)}, not (C, r)")
        gram = basis.double().T @ basis.double()
        eye = torch.eye(basis.shape[1], dtype=torch.float64, device=basis.device)
        if not float((gram - eye).abs().max()) <= _ORTHONORMAL:
            raise InputError("kernel: the columns of the head's basis are not orthonormal")
        for name, value in reduced.items():
            if not isinstance(value, Tensor):
                raise InputError(f"kernel: group {name!r} is of type {type(value).__name__}; pass a torch tensor")
            if value.dim() != 4 or value.shape[1] != basis.shape[1] or value.shape[3] != basis.shape[1]:
                raise InputError(
                    f"kernel: group {name!r} has shape {tuple(value.shape)}, which does not fit a basis of "
                    f"{basis.shape[1]} combinations of the logits"
                )
        self.basis = basis
        self.reduced = dict(reduced)
        self.symmetric = symmetric

    def __getitem__(self, name: str) -> Float[Tensor, "n c m c"]:
        """Expand one group."""
        return expand(self.reduced[name], self.basis, symmetric=self.symmetric)

    def __iter__(self) -> Iterator[str]:
        """Names of the groups."""
        return iter(self.reduced)

    def __len__(self) -> int:
        """Count the groups."""
        return len(self.reduced)

    def __repr__(self) -> str:
        """Name the groups; their numbers would have to be expanded."""
        c, r = self.basis.shape
        return f"{type(self).__name__}({', '.join(self.reduced)}; rank {r} of {c} logits)"

    def to(self, *args: object, **kwargs: object) -> "RankFormGroups":
        """Move or convert the tensors, as ``torch.Tensor.to`` does."""
        reduced = {name: value.to(*args, **kwargs) for name, value in self.reduced.items()}  # type: ignore[call-overload]
        basis = self.basis.to(*args, **kwargs)  # type: ignore[call-overload]
        return RankFormGroups(basis, reduced, symmetric=self.symmetric)


def expand(
    reduced: Float[Tensor, "n r m r"], basis: Float[Tensor, "c r"], *, symmetric: bool = False
) -> Float[Tensor, "n c m c"]:
    """Compute (I ⊗ Q) K (I ⊗ Qᵀ), in float64, rounded once to the kernel's dtype.

    Args:
        reduced: K, the kernel of the combinations Qᵀf, of shape (N, r, M, r).
        basis: Q, of shape (C, r).
        symmetric: Whether K is symmetric; the result is then symmetric to the last bit.

    Returns:
        The kernel of the logits, of shape (N, C, M, C), on the kernel's device.
    """
    n, r, m, _ = reduced.shape
    c = basis.shape[0]
    out = reduced.new_empty((n, c, m, c))
    q = basis.to(reduced.device, torch.float64)
    step = max(1, _EXPANDED // max(1, m * c * c))
    # Autocast and TF32, which may be switched on around, leave float64 alone.
    for at in range(0, n, step):
        rows = reduced[at : at + step].double()
        columns = rows.reshape(-1, r) @ q.T  # (rows r M, C)
        by_class = columns.view(len(rows), r, m * c).transpose(1, 2) @ q.T  # (rows, M C, C)
        out[at : at + step] = by_class.view(len(rows), m, c, c).permute(0, 3, 1, 2)
    if symmetric:
        square = out.view(n * c, m * c)
        return ((square + square.T) / 2).view(n, c, m, c)
    return out
