"""Which rows and columns a kernel has, and how products of per-sample gradients are added to it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.kernel import syrk
from ntk_lpft.kernel.split import Parts, add_split_product_, pieces

# Below this size a diagonal block of a symmetric product is computed whole: smaller products cost more in
# overhead than their other half costs in arithmetic.
LEAF = 128
# On a GPU, and of split products, what a product costs beside arithmetic is more.
GPU_LEAF = 512

# Rows of a symmetric kernel that are mirrored at a time.
_MIRRORED = 512

# Entries of a factor that are widened at a time where torch would round a product to the dtype of its factors.
_WIDENED = 1 << 22

# A GPU multiplies tiles of so many rows and columns, and needs so many of them to be busy. Sums are cut into blocks of
# no fewer terms, whose numbers lie together.
_TILE, _TILES = 128, 1024
_LEAST_TERMS, _ALIGNED = 2048, 16


@dataclass(frozen=True)
class Layout:
    """Rows and columns of a kernel in internal order: first the samples that are columns, then the other rows.

    Attributes:
        columns: Number of samples that are columns, M.
        extra: Number of samples that are rows only.
        symmetric: Whether the columns are rows as well; that half of the kernel is then computed once.
        channels: Number of backward passes for each sample (C, or 1 for the pseudo-NTK).
        traced: Whether the channels are summed over, so that rows and columns are samples.
        products: Number of bfloat16 products that stand for one of float32, 3 or 6 (see `split`); 1 for none.
    """

    columns: int
    extra: int
    symmetric: bool
    channels: int
    traced: bool = False
    products: int = 1

    @property
    def samples(self) -> int:
        """Number of samples whose gradients are needed."""
        return self.columns + self.extra

    @property
    def width(self) -> int:
        """Rows of the kernel matrix for each sample."""
        return 1 if self.traced else self.channels

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the kernel matrix."""
        rows = self.extra + (self.columns if self.symmetric else 0)
        return rows * self.width, self.columns * self.width

    @property
    def pairs(self) -> float:
        """Number of sample pairs that the algorithm needs."""
        return self.columns * self.extra + (self.columns * (self.columns + 1) / 2 if self.symmetric else 0)

    def zeros(self, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rows columns"]:
        """Return an empty kernel matrix."""
        return torch.zeros(self.shape, dtype=dtype, device=device)

    def matrix(self, jacobian: Float[Tensor, "n k p"]) -> Tensor:
        """View per-sample gradients as the rows whose products are the kernel: (n·width, …)."""
        return jacobian.reshape(jacobian.shape[0] * self.width, -1)

    def add_gram_(self, out: Float[Tensor, "rows columns"], jacobian: Float[Tensor, "samples_width p"]) -> None:
        """Add J Jᵀ to the kernel; below the diagonal of the symmetric part nothing is written.

        Args:
            out: Kernel matrix, changed in place.
            jacobian: Gradients of all samples in internal order, (samples·width, p).
        """
        if self.products > 1:
            for piece in pieces(jacobian):
                self._add_gram_(out, Parts.of(piece, self.products))
        elif jacobian.dtype != out.dtype and not jacobian.is_cuda:
            for piece in jacobian.split(max(1, _WIDENED // max(1, jacobian.shape[0])), dim=1):
                self._add_gram_(out, piece.to(out.dtype))
        else:
            self._add_gram_(out, jacobian)

    def _add_gram_(self, out: Tensor, jacobian: Tensor | Parts) -> None:
        cut = self.columns * self.width
        offset = 0
        if self.symmetric:
            if isinstance(jacobian, Tensor) and syrk.supports(out, jacobian):
                syrk.add_upper_(out[:cut], jacobian[:cut])
            else:
                _add_by_halves_(out, jacobian, 0, cut)
            offset = cut
        if self.extra:
            _add_(out[offset:], jacobian[cut:], jacobian[:cut])

    def add_product_(self, out: Tensor, left: Float[Tensor, "r p"], right: Float[Tensor, "c p"]) -> None:
        """``out += left @ right.T``, by as many products as the layout says."""
        if self.products > 1:
            add_split_product_(out, left, right, self.products)
        else:
            add_product_(out, left, right)

    def add_block_(
        self, out: Float[Tensor, "rows columns"], block: Float[Tensor, "rn cn"], row: int, column: int
    ) -> None:
        """Add the block of samples ``row…`` against column samples ``column…`` (internal numbers)."""
        first = row if self.symmetric else row - self.columns
        rows = slice(first * self.width, first * self.width + block.shape[0])
        out[rows, column * self.width : column * self.width + block.shape[1]] += block

    def complete_(self, out: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Fill the symmetric part's lower triangle in from the upper one, in place; return the kernel."""
        if self.symmetric:
            size = self.columns * self.width
            for begin in range(0, size, _MIRRORED):
                end = min(begin + _MIRRORED, size)
                block = out[begin:end, begin:end]
                block.copy_(block.triu() + block.triu(1).T)
                out[end:size, begin:end] = out[begin:end, end:size].T
        return out


def add_product_(out: Tensor, left: Float[Tensor, "r p"], right: Float[Tensor, "c p"]) -> None:
    """``out += left @ right.T``, accumulated in ``out``'s dtype."""
    if left.is_cuda:
        _add_in_blocks_(out, left, right)
    elif left.dtype == out.dtype:
        out.addmm_(left, right.T)
    else:
        # The product of two bfloat16 numbers is a float32 number, so that only the sum rounds.
        step = max(1, _WIDENED // max(1, left.shape[0], right.shape[0]))
        for one, other in zip(left.split(step, dim=1), right.split(step, dim=1), strict=True):
            out.addmm_(one.to(out.dtype), other.to(out.dtype).T)


def _add_in_blocks_(out: Tensor, left: Float[Tensor, "r p"], right: Float[Tensor, "c p"]) -> None:
    """Add a product on a GPU: long sums for few entries are cut into blocks, so that all of it has work to do."""
    tiles = -(-out.shape[0] // _TILE) * -(-out.shape[1] // _TILE)
    blocks = max(1, min(-(-_TILES // tiles), left.shape[1] // _LEAST_TERMS))
    terms = left.shape[1] // blocks // _ALIGNED * _ALIGNED if blocks > 1 else 0
    wider: dict[str, Any] = {} if left.dtype == out.dtype else {"out_dtype": out.dtype}
    if terms:
        # Views: (blocks, r, terms) and (blocks, terms, c).
        one = left[:, : blocks * terms].unflatten(1, (blocks, terms)).transpose(0, 1)
        other = right[:, : blocks * terms].unflatten(1, (blocks, terms)).permute(1, 2, 0)
        out += torch.bmm(one, other, **wider).sum(dim=0)
    if blocks * terms < left.shape[1]:
        one, other = left[:, blocks * terms :], right[:, blocks * terms :].T
        if wider:
            out += torch.mm(one, other, **wider)
        else:
            out.addmm_(one, other)


def batch_product(
    left: Float[Tensor, "g u p"], right: Float[Tensor, "g v p"], dtype: torch.dtype
) -> Float[Tensor, "g u v"]:
    """Return A Bᵀ of each of some pairs of matrices, accumulated in a dtype at least as wide as theirs."""
    if left.is_cuda and left.dtype != dtype:
        return torch.bmm(left, right.transpose(1, 2), out_dtype=dtype)
    return torch.bmm(left.to(dtype), right.to(dtype).transpose(1, 2))


def _add_(out: Tensor, left: Tensor | Parts, right: Tensor | Parts) -> None:
    if isinstance(left, Parts) and isinstance(right, Parts):
        left.add_product_(out, right)
    elif isinstance(left, Tensor) and isinstance(right, Tensor):
        add_product_(out, left, right)


def _add_by_halves_(out: Tensor, jacobian: Tensor | Parts, first: int, last: int) -> None:
    """Add the upper triangle of J Jᵀ to the rows and columns ``first…last``, by halves down to small blocks."""
    if last - first <= (LEAF if isinstance(jacobian, Tensor) and not jacobian.is_cuda else GPU_LEAF):
        part = jacobian[first:last]
        _add_(out[first:last, first:last], part, part)
        return
    middle = (first + last) // 2
    _add_(out[first:middle, middle:last], jacobian[first:middle], jacobian[middle:last])
    _add_by_halves_(out, jacobian, first, middle)
    _add_by_halves_(out, jacobian, middle, last)
