"""F computed for the combinations of the logits that the head can reach, against autograd of every logit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_agrees_with_referee, assert_close, error
from helpers.referee import referee
from helpers.zoo import ENTRIES, LORA_ENTRIES, ZOO, Entry, ragged_rows, widened
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_lpft.classifier import Classifier
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition, compute_ntk, compute_train_eval_ntk
from ntk_lpft.kernel.head_rank import rank_of_head
from ntk_lpft.kernel.rank_form import RankFormGroups, expand


def adds_up_to_zero(weight: Tensor) -> Tensor:
    return weight - weight.mean(dim=0)


def one_zero_row(weight: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(weight[:1]), weight[1:]])


def two_equal_rows(weight: Tensor) -> Tensor:
    return torch.cat([weight[:1], weight[:-1]])


def rank_one(weight: Tensor) -> Tensor:
    return torch.outer(torch.arange(1.0, len(weight) + 1, dtype=weight.dtype), weight[0])


def zero(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight)


# V's of three classes, with their ranks.
HEADS: list[tuple[Callable[[Tensor], Tensor], int]] = [
    (adds_up_to_zero, 2),
    (one_zero_row, 2),
    (two_equal_rows, 2),
    (rank_one, 1),
    (zero, 0),
]


def with_head(entry: Entry, change: Callable[[Tensor], Tensor]) -> nn.Module:
    model = entry.build()
    weight = Classifier.of(model, ragged_rows(entry)).head.module.weight
    with torch.no_grad():
        weight.copy_(change(weight))
    return model


@pytest.mark.parametrize("entry", [*ENTRIES, *LORA_ENTRIES], ids=lambda e: e.name)
def test_it_is_exact_for_every_architecture(entry) -> None:
    """A head whose rows add up to zero, as logistic regression makes it."""
    model, rows = with_head(entry, adds_up_to_zero), ragged_rows(entry)
    attention = "sdpa" if getattr(model, "get_base_model", lambda: model)()._supports_sdpa else "eager"
    with widened():
        ntk = compute_ntk(model, rows, precision="float64")
        assert ntk.metadata["head_rank"]["rank"] == 2
        assert ntk.metadata["head_rank"]["differentiated"] == 2
        assert {tuple(value.shape) for value in ntk.reduced_ft_groups.values()} == {(len(rows), 2, len(rows), 2)}
        assert_agrees_with_referee(ntk, model, rows, attention=attention)


@pytest.mark.parametrize(("change", "rank"), HEADS, ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize("outputs", ["full", "class_trace", "pseudo"])
def test_it_is_exact_for_every_rank(change, rank, outputs) -> None:
    model, rows = with_head(ZOO["bert"], change), ragged_rows(ZOO["bert"], n=6)
    ntk = compute_ntk(model, rows[:4], rows[1:], precision="float64", outputs=outputs)
    blocks = referee(model, rows[:4], rows[1:], attention="sdpa")
    body = {name for names in ntk.parameter_groups.values() for name in names}
    dense = sum(block for name, block in blocks.items() if name in body)
    if outputs == "class_trace":
        dense = torch.einsum("ncmc->nm", dense) / 3
    elif outputs == "pseudo":
        dense = dense.sum(dim=(1, 3)) / 3
    # Relative to what the same body gives a head of that size, as F itself may be zero.
    size = sum(float(block.norm()) for block in blocks.values())
    assert float((ntk.ft_effective - dense).norm()) <= 1e-10 * size
    found = ntk.metadata["head_rank"]
    assert found["rank"] == rank
    assert found["rank_form"] is (outputs != "pseudo")
    assert found["differentiated"] == (1 if outputs == "pseudo" else max(rank, 1))
    if rank == 0:
        assert float(ntk.ft_effective.abs().max()) == 0


@given(rank=st.integers(0, 4), classes=st.integers(2, 5), seed=st.integers(0, 2**16), scale=st.floats(1e-12, 1e12))
def test_the_rank_of_any_head_is_found_at_any_scale(rank: int, classes: int, seed: int, scale: float) -> None:
    rank = min(rank, classes)
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(classes, classes, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
    weight = scale * left[:, :rank] @ right[:rank]
    for dtype in (torch.float64, torch.float32):
        # As it is stored; rounding may make up to ε/2 ‖V‖_F of a singular value that is zero.
        found = rank_of_head(weight.to(dtype), dtype)
        assert found.rank == rank
        assert found.reduces is (rank < classes)
        projected = found.basis @ found.basis.T @ weight
        # The decomposition and the two products each err by a small multiple of (classes + 8) ε.
        bound = 8 * (classes + 8) * torch.finfo(dtype).eps
        assert float((projected - weight).norm()) <= bound * float(weight.norm())


def test_every_logit_is_differentiated_where_the_rank_is_full_or_it_is_not_wanted() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    full = compute_ntk(model, rows)
    assert full.head_basis is None
    assert full.metadata["head_rank"]["rank"] == 3
    model = with_head(ZOO["bert"], adds_up_to_zero)
    wanted, unwanted = compute_ntk(model, rows), compute_ntk(model, rows, rank_form=False)
    assert wanted.head_basis is not None
    assert unwanted.head_basis is None
    assert unwanted.metadata["head_rank"] == {"rank_form": False, "differentiated": 3}
    assert_close(wanted, unwanted, 1e-9)
    for engine in ("functional", "per_example"):
        reference = compute_ntk(model, rows, engine=engine)
        assert reference.head_basis is None
        assert_close(wanted, reference, 1e-9)


def test_train_and_evaluation_rows_share_one_basis() -> None:
    model, rows = with_head(ZOO["roberta"], adds_up_to_zero), ragged_rows(ZOO["roberta"], n=7)
    parts = compute_train_eval_ntk(model, rows[:4], rows[4:])
    assert torch.equal(parts["train"].head_basis, parts["eval"].head_basis)
    assert_agrees_with_referee(parts["train"], model, rows[:4])
    assert_agrees_with_referee(parts["eval"], model, rows[4:], rows[:4])


class Scaled(nn.Module):
    """Changes the logits of a model behind its head, each by another factor."""

    def __init__(self, model: nn.Module, factors: list[float]) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.factors = torch.tensor(factors, dtype=torch.float64)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids=None) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return (output.logits * self.factors,)


def test_logits_that_leave_the_heads_range_are_all_differentiated() -> None:
    """What the search for a head lets pass as rounding, and what would be lost of F in the head's range."""
    rows = ragged_rows(ZOO["bert"])
    model = Scaled(with_head(ZOO["bert"], adds_up_to_zero), [1.0, 1.0 + 3e-4, 1.0])
    model.model.classifier.requires_grad_(False)  # a trained head would be refused, as P does not hold
    ntk = compute_ntk(model, rows)
    assert ntk.head_basis is None
    reference = compute_ntk(model, rows, engine="per_example")
    assert error(ntk.ft_effective, reference.ft_effective) <= 1e-9


