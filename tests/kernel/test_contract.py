"""Products of recorded gradients against dense Jacobians."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from helpers.layouts import dense_kernel, layouts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ntk_lpft.kernel import contract as contract_module
from ntk_lpft.kernel.contract import Workspace, contract, outer_flops, use_gram
from ntk_lpft.kernel.gradients import DenseGradients, OuterGradients, SampleGradients, SparseGradients
from ntk_lpft.kernel.layout import Layout

many = settings(max_examples=40, deadline=None, derandomize=True)


def contracted(
    layout: Layout, records: list[SampleGradients], limit: int = 1 << 20, dtype: torch.dtype = torch.float64
) -> Tensor:
    out = layout.zeros(dtype, torch.device("cpu"))
    contract(out, layout, records, Workspace(limit))
    return layout.complete_(out)


@dataclass
class Outer:
    """Random factors, and the dense gradients that they stand for."""

    records: list[OuterGradients]
    jacobian: Tensor


def outer(layout: Layout, i: int, o: int, seed: int, *, missing: bool) -> Outer:
    """Cut the samples into random batches, each with its own number of positions; some batches may be missing."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    records: list[OuterGradients] = []
    jacobian = torch.zeros(layout.samples, layout.channels, o * i, dtype=torch.float64)
    start = 0
    while start < layout.samples:
        end = layout.columns if start < layout.columns else layout.samples
        n, t = number(1, end - start), number(1, 4)
        inputs = torch.randn(n, t, i, generator=generator, dtype=torch.float64)
        grads = torch.randn(n, t, layout.channels, o, generator=generator, dtype=torch.float64)
        last = start + n == layout.samples
        if not (missing and number(0, 1)) or (last and not records):
            records.append(OuterGradients(start, inputs, grads))
            for sample in range(n):
                for k in range(layout.channels):
                    matrix = sum(torch.outer(grads[sample, p, k], inputs[sample, p]) for p in range(t))
                    jacobian[start + sample, k] = matrix.flatten()
        start += n
    return Outer(records, jacobian)


@pytest.mark.parametrize("gram", [False, True])
@many
@given(
    layout=layouts(),
    i=st.integers(1, 4),
    o=st.integers(1, 5),
    seed=st.integers(0, 9999),
    missing=st.booleans(),
    limit=st.sampled_from([1, 500, 3000, 1 << 20]),
)
def test_outer_products_agree_with_dense_gradients(
    gram: bool, layout: Layout, i: int, o: int, seed: int, missing: bool, limit: int
) -> None:
    case = outer(layout, i, o, seed, missing=missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract_module, "use_gram", lambda *_: gram)
        kernel = contracted(layout, case.records, limit)
    assert torch.allclose(kernel, dense_kernel(layout, case.jacobian), rtol=0, atol=1e-11)


