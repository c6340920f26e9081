"""Frozen weights stay in the dtype they are stored in, and the kernel is that of the model widened as a whole."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from helpers.agreement import error
from helpers.architectures import ARCHITECTURES, build
from helpers.referee import referee
from helpers.zoo import ZOO, ragged_rows
from torch import nn

from ntk_lpft.classifier import Classifier, extract_features
from ntk_lpft.classifier.frozen_weights import active_weights
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk
from ntk_lpft.kernel.settings import ENGINES

# Of frozen weights the biases alone are trained, so that every dense layer, table and norm is frozen: norms of several
# kinds, tied weights, parameters that are read without a call, tables that are scaled, transposed and shared layers.
NAMES = ["bert", "albert", "llama", "gpt2-token-types", "gemma2", "t5", "deberta-v2-shared", "mpnet", "opt-projected"]
ADAPTED = ["bert-lora", "gpt2-lora", "llama-lora"]


def partly_frozen(name: str, dtype: torch.dtype) -> nn.Module:
    """Build a model of which adapters, or biases, and the head are trained."""
    model = ZOO[name].build(dtype=dtype)
    if name not in ADAPTED:
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(key.endswith(("bias", "norm.weight")) or key.startswith(("score", "classif")))
    return model


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.bfloat16, "float32"), (torch.float16, "float64"), (torch.float32, "float64")]
)
@pytest.mark.parametrize("name", [*NAMES, *ADAPTED])
def test_the_kernel_is_that_of_the_widened_model(name: str, dtype: torch.dtype, precision: str, engine: str) -> None:
    model, rows = partly_frozen(name, dtype), ragged_rows(ZOO[name], n=3)
    wide = copy.deepcopy(model).to(getattr(torch, precision))
    narrow = compute_ntk(model, rows, precision=precision, engine=engine)
    expected = compute_ntk(wide, rows, precision=precision, engine=engine)
    assert narrow.metadata["frozen_weights"] == [str(dtype).removeprefix("torch.")]
    assert expected.metadata["frozen_weights"] == []
    # The very operations, so that only where numbers lie in memory may change how they are rounded.
    assert error(narrow.total, expected.total) <= (1e-5 if precision == "float32" else 1e-12)


@pytest.mark.parametrize("name", ["bert", "gpt2-token-types", "bert-lora", "gpt2-lora"])
def test_the_kernel_agrees_with_the_referee(name: str) -> None:
    model, rows = partly_frozen(name, torch.bfloat16), ragged_rows(ZOO[name], n=4)
    expected = sum(referee(copy.deepcopy(model).double(), rows).values())
    assert error(compute_ntk(model, rows, precision="float64").total, expected) <= 1e-12
    assert error(compute_ntk(model, rows).total, expected) <= 1e-5


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["gemma2", "bert-lora"])
def test_the_model_is_as_it_was(name: str, fails: bool) -> None:
    model, rows = partly_frozen(name, torch.bfloat16), ragged_rows(ZOO[name], n=2)
    before = [(type(m), list(vars(m))) for m in model.modules()]
    weights = [(p, p.dtype, p.data_ptr(), p.detach().clone()) for p in model.parameters()]
    classifier = Classifier.of(model, rows)
    try:
        with classifier.opened():
            trained = {p.dtype for p in model.parameters() if p.requires_grad}
            frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
            assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
            for module, (kind, _) in zip(model.modules(), before, strict=True):
                assert isinstance(module, kind)
                assert type(module).__qualname__ == kind.__qualname__
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [(type(m), list(vars(m))) for m in model.modules()] == before
    for parameter, (same, dtype, place, value) in zip(model.parameters(), weights, strict=True):
        assert parameter is same
        assert (parameter.dtype, parameter.data_ptr()) == (dtype, place)
        assert torch.equal(parameter, value)
    assert active_weights() is None


@pytest.mark.parametrize("name", ["llama-lora", "bert-lora", "mixtral", "qwen2_moe"])
def test_a_graph_keeps_no_wide_weight(name: str) -> None:
    """Forward and backward passes leave those of two layers in memory at the most, and widen each of them once."""
    model = build(name, torch.bfloat16) if name in ARCHITECTURES else partly_frozen(name, torch.bfloat16)
    for key, parameter in model.named_parameters() if name in ARCHITECTURES else ():
        parameter.requires_grad_("q_proj" in key)
    rows = ragged_rows(ZOO["llama"], n=3)
    classifier = Classifier.of(model, rows)
    most, made = 0, Counter[str]()
    with classifier.opened():
        weights = active_weights()
        assert weights is not None
        for owner, make in weights._makers.items():

            def counted(make=make, owner=owner) -> torch.Tensor:  # type: ignore[no-untyped-def]
                nonlocal most
                alive = {o[0] for o, reference, _ in weights._known.values() if reference() is not None}
                most = max(most, len(alive - {owner[0]}))
                made[f"{id(owner[0])}.{owner[1]}"] += 1
                return make()

            weights._makers[owner] = counted
        logits = classifier.logits(next(classifier.batches(classifier.rows(rows), max_cells=100)).tensors)
        assert max(made.values()) == 1
        made.clear()
        logits.sum().backward(inputs=[p for p in model.parameters() if p.requires_grad])
        assert max(made.values()) == 1
        # A weight may be held by the product that it is in, while the next layer asks for its own.
        assert most <= 2
        # The table of embeddings is never widened.
        assert not any(key.startswith(f"{id(model.get_input_embeddings())}.") for key in made)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_broken_narrow_weights_are_refused(dtype: torch.dtype, value: float) -> None:
    model, rows = partly_frozen("bert-lora", dtype), ragged_rows(ZOO["bert"], n=2)
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 1] = value
    with pytest.raises(InputError, match=r"word_embeddings.weight of the model holds NaN or infinite values"):
        compute_ntk(model, rows)


def test_sound_weights_whose_sum_overflows_pass() -> None:
    model, rows = partly_frozen("bert-lora", torch.float16), ragged_rows(ZOO["bert"], n=2)
    with torch.no_grad():
        model.get_input_embeddings().weight[60] = 60000.0
    assert torch.isfinite(compute_ntk(model, rows).total).all()


def test_features_of_a_frozen_model() -> None:
    model, rows = ZOO["llama"].build(dtype=torch.bfloat16).requires_grad_(False), ragged_rows(ZOO["llama"], n=4)
    wide = copy.deepcopy(model).float()
    narrow, expected = extract_features(model, rows), extract_features(wide, rows)
    assert error(narrow.features, expected.features) <= 1e-6
    assert error(narrow.logits, expected.logits) <= 1e-6


def test_weights_that_a_module_keeps_by_other_ways_than_their_names() -> None:
    """A recurrent layer lists its weights, which are widened as a whole."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = copy.deepcopy(ZOO["bert"].build().config)
            self.table = nn.Embedding(61, 8)
            self.body = nn.GRU(8, 8, batch_first=True)
            self.tune = nn.Linear(8, 8)
            self.score = nn.Linear(8, 3)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict:
            states, _ = self.body(self.table(input_ids))
            return (self.score(torch.tanh(self.tune(states[:, 0]))),)

    torch.manual_seed(0)
    model = Recurrent().to(torch.bfloat16).eval()
    model.body.requires_grad_(False)
    model.table.requires_grad_(False)
    rows = [{"input_ids": [5, 9, 7]}, {"input_ids": [9, 5]}]
    narrow, wide = compute_ntk(model, rows), compute_ntk(copy.deepcopy(model).float(), rows)
    assert narrow.metadata["frozen_weights"] == ["bfloat16"]
    assert error(narrow.total, wide.total) <= 1e-6
