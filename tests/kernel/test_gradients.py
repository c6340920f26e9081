"""Compact per-sample gradients against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.kernel.gradients import active_positions, add_at_, keep_active, sum_by_token

many = settings(max_examples=50, deadline=None, derandomize=True)
sizes = st.integers(1, 5)


@many
@given(n=sizes, t=sizes, k=sizes, o=sizes, seed=st.integers(0, 999), dropped=st.floats(0, 1))
def test_inactive_positions_change_no_gradient(n: int, t: int, k: int, o: int, seed: int, dropped: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, t, 3, generator=generator, dtype=torch.float64)
    grads = torch.randn(n, t, k, o, generator=generator, dtype=torch.float64)
    off = torch.rand(n, t, generator=generator) < dropped
    grads[off] = 0
    # One nonzero number makes a position active, whichever channel and feature it is in.
    grads[..., : o - 1] *= torch.rand(n, t, 1, 1, generator=generator) < 0.5
    kept_inputs, kept_grads = keep_active(inputs, grads)
    needed = max(1, int((~off).sum(dim=1).max()))
    assert kept_inputs.shape == (n, needed, 3)
    assert kept_grads.shape == (n, needed, k, o)
    expected = torch.einsum("ntko,nti->nkoi", grads, inputs)
    assert torch.allclose(torch.einsum("ntko,nti->nkoi", kept_grads, kept_inputs), expected, rtol=0, atol=1e-12)
    # Known beforehand, for several layers at once, they are the same.
    first, second = active_positions([grads, torch.zeros(n, 3, k, 1, dtype=torch.float64)])
    assert second.most == 0
    for one, other in zip(keep_active(inputs, grads, first), (kept_inputs, kept_grads), strict=True):
        assert torch.equal(one, other)


def test_active_positions_keep_their_order() -> None:
    inputs = torch.arange(6.0).view(1, 6, 1)
    grads = torch.tensor([0.0, 1, 0, 1, 1, 0]).view(1, 6, 1, 1)
    kept, _ = keep_active(inputs, grads)
    assert kept.flatten().tolist() == [1, 3, 4]


@many
@given(
    tokens=st.integers(1, 4).flatmap(
        lambda t: st.lists(st.lists(st.integers(0, 6), min_size=t, max_size=t), min_size=1, max_size=4)
    ),
    skipped=st.one_of(st.none(), st.integers(0, 6)),
    start=st.integers(0, 9),
    seed=st.integers(0, 999),
)
def test_sums_by_token_agree_with_loops(tokens: list[list[int]], skipped: int | None, start: int, seed: int) -> None:
    ids = torch.tensor(tokens)
    generator = torch.Generator().manual_seed(seed)
    grads = torch.randn(*ids.shape, 2, 3, generator=generator, dtype=torch.float64)
    grads[torch.rand(ids.shape, generator=generator) < 0.2] = 0
    record = sum_by_token(start, ids, grads, 7, skipped)
    expected: dict[tuple[int, int], torch.Tensor] = {}
    for n, row in enumerate(tokens):
        for t, token in enumerate(row):
            if token != skipped:
                key = (n + start, token)
                expected[key] = expected.get(key, torch.zeros(2, 3, dtype=torch.float64)) + grads[n, t]
    expected = {key: value for key, value in expected.items() if value.any()}
    pairs = list(zip(record.owners.tolist(), record.tokens.tolist(), strict=True))
    assert pairs == sorted(expected)
    for value, key in zip(record.values, pairs, strict=True):
        assert torch.allclose(value, expected[key], rtol=0, atol=1e-13)


def test_sums_by_token_are_the_gradient_of_an_embedding() -> None:
    """The same numbers as autograd's, with and without a padding row."""
    ids = torch.tensor([[3, 1, 3, 0], [0, 0, 2, 3]])
    for padding in (None, 0):
        table = torch.nn.Embedding(5, 3, padding_idx=padding, dtype=torch.float64)
        seeds = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        record = sum_by_token(0, ids, seeds[:, :, None], 5, table.padding_idx)
        for n in range(2):
            (gradient,) = torch.autograd.grad((table(ids[n]) * seeds[n]).sum(), table.weight)
            dense = torch.zeros(5, 3, dtype=torch.float64)
            mine = record.owners == n
            dense[record.tokens[mine]] = record.values[mine, 0]
            assert torch.allclose(dense, gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (64,)])
def test_values_of_one_row_are_added_one_after_the_other(shape: tuple[int, ...]) -> None:
    """By any number of threads: the sum in float32 is that of NumPy, which adds them in their order, bit by bit."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 50, (200_000 if not shape else 8_000,), generator=generator)
    values = torch.randn(len(places), *shape, generator=generator)
    expected = np.zeros((50, *shape), dtype=np.float32)
    np.add.at(expected, places.numpy(), values.numpy())
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4) * 4:
            torch.set_num_threads(threads)
            found = torch.zeros(50, *shape)
            add_at_(found, places, values)
            assert found.numpy().tobytes() == expected.tobytes(), threads
    finally:
        torch.set_num_threads(before)


def test_sums_by_token_are_made_before_they_are_rounded() -> None:
    """A thousand positions of one token, of which bfloat16 could count 256."""
    grads = torch.ones(1, 1000, 1, 2)
    record = sum_by_token(0, torch.full((1, 1000), 3), grads, 4, None, torch.bfloat16)
    assert record.values.dtype == torch.bfloat16
    assert torch.equal(record.values.float(), torch.full((1, 1, 2), 1000.0).bfloat16().float())
