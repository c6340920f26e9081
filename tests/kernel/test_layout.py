"""Rows, columns and symmetric products against plain loops."""

from __future__ import annotations

import pytest
import torch
from helpers.layouts import layouts
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.kernel import layout as layout_module
from ntk_lpft.kernel.layout import LEAF, Layout, add_product_, batch_product

many = settings(max_examples=40, deadline=None, derandomize=True)


def naive(layout: Layout, jacobian: torch.Tensor) -> torch.Tensor:
    """Return the kernel in internal order by loops over rows, columns and channels; jacobian (n, k, p)."""
    members = list(range(layout.columns + layout.extra))
    rows = members if layout.symmetric else members[layout.columns :]
    channels = range(jacobian.shape[1])
    table = []
    for n in rows:
        for c in [None] if layout.traced else channels:
            line = []
            for m in range(layout.columns):
                if layout.traced:
                    line.append(sum(float(jacobian[n, a] @ jacobian[m, a]) for a in channels))
                else:
                    line.extend(float(jacobian[n, c] @ jacobian[m, d]) for d in channels)
            table.append(line)
    return torch.tensor(table, dtype=torch.float64)


@many
@given(layout=layouts(), entries=st.integers(1, 4), seed=st.integers(0, 99))
def test_gram_matrices_agree_with_loops(layout: Layout, entries: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(layout.samples, layout.channels, entries, generator=generator, dtype=torch.float64)
    out = layout.zeros(torch.float64, torch.device("cpu"))
    expected = naive(layout, jacobian)
    assert out.shape == layout.shape == expected.shape
    for times in (1, 2):
        layout.add_gram_(out, layout.matrix(jacobian))
        assert torch.allclose(layout.complete_(out), times * expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("extra", [0, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_large_symmetric_products_agree_with_dense_ones(dtype: torch.dtype, extra: int) -> None:
    """Beyond the size at which a diagonal block is computed whole."""
    layout = Layout(2 * LEAF + 37, extra, symmetric=True, channels=1)
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(layout.samples, 6, generator=generator, dtype=torch.float64).to(dtype)
    out = layout.zeros(torch.float64 if dtype == torch.float64 else torch.float32, torch.device("cpu"))
    layout.add_gram_(out, jacobian)
    expected = (jacobian.double() @ jacobian.double().T)[:, : layout.columns]
    # Products of bfloat16 numbers are float32 numbers: rounding them once more would cost 1e-3.
    rounding = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-6}[dtype]
    assert float((layout.complete_(out).double() - expected).norm()) <= rounding * float(expected.norm())
    completed = layout.complete_(out)[: layout.columns]
    assert torch.equal(completed, completed.T)


@many
@given(layout=layouts(), seed=st.integers(0, 99))
def test_blocks_go_where_they_belong(layout: Layout, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = layout.width
    rows = range(layout.samples) if layout.symmetric else range(layout.columns, layout.samples)
    whole = torch.randn(layout.shape, generator=generator, dtype=torch.float64)
    out = layout.zeros(torch.float64, torch.device("cpu"))
    for place, row in enumerate(rows):
        for column in range(layout.columns):
            layout.add_block_(out, whole[place * w : (place + 1) * w, column * w : (column + 1) * w], row, column)
    assert torch.equal(out, whole)


@many
@given(layout=layouts())
def test_only_the_symmetric_part_is_completed(layout: Layout) -> None:
    out = torch.arange(1.0, 1 + layout.shape[0] * layout.shape[1], dtype=torch.float64).view(layout.shape)
    completed = layout.complete_(out)
    square = layout.columns * layout.width if layout.symmetric else 0
    assert torch.equal(completed[square:], out[square:])
    for row in range(square):
        for column in range(square):
            assert completed[row, column] == out[min(row, column), max(row, column)]


def test_pairs_count_what_is_needed() -> None:
    for layout in (Layout(4, 3, True, 2), Layout(4, 3, False, 2), Layout(5, 0, True, 1)):
        needed = {
            (min(n, m), max(n, m))
            for n in range(layout.samples)
            for m in range(layout.columns)
            if layout.symmetric or n >= layout.columns
        }
        assert layout.pairs == len(needed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_are_added_in_the_kernels_dtype(dtype: torch.dtype) -> None:
    left, right = torch.full((2, 3), 2.0, dtype=dtype), torch.full((4, 3), 5.0, dtype=dtype)
    out = torch.full((2, 4), 0.125, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    add_product_(out, left, right)
    assert torch.equal(out, torch.full_like(out, 30.125))


@pytest.mark.parametrize("symmetric", [True, False])
def test_whole_numbers_in_bfloat16_add_up_exactly(symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums beyond 2⁸, which bfloat16 cannot tell apart from their neighbours, whatever pieces they are made in."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randint(-4, 5, (9, 3001), generator=generator).bfloat16()
    layout = Layout(5, 4, symmetric, 1)
    exact = factor.long() @ factor.long().T
    assert int(exact.abs().max()) > 2**12
    for widened in (1 << 22, 100, 1):
        monkeypatch.setattr(layout_module, "_WIDENED", widened)
        out = layout.zeros(torch.float32, torch.device("cpu"))
        layout.add_gram_(out, factor)
        assert torch.equal(layout.complete_(out).long(), exact[:, :5] if symmetric else exact[5:, :5])
        product = torch.zeros(4, 5)
        add_product_(product, factor[5:], factor[:5])
        assert torch.equal(product.long(), exact[5:, :5])
    tokens = torch.stack([factor[:, :1500], factor[:, 1500:3000]])
    assert torch.equal(
        batch_product(tokens, tokens, torch.float32).long(), tokens.long() @ tokens.long().transpose(1, 2)
    )