@many
@given(layout=layouts(), entries=st.integers(1, 6), seed=st.integers(0, 9999), missing=st.booleans())
def test_dense_records_agree_with_dense_gradients(layout: Layout, entries: int, seed: int, missing: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(layout.samples, layout.channels, entries, generator=generator, dtype=torch.float64)
    absent = layout.samples - 1 if missing and layout.samples > 1 else None
    if absent is not None:
        jacobian[absent] = 0
    records = [DenseGradients(n, jacobian[n : n + 1]) for n in range(layout.samples) if n != absent]
    assert torch.allclose(contracted(layout, records), dense_kernel(layout, jacobian), rtol=0, atol=1e-12)


def one_hot(layout: Layout, tokens: list[list[int]], values: list[Tensor], vocabulary: int) -> Tensor:
    """Dense gradients of an embedding table: (n, k, vocabulary · d)."""
    d = values[0].shape[2]
    jacobian = torch.zeros(layout.samples, layout.channels, vocabulary, d, dtype=torch.float64)
    for n, held in enumerate(tokens):
        for place, token in enumerate(held):
            jacobian[n, :, token] += values[n][place]
    return jacobian.flatten(2)


def sparse(layout: Layout, tokens: list[list[int]], values: list[Tensor], batch: int) -> list[SparseGradients]:
    records = []
    for start in range(0, layout.samples, batch):
        members = range(start, min(start + batch, layout.samples))
        owners = torch.tensor([n for n in members for _ in tokens[n]], dtype=torch.long)
        ids = torch.tensor([token for n in members for token in tokens[n]], dtype=torch.long)
        records.append(SparseGradients(owners, ids, torch.cat([values[n] for n in members])))
    return records


@many
@given(layout=layouts(), seed=st.integers(0, 9999), share=st.floats(0, 1), batch=st.integers(1, 4))
def test_embeddings_agree_with_one_hot_matrices(layout: Layout, seed: int, share: float, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    held = torch.rand(layout.samples, 6, generator=generator) < share
    tokens = [torch.nonzero(row).flatten().tolist() for row in held]
    values = [torch.randn(len(h), layout.channels, 3, generator=generator, dtype=torch.float64) for h in tokens]
    kernel = contracted(layout, sparse(layout, tokens, values, batch))
    assert torch.allclose(kernel, dense_kernel(layout, one_hot(layout, tokens, values, 6)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("symmetric", "extra"), [(False, 9), (True, 9), (True, 0)])
@pytest.mark.parametrize("held_at_once", [1, 700, 1 << 20])
def test_frequent_tokens_agree_with_one_hot_matrices(
    symmetric: bool, extra: int, traced: bool, held_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that every sample holds, two of another count, and one of a single sample, beyond one group's size."""
    monkeypatch.setattr(contract_module, "_SHARED", held_at_once)
    layout = Layout(41, extra, symmetric, 2, traced)
    generator = torch.Generator().manual_seed(0)
    tokens = [[0] + [1] * (n % 2) + [2] * (n % 3 == 0) + [4] * (n == 7) for n in range(layout.samples)]
    values = [torch.randn(len(h), 2, 3, generator=generator, dtype=torch.float64) for h in tokens]
    kernel = contracted(layout, sparse(layout, tokens, values, 7))
    assert torch.allclose(kernel, dense_kernel(layout, one_hot(layout, tokens, values, 5)), rtol=0, atol=1e-11)


def test_an_embedding_without_any_gradient_adds_nothing() -> None:
    layout = Layout(3, 0, True, 2)
    empty = torch.zeros(0, dtype=torch.long)
    kernel = contracted(layout, [SparseGradients(empty, empty, torch.zeros(0, 2, 3, dtype=torch.float64))])
    assert not kernel.any()


def test_contracting_adds_to_what_is_there() -> None:
    layout = Layout(3, 2, True, 2)
    case = outer(layout, 3, 4, 0, missing=False)
    out, workspace = layout.zeros(torch.float64, torch.device("cpu")), Workspace(1 << 20)
    for _ in range(3):
        contract(out, layout, case.records, workspace)
    assert torch.allclose(layout.complete_(out), 3 * dense_kernel(layout, case.jacobian), rtol=0, atol=1e-11)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_products_in_lower_precision_stay_close(
    gram: bool, dtype: torch.dtype, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(5, 3, True, 2)
    case = outer(layout, 4, 5, 1, missing=False)
    monkeypatch.setattr(contract_module, "use_gram", lambda *_: gram)
    records = [OuterGradients(r.start, r.inputs.to(dtype), r.grads.to(dtype)) for r in case.records]
    kernel, expected = contracted(layout, records, dtype=torch.float32).double(), dense_kernel(layout, case.jacobian)
    assert kernel.norm() > 0
    assert float((kernel - expected).norm()) <= rounding * float(expected.norm())


@many
@given(layout=layouts(), i=st.integers(1, 2000), o=st.integers(1, 2000), positions=st.floats(1, 512))
def test_the_cheaper_form_is_chosen(layout: Layout, i: int, o: int, positions: float) -> None:
    materialised, gram = outer_flops(layout, i, o, positions)
    assert min(materialised, gram) > 0
    if gram > materialised:
        assert not use_gram(layout, i, o, positions)
    if 10 * gram < materialised:
        assert use_gram(layout, i, o, positions)


def test_pooled_positions_take_the_gram_form_and_long_texts_do_not() -> None:
    layout = Layout(250, 0, True, 3)
    assert use_gram(layout, 768, 768, 1.0)
    assert not use_gram(layout, 768, 3072, 128.0)


def test_the_workspace_is_reused_and_halves() -> None:
    workspace, cpu = Workspace(1 << 18), torch.device("cpu")
    first = workspace.take((4, 5), torch.float32, cpu)
    assert workspace.take((2, 3), torch.float32, cpu).data_ptr() == first.data_ptr()
    assert workspace.take((2, 3), torch.float64, cpu).dtype == torch.float64
    assert workspace.take((9, 9), torch.float64, cpu).shape == (9, 9)
    halvings = 0
    while workspace.halve():
        halvings += 1
    assert halvings == 2
