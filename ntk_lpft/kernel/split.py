"""Products of float32 matrices as sums of products of bfloat16 matrices, which tensor cores multiply many times faster.

A float32 number is the sum of three bfloat16 numbers, x = h + m + l, each the rounding of what the ones before leave:
|m| ≤ 2⁻⁸|x|, |l| ≤ 2⁻¹⁷|x|, and nothing is left, as 3 · 8 bits hold the 24 of float32. Of the nine products of the
parts of two numbers the largest are taken:

- six, hh + hm + mh + mm + hl + lh, leave out ml + lm + ll: at most 2⁻²⁴(1 + 2⁻⁹)|x||y|, as much as one rounding;
- three, hh + hm + mh, leave out mm + hl + lh and less: at most 2⁻¹⁵(1 + 2⁻⁷)|x||y|.

The product of two bfloat16 numbers is a float32 number, so that beside this only sums round: on the CPU each addition
by 2⁻²⁴ of its result, on tensor cores each step of 16 terms or more by less than 2⁻²⁰, always towards zero, as they cut
off (Fasi, Higham, Mikaitis and Pranesh, 2021, "Numerical behavior of NVIDIA tensor cores"). So the leading product hh
is summed by a matrix product over 256 terms at most, and from there on in float32 with rounding (Ootomo and Yokota,
2022, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance"):
of 2¹⁴ terms (256 + 64) · 2⁻²⁴. The others are 2⁻⁷ of it at most, so that blocks of 2048 terms do. `SUM_BOUND` is all of
this for 2¹⁴ terms, relative to Σ|x||y|, entry by entry; `TERM_BOUND` is the error of a single x · y. As roundings add
up at random, what is measured is a hundredth of the first, as with float32 itself.

Blocks also keep a GPU busy: the kernel is small and its sums are long, so that one product would occupy a part of it.

All this holds for numbers from 2⁻¹¹⁰ to 2¹²⁷ in size, zero included; parts of smaller ones are rounded to 2⁻¹³⁴.

The names are those of XLA's dot algorithms: BF16_BF16_F32_X3 and X6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

# Which part of the left factor meets which of the right one, beside the leading two, the smallest first.
_CORRECTIONS = {3: ((0, 1), (1, 0)), 6: ((1, 1), (0, 2), (2, 0), (0, 1), (1, 0))}
_PARTS = {3: 2, 6: 3}

# Largest errors of an entry of a product of at most 2¹⁴ terms, and of one term, relative to those of absolute values.
SUM_BOUND = {3: 2.0**-14, 6: 2.0**-15}
TERM_BOUND = {3: 2.0**-14, 6: 2.0**-22}

# Terms that tensor cores may sum by themselves: of the leading product, and of the others.
_BLOCK = 256
_BLOCK_OF_OTHERS = 2048

# Terms that the bound is for.
_TERMS = 1 << 14

# Entries of a factor that are split at a time, and of partial sums that are held: on a GPU a product must be large.
_ENTRIES = {"cpu": 1 << 20, "cuda": 1 << 26}


@dataclass(frozen=True)
class Parts:
    """A float32 matrix as the sum of bfloat16 ones, of which rows can be taken as of a tensor.

    Attributes:
        tensors: The parts, largest first, each (r, p); on the CPU, where torch would round products of bfloat16 to
            bfloat16, they are stored in float32.
        products: How many of their products stand for one.
    """

    tensors: list[Tensor]
    products: int

    @classmethod
    def of(cls, matrix: Float[Tensor, "r p"], products: int) -> Parts:
        """Split a matrix.

        Args:
            matrix: Float32 numbers, (r, p).
            products: 3 or 6.

        Returns:
            Two parts for 3 products, three for 6.
        """
        parts, rest = [], matrix
        for number in range(_PARTS[products]):
            part = rest.to(torch.bfloat16)
            parts.append(part if part.is_cuda else part.float())
            if number + 1 < _PARTS[products]:
                rest = rest - parts[-1]  # exact, and in float32
        return cls(parts, products)

    def __getitem__(self, rows: slice) -> Parts:
        return Parts([part[rows] for part in self.tensors], self.products)

    def add_product_(self, out: Tensor, other: Parts) -> None:
        """Add this matrix times the other's transpose.

        Args:
            out: (r, c) in float32, changed in place.
            other: (c, p), split likewise.
        """
        total = torch.zeros_like(out)
        for one, two in _CORRECTIONS[self.products]:
            total += _in_blocks(self.tensors[one], other.tensors[two], _BLOCK_OF_OTHERS)
        out += total.add_(_in_blocks(self.tensors[0], other.tensors[0], _BLOCK))


def pieces(matrix: Float[Tensor, "r p"], rows: int = 0) -> Iterator[Float[Tensor, "r q"]]:
    """Cut a factor into the columns that are split and multiplied at a time.

    Args:
        matrix: (r, p).
        rows: Rows of the other factor, where it has more.

    Yields:
        Views, (r, q).
    """
    most = _ENTRIES["cuda" if matrix.is_cuda else "cpu"] // max(1, matrix.shape[0], rows)
    yield from matrix.split(max(_BLOCK, most // _BLOCK * _BLOCK), dim=1)


def add_split_product_(out: Tensor, left: Float[Tensor, "r p"], right: Float[Tensor, "c p"], products: int) -> None:
    """``out += left @ right.T`` for float32 matrices, by bfloat16 products.

    Args:
        out: (r, c), changed in place.
        left: (r, p).
        right: (c, p).
        products: 3 or 6.
    """
    rows = max(left.shape[0], right.shape[0])
    for one, other in zip(pieces(left, rows), pieces(right, rows), strict=True):
        Parts.of(one, products).add_product_(out, Parts.of(other, products))


def split_errors(factor: Float[Tensor, "r p"], products: int) -> Float64[Tensor, "2"]:
    """Measure what `SUM_BOUND` and `TERM_BOUND` bound, on a factor times its transpose.

    Args:
        factor: Float32 numbers, (r, p).
        products: 3 or 6.

    Returns:
        The largest errors relative to absolute values: of an entry, over all pieces of 2¹⁴ terms, and of a single
        product, of 64 entries of the factor with each other; on the factor's device.
    """
    entries = factor.reshape(-1, 1)
    some = entries[:: max(1, len(entries) // 64)][:64]
    sums = [_largest_error(piece, products) for piece in factor.split(_TERMS, dim=1)]
    return torch.stack([torch.stack(sums).max(), _largest_error(some, products)])


def _largest_error(factor: Tensor, products: int) -> Tensor:
    got = torch.zeros((len(factor), len(factor)), dtype=torch.float32, device=factor.device)
    add_split_product_(got, factor, factor, products)
    wide = factor.double()
    size = wide.abs() @ wide.abs().T
    # Of products too small for float32 nothing is promised; those that overflow are no numbers in float32 either.
    error = (got.double() - wide @ wide.T).abs() / size.clamp_min(2.0**-90)
    return torch.where(size < torch.finfo(torch.float32).max, error, 0.0).max()


def workspace_bytes(device_type: str) -> int:
    """Bytes that a split product needs beside its factors: parts of two pieces, what is left to split, partial sums."""
    return _ENTRIES.get(device_type, _ENTRIES["cuda"]) * (34 if device_type == "cpu" else 20)


def _product(left: Tensor, right: Tensor) -> Tensor:
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left @ right


def _in_blocks(left: Float[Tensor, "r p"], right: Float[Tensor, "c p"], block: int) -> Float[Tensor, "r c"]:
    """Left times right's transpose, summed over blocks of columns first and then over these."""
    whole = left.shape[1] // block * block
    if whole < left.shape[1]:
        total = _product(left[:, whole:], right[:, whole:].T)
    else:
        total = torch.zeros((left.shape[0], right.shape[0]), dtype=torch.float32, device=left.device)
    held = _ENTRIES["cuda" if left.is_cuda else "cpu"] // max(1, left.shape[0] * right.shape[0])
    step = max(1, held) * block
    for begin in range(0, whole, step):
        columns = slice(begin, min(begin + step, whole))
        # Views: (blocks, r, block) and (blocks, block, c).
        one = left[:, columns].unflatten(1, (-1, block)).transpose(0, 1)
        other = right[:, columns].unflatten(1, (-1, block)).permute(1, 2, 0)
        if left.is_cuda:
            total += torch.bmm(one, other, out_dtype=torch.float32).sum(dim=0)
        else:
            total += torch.bmm(one, other).sum(dim=0)
    return total
