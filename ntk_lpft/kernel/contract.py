"""Products of per-sample gradients, K += ⟨J_n, J_m⟩, for each form in which the gradients are recorded."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.kernel.gradients import DenseGradients, OuterGradients, SampleGradients, SparseGradients, add_at_
from ntk_lpft.kernel.layout import Layout, batch_product

# How much slower, per floating-point operation, the Gram form ran than materialising the gradients, for
# 1 < t (see benchmarks/RESULTS.md). At t = 1 it needs hundreds of times fewer operations.
GRAM_PENALTY = 2.0

# Tokens that more than this many samples hold are multiplied one by one; rarer ones in groups of equal count.
_FREQUENT = 32

# Products of samples that share a token that are held at a time, each with its place.
_SHARED = 1 << 20

Kernel = Float[Tensor, "rows columns"]
Progress = Callable[[float], None]


class Workspace:
    """Chunk buffers that are kept between calls: fresh large allocations cost a page fault for every page.

    Args:
        limit: Bytes that a chunk may take.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer: Tensor | None = None

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an uninitialised tensor; it is valid until the next call."""
        count = math.prod(shape)
        held = self._buffer
        if held is None or held.dtype != dtype or held.device != device or held.numel() < count:
            self._buffer = None  # free the old one before the new one is made
            self._buffer = held = torch.empty(count, dtype=dtype, device=device)
        return held[:count].view(shape)

    def halve(self) -> bool:
        """Allow half as much from now on; False where less makes no sense."""
        self._buffer = None
        self.limit //= 2
        return self.limit >= 1 << 16


def outer_flops(layout: Layout, i: int, o: int, positions: float) -> tuple[float, float]:
    """Floating-point operations of the two exact ways to contract Σ_t g_t a_tᵀ, without redundant halves.

    Args:
        layout: Rows and columns.
        i: Input features.
        o: Output features.
        positions: Mean number of positions of a sample.

    Returns:
        For materialised gradients, and for the Gram form Σ_ts (a_t·a_s)(g_t·g_s).
    """
    k = layout.channels
    products = k if layout.traced else k * k
    materialised = 2.0 * layout.samples * k * positions * i * o + 2.0 * layout.pairs * products * i * o
    gram = 2.0 * layout.pairs * positions**2 * (i + products * (o + 1))
    return materialised, gram


def use_gram(layout: Layout, i: int, o: int, positions: float) -> bool:
    """Whether the Gram form is expected to be the faster one."""
    materialised, gram = outer_flops(layout, i, o, positions)
    return gram * (1.0 if positions <= 1 else GRAM_PENALTY) < materialised


def contract(out: Kernel, layout: Layout, records: Sequence[SampleGradients], workspace: Workspace) -> None:
    """Add the kernel of one parameter.

    Args:
        out: Kernel matrix in internal order, changed in place (above the diagonal only where symmetric).
        layout: Rows and columns.
        records: Gradients of all samples, in internal order, all of one form.
        workspace: Where chunks are made; its limit bounds their size.
    """
    first = records[0]
    if isinstance(first, DenseGradients):
        _contract_dense(out, layout, cast(Sequence[DenseGradients], records))
    elif isinstance(first, SparseGradients):
        _contract_sparse(out, layout, cast(Sequence[SparseGradients], records))
    else:
        outers = [r for r in cast(Sequence[OuterGradients], records) if r.positions]
        if not outers:
            return
        positions = sum(r.size * r.positions for r in outers) / layout.samples
        if use_gram(layout, first.inputs.shape[2], first.grads.shape[3], positions):
            _contract_gram(out, layout, outers, workspace)
        else:
            _contract_materialised(out, layout, outers, workspace)


def _contract_dense(out: Kernel, layout: Layout, records: Sequence[DenseGradients]) -> None:
    first = records[0].jacobian
    jacobian = first.new_zeros((layout.samples, *first.shape[1:]))
    for record in records:
        jacobian[record.start : record.start + record.size] = record.jacobian
    layout.add_gram_(out, layout.matrix(jacobian))


def _contract_materialised(
    out: Kernel, layout: Layout, records: Sequence[OuterGradients], workspace: Workspace
) -> None:
    first = records[0]
    i, k, o = first.inputs.shape[2], *first.grads.shape[2:]
    per_output = layout.samples * k * i * first.inputs.element_size()
    chunk = max(1, min(o, workspace.limit // per_output))
    # Equal chunks: a small remainder would multiply at a lower rate.
    chunk = -(-o // -(-o // chunk))
    for begin in range(0, o, chunk):
        width = min(chunk, o - begin)
        jacobian = workspace.take((layout.samples, k * width, i), first.inputs.dtype, out.device)
        if sum(r.size for r in records) < layout.samples:
            jacobian.zero_()  # a sample that the module never saw has zero gradient and no record
        for record in records:
            grads = record.grads[..., begin : begin + width].flatten(2)
            torch.bmm(grads.transpose(1, 2), record.inputs, out=jacobian[record.start : record.start + record.size])
        layout.add_gram_(out, layout.matrix(jacobian))


def _merge(records: Sequence[OuterGradients], boundary: int) -> list[OuterGradients]:
    """Join neighbours with equally many positions, except across ``boundary``; records may be missing between."""
    groups: list[list[OuterGradients]] = []
    for record in records:
        last = groups[-1][-1] if groups else None
        follows = last is not None and last.start + last.size == record.start != boundary
        if last is not None and follows and last.positions == record.positions:
            groups[-1].append(record)
        else:
            groups.append([record])
    return [
        OuterGradients(g[0].start, torch.cat([r.inputs for r in g]), torch.cat([r.grads for r in g])) for g in groups
    ]


def _pieces(record: OuterGradients, most: int) -> list[OuterGradients]:
    return [
        OuterGradients(record.start + at, record.inputs[at : at + most], record.grads[at : at + most])
        for at in range(0, record.size, most)
    ]


def _contract_gram(out: Kernel, layout: Layout, records: Sequence[OuterGradients], workspace: Workspace) -> None:
    k = layout.channels
    longest = max(r.positions for r in records)
    cells = max(1, workspace.limit // (out.element_size() * (k * longest) ** 2))
    most = max(1, int(cells**0.5))
    parts = [p for record in _merge(records, layout.columns) for p in _pieces(record, most)]
    columns = [p for p in parts if p.start < layout.columns]
    for row in parts:
        is_column = row.start < layout.columns
        if is_column and not layout.symmetric:
            continue
        for column in columns:
            if is_column and column.start < row.start:
                continue
            layout.add_block_(out, _gram_block(row, column, layout, out.dtype), row.start, column.start)


def _gram_block(row: OuterGradients, column: OuterGradients, layout: Layout, dtype: torch.dtype) -> Tensor:
    (n, t, k, o), (m, s) = row.grads.shape, column.grads.shape[:2]
    inputs = _product(row.inputs.reshape(n * t, -1), column.inputs.reshape(m * s, -1), layout, dtype).view(n, t, m, s)
    if layout.traced:
        total = torch.zeros((n, t, m, s), dtype=dtype, device=inputs.device)
        for c in range(k):
            left, right = row.grads[:, :, c].reshape(n * t, o), column.grads[:, :, c].reshape(m * s, o)
            layout.add_product_(total.view(n * t, m * s), left, right)
        return torch.einsum("ntms,ntms->nm", inputs, total)
    grads = _product(row.grads.reshape(n * t * k, o), column.grads.reshape(m * s * k, o), layout, dtype)
    products = grads.view(n, t, k, m, s, k).mul_(inputs[:, :, None, :, :, None])
    return products.sum(dim=(1, 4)).view(n * k, m * k)


def _product(left: Tensor, right: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
    out = torch.zeros((left.shape[0], right.shape[0]), dtype=dtype, device=left.device)
    layout.add_product_(out, left, right)
    return out


def _contract_sparse(out: Kernel, layout: Layout, records: Sequence[SparseGradients]) -> None:
    """Σ over tokens of V_nᵀV_m for the samples n, m that both hold the token; no table-sized array is made."""
    owners = torch.cat([r.owners for r in records])
    tokens = torch.cat([r.tokens for r in records])
    values = torch.cat([r.values for r in records])
    # By token, and in a token by sample, as owners ascend within each record and over the records.
    order = torch.sort(tokens, stable=True).indices
    owners, values = owners[order], values[order]
    _, counts = torch.unique_consecutive(tokens[order], return_counts=True)
    # Tokens that equally many samples hold stand together; how many they are is asked once.
    begins = (counts.cumsum(0) - counts)[torch.sort(counts, stable=True).indices]
    groups = torch.unique(counts.cpu(), return_counts=True)
    last = 0
    for count, size in zip(*(group.tolist() for group in groups), strict=True):
        starts = begins[last : last + size]
        last += size
        # Bounds the memory of one group: its vectors and its products.
        step = 1 if count > _FREQUENT else max(1, (1 << 22) // (count * values[0].numel()))
        for at in range(0, len(starts), step):
            entries = starts[at : at + step, None] + torch.arange(count, device=starts.device)
            _add_shared_tokens_(out, layout, owners[entries], values[entries])


def _add_shared_tokens_(out: Kernel, layout: Layout, owners: Tensor, values: Tensor) -> None:
    """Add the products of samples that share a token: owners (g, u), values (g, u, k, d), g tokens."""
    g, u = owners.shape
    w = layout.width
    flat = values.reshape(g, u * w, -1)
    channel = torch.arange(w, device=owners.device)
    numbers = (owners[:, :, None] * w + channel).reshape(g, u * w)
    # A token that every sample holds has as many products as the kernel has entries; a few rows of them at a time.
    step = max(1, _SHARED // (g * u * w))
    for at in range(0, u * w, step):
        # Owners ascend, so that above the diagonal the columns of a row come after it.
        begin = at if layout.symmetric and not layout.extra else 0
        # Small products, between which much is moved: splitting them would gain nothing.
        products = batch_product(flat[:, at : at + step], flat[:, begin:], out.dtype)
        rows = numbers[:, at : at + step, None].expand_as(products)
        _add_wanted_(out, layout, rows, numbers[:, None, begin:].expand_as(products), products)


def _add_wanted_(out: Kernel, layout: Layout, rows: Tensor, columns: Tensor, products: Tensor) -> None:
    """Add those of some products, each with its row and column, that the kernel has."""
    cut = layout.columns * layout.width
    wanted = columns < cut
    if layout.symmetric:
        wanted = wanted & ((rows >= cut) | (columns >= rows))
    else:
        wanted = wanted & (rows >= cut)
        rows = rows - cut
    places = rows * out.shape[1] + columns
    if out.is_cuda:
        # How many are wanted need not be known: the others add nothing, here and there.
        others = rows % out.shape[0] * out.shape[1] + columns % out.shape[1]
        places, products = torch.where(wanted, places, others), products.masked_fill(~wanted, 0.0)
        add_at_(out.view(-1), places.flatten(), products.flatten())
    else:
        add_at_(out.view(-1), places[wanted], products[wanted])