def test_files_keep_the_small_form_and_give_the_large_one(tmp_path: Path) -> None:
    model, rows = with_head(ZOO["bert"], adds_up_to_zero), ragged_rows(ZOO["bert"])
    ntk = compute_ntk(model, rows)
    read = NTKDecomposition.load(ntk.save(tmp_path))
    assert torch.equal(read.head_basis, ntk.head_basis)
    assert torch.equal(read.ft_effective, ntk.ft_effective)
    assert list(read.ft_groups) == list(ntk.ft_groups)
    for name, value in ntk.reduced_ft_groups.items():
        assert torch.equal(read.reduced_ft_groups[name], value)
    narrow = read.to(torch.float32)
    assert narrow.ft_effective.dtype == torch.float32
    assert error(narrow.ft_effective.double(), ntk.ft_effective) <= 1e-6


@given(n=st.integers(1, 4), m=st.integers(1, 4), c=st.integers(1, 5), r=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_expansion_is_the_product_by_its_definition(n: int, m: int, c: int, r: int, seed: int) -> None:
    r = min(r, c)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(c, r, generator=generator, dtype=torch.float64))
    kernel = torch.randn(n, r, m, r, generator=generator, dtype=torch.float64)
    expected = torch.einsum("ca,namb,db->ncmd", basis, kernel, basis)
    torch.testing.assert_close(expand(kernel, basis), expected, rtol=0, atol=1e-13 * float(kernel.abs().max()) * r * r)
    square = kernel[:, :, :1].expand(n, r, n, r)
    square = (square + square.permute(2, 3, 0, 1)) / 2
    matrix = expand(square, basis, symmetric=True).reshape(n * c, n * c)
    assert torch.equal(matrix, matrix.T)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("basis", "reduced", "says"),
    [
        (torch.ones(3, 2), torch.zeros(2, 2, 2, 2), "not orthonormal"),
        (torch.eye(3, 2), torch.zeros(2, 3, 2, 3), "does not fit a basis of 2"),
        (torch.eye(3, 2), torch.zeros(2, 2), "does not fit a basis of 2"),
        (torch.eye(2, 3), torch.zeros(2, 3, 2, 3), r"not \(C, r\)"),
        (torch.eye(3, 2) * torch.nan, torch.zeros(2, 2, 2, 2), "not orthonormal"),
        ([[1.0]], torch.zeros(2, 1, 2, 1), "pass a torch tensor"),
        (torch.eye(3, 2), [[1.0]], "pass a torch tensor"),
    ],
)
def test_what_is_no_rank_form_is_refused(basis, reduced, says) -> None:
    with pytest.raises(InputError, match=says):
        RankFormGroups(basis, {"body": reduced}, symmetric=True)


@pytest.mark.unchecked
def test_a_basis_of_other_logits_is_refused() -> None:
    groups = RankFormGroups(torch.eye(3, 2), {"body": torch.zeros(4, 2, 4, 2)}, symmetric=True)
    logits = torch.zeros(4, 2)
    with pytest.raises(InputError, match=r"a basis of shape \(3, 2\) for 2 logits"):
        NTKDecomposition(torch.zeros(4, 4), groups, logits, logits)
