"""Every use runs every model in one way: head and padding found once, rows in batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.linear_heads import linear_head
from helpers.probe_samples import counted_rows
from helpers.referee import referee_logits
from helpers.zoo import ENTRIES, LORA_ENTRIES, POSITIONS, VOCABULARY, ZOO, Entry, Row, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_lpft.classifier import Classifier, extract_features
from ntk_lpft.classifier.classifier import Outputs
from ntk_lpft.classifier.rows import by_length
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk

ALL = [*ENTRIES, *LORA_ENTRIES]
DECODERS = ("gpt2", "gpt-neox", "opt", "llama", "qwen2", "mistral", "gpt2-lora", "llama-lora")
UNUSABLE = pytest.mark.parametrize("pad_id", [None, -1, VOCABULARY], ids=["none", "minus one", "beyond the vocabulary"])

every_entry = pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)


def base_of(model: nn.Module) -> nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def form_of_attention(model: nn.Module) -> str:
    return "sdpa" if base_of(model)._supports_sdpa else "eager"


def head_of(model: nn.Module) -> nn.Linear:
    """Return the only trained layer with as many outputs as classes."""
    (head,) = [
        m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 3 and m.weight.requires_grad
    ]
    return head


def without_padding_token(model: nn.Module, pad_id: int | None) -> nn.Module:
    base_of(model).config.pad_token_id = pad_id
    return model


def plain_loop(model: nn.Module, rows: Sequence[Row]) -> Outputs:
    """φ and f of rows by one forward pass each, φ as the head is seen to be given it; decoders see all positions."""
    seen: list[Tensor] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        logits = referee_logits(model, rows, form_of_attention(base_of(model)))
    finally:
        hook.remove()
    return Outputs(torch.stack([phi[0] if phi.dim() == 2 else phi[0, -1] for phi in seen]), logits)


def assert_outputs_close(outputs: Outputs, expected: Outputs, tolerance: float) -> None:
    for name, value, reference in zip(Outputs._fields, outputs, expected, strict=True):
        assert value.shape == reference.shape, name
        difference = float((value - reference).norm() / reference.norm())
        assert difference <= tolerance, f"{name}: off by {difference:.1e} of their norm"


def assert_run_is_the_loop(model: nn.Module, rows: Sequence[Row], tolerance: float = 1e-9, **options: Any) -> None:
    expected = plain_loop(model, rows)
    assert_outputs_close(Classifier.of(model, rows).run(rows, **options), expected, tolerance)


def test_the_tolerance_of_entries_fits_a_change_of_one_row() -> None:
    """One row's features put in the place of another's are far outside what `assert_outputs_close` allows."""
    loop = plain_loop(ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=7))
    turned = Outputs(loop.features[[1, 0, *range(2, 7)]], loop.logits)
    with pytest.raises(AssertionError, match="features"):
        assert_outputs_close(turned, loop, 1e-3)


# What is found


@every_entry
def test_head_and_padding_are_found(entry: Entry) -> None:
    model, rows = entry.build(), ragged_rows(entry, n=3)
    classifier = Classifier.of(model, rows)
    assert classifier.module is model
    assert classifier.head.module is head_of(model)
    assert model.get_submodule(classifier.head.name) is classifier.head.module
    assert classifier.pad_id == entry.pad_id
    assert (classifier.dtype, classifier.device) == (torch.float64, torch.device("cpu"))
    names = {f"{classifier.head.name}.{local}" for local, _ in head_of(model).named_parameters()}
    assert classifier.head_parameters.keys() == names
    assert all(model.get_parameter(name) is p for name, p in classifier.head_parameters.items())


@every_entry
def test_head_and_padding_are_found_once(entry: Entry) -> None:
    """All further runs are passes over the samples, and nothing else."""
    model, rows = entry.build(), ragged_rows(entry, n=5)
    classifier = Classifier.of(model, rows)
    with counted_rows(model) as seen:
        again = Classifier.of(classifier, rows)
        assert not seen
        again.run(rows, max_cells=1)
        assert seen == [1] * 5
        compute_ntk(classifier, rows[:2], engine="per_example")
    assert (again.head, again.pad_id) == (classifier.head, classifier.pad_id)
    assert again.module is model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_to_float32(dtype: torch.dtype) -> None:
    model, rows = ZOO["bert"].build(dtype=dtype), ragged_rows(ZOO["bert"], n=3)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    classifier = Classifier.of(model, rows)
    outputs = classifier.run(rows)
    assert {classifier.dtype, outputs.features.dtype, outputs.logits.dtype} == {wide}
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.equal(outputs.logits, Classifier.of(model.to(wide), rows).run(rows).logits)


def test_device_and_dtype_are_what_is_asked_for_last() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=3)
    own = Classifier.of(model, rows)
    assert (own.place, own.dtype) == (None, torch.float64)
    narrow = Classifier.of(own, rows, dtype=torch.float32)
    assert (narrow.place, narrow.dtype, own.dtype) == (None, torch.float32, torch.float64)
    moved = Classifier.of(narrow, rows, device=torch.device("meta"))
    assert (moved.device, moved.dtype) == (torch.device("meta"), torch.float32)
    assert Classifier.of(moved, rows).device == torch.device("meta")


def test_without_a_device_it_goes_where_the_model_goes() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=2)
    own, held = Classifier.of(model, rows), Classifier.of(model, rows, device=torch.device("cpu"))
    model.to("meta")
    assert (own.device, held.device) == (torch.device("meta"), torch.device("cpu"))


# Padding


@UNUSABLE
@pytest.mark.parametrize("name", DECODERS)
def test_decoders_without_a_padding_token_run_row_by_row(name: str, pad_id: int | None) -> None:
    entry = ZOO[name]
    model, rows = without_padding_token(entry.build(), pad_id), ragged_rows(entry, n=5)
    classifier = Classifier.of(model, rows)
    assert classifier.pad_id is None
    assert [batch.size for batch in classifier.batches(rows, max_cells=10**6)] == [1] * 5
    assert_run_is_the_loop(model, rows, entry.tolerance_sdpa)
    ntk = compute_ntk(model, rows, precision="float64")
    expected = compute_ntk(entry.build(), rows, precision="float64", engine="per_example")
    assert float((ntk.total - expected.total).norm() / expected.total.norm()) <= entry.tolerance_sdpa


@UNUSABLE
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("length", [1, 2, POSITIONS])
def test_decoders_show_on_any_first_row_that_they_have_no_padding_token(
    name: str, length: int, pad_id: int | None
) -> None:
    entry = ZOO[name]
    model = without_padding_token(entry.build(), pad_id)
    rows = [{"input_ids": [5 + i % 9 for i in range(length)]}, *({"input_ids": [7, 8, 9, 4][:n]} for n in (4, 1, 2))]
    assert Classifier.of(model, rows).pad_id is None
    assert_run_is_the_loop(model, rows, entry.tolerance_sdpa)


@UNUSABLE
@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2", "distilbert", "albert", "modernbert-mean"])
def test_encoders_are_padded_with_any_token_where_the_mask_tells(name: str, pad_id: int | None) -> None:
    entry = ZOO[name]
    model, rows = without_padding_token(entry.build(), pad_id), ragged_rows(entry, n=5)
    text = [row | {"input_ids": [0, *row["input_ids"][1:-1], 0]} for row in rows]  # the very token, as text
    assert Classifier.of(model, rows).pad_id == 0
    for samples in (rows, text, text[::-1]):
        assert_run_is_the_loop(model, samples, entry.tolerance_sdpa)


@UNUSABLE
@pytest.mark.parametrize(
    ("name", "pooling"), [("bert", "first"), ("gpt2", "last"), ("llama", "last"), ("gpt2", "mean")]
)
def test_one_linear_layer_goes_by_the_mask(name: str, pooling: str, pad_id: int | None) -> None:
    model = without_padding_token(linear_head(name, pooling), pad_id)
    rows = ragged_rows(ZOO[name], n=5)
    classifier = Classifier.of(model, rows)
    assert classifier.pad_id == 0
    assert {batch.size for batch in classifier.batches(rows, max_cells=10**6)} == {5}
    with torch.no_grad():
        expected = torch.cat(
            [model(**{key: torch.tensor([value]) for key, value in row.items()}).logits for row in rows]
        )
    logits = classifier.run(rows).logits
    assert float((logits - expected).norm() / expected.norm()) <= (5e-6 if name == "llama" else 1e-9)


@pytest.mark.parametrize("pad_id", [0, 17, VOCABULARY - 1])
def test_the_models_own_padding_token_is_used(pad_id: int) -> None:
    entry = ZOO["gpt2"]
    model, rows = without_padding_token(entry.build(), pad_id), [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
    classifier = Classifier.of(model, rows)
    batch = classifier.collate(rows, 4)
    assert (batch.start, batch.size) == (4, 2)
    assert batch.tensors["input_ids"].tolist() == [[5, 6, 7], [8, pad_id, pad_id]]
    assert batch.tensors["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert_run_is_the_loop(model, rows)


# Running


@every_entry
def test_a_run_is_a_plain_loop_over_single_rows(entry: Entry) -> None:
    rows = ragged_rows(entry, n=7)
    # Where padding changes the logits, only rows by themselves have ones of their own.
    for max_cells in (4096, 40, 1) if entry.padding_exact else (1,):
        assert_run_is_the_loop(entry.build(), rows, entry.tolerance_sdpa, max_cells=max_cells)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "bert-lora"])
def test_outputs_of_batches_are_those_of_their_rows(name: str) -> None:
    entry = ZOO[name]
    model, rows = entry.build(), ragged_rows(entry, n=6)
    classifier = Classifier.of(model, rows)
    with classifier.opened():
        outputs = classifier.outputs(classifier.batches(classifier.rows(rows), max_cells=10**6, max_rows=4))
        single = [classifier.forward(classifier.collate([row]).tensors) for row in classifier.rows(rows)]
        graph = classifier.logits(classifier.collate(classifier.rows(rows)).tensors)
        with torch.no_grad():
            bare = classifier.logits(classifier.collate(classifier.rows(rows)).tensors)
    expected = plain_loop(model, rows)
    tolerance = entry.tolerance_sdpa
    assert_outputs_close(outputs, expected, tolerance)
    assert_outputs_close(Outputs(*(torch.cat(parts) for parts in zip(*single, strict=True))), expected, tolerance)
    assert not outputs.features.requires_grad
    assert not outputs.logits.requires_grad
    assert graph.requires_grad
    assert not bare.requires_grad
    assert torch.equal(graph, bare)


def test_a_run_keeps_the_order_whatever_the_lengths() -> None:
    entry = ZOO["bert"]
    model, rows = entry.build(), ragged_rows(entry, n=9)
    assert by_length(rows) not in (list(range(9)), list(range(9))[::-1])
    classifier = Classifier.of(model, rows)
    whole = classifier.run(rows)
    for order in (range(9), range(8, -1, -1), (4, 0, 7, 2)):
        assert_outputs_close(
            classifier.run([rows[i] for i in order]), Outputs(*(part[list(order)] for part in whole)), 1e-9
        )


def test_every_use_of_a_classifier_takes_it_as_it_takes_its_model() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=4)
    classifier = Classifier.of(model, rows)
    features = extract_features(model, rows, dtype=torch.float64)
    again = extract_features(classifier, rows, dtype=torch.float64)
    assert torch.equal(features.features, again.features)
    assert torch.equal(features.logits, classifier.run(rows).logits)
    assert torch.equal(compute_ntk(model, rows).total, compute_ntk(classifier, rows).total)


def test_a_diverged_model_runs_and_is_said_to_be_so_only_by_its_numbers() -> None:
    """Its head was found before; logits that overflow are no error of whoever asks for them."""
    entry = ZOO["bert"]
    model, rows = entry.build(dtype=torch.float32), ragged_rows(entry, n=3)
    classifier = Classifier.of(model, rows)
    with torch.no_grad():
        classifier.head.module.weight.fill_(3e38)
    assert not torch.isfinite(classifier.run(rows).logits).all()
    with pytest.raises(InputError, match="logits are NaN or infinite on the first sample"):
        Classifier.of(model, rows)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    boundary=st.integers(0, 12),
    max_cells=st.integers(1, 40),
    max_rows=st.none() | st.integers(1, 12),
    knows_padding=st.booleans(),
)
def test_batches_cover_every_row_once(
    lengths: list[int], boundary: int, max_cells: int, max_rows: int | None, knows_padding: bool
) -> None:
    rows = [{"input_ids": [number + 1] * length} for number, length in enumerate(lengths)]
    classifier = KNOWS_PADDING if knows_padding else KNOWS_NONE
    batches = list(classifier.batches(rows, boundary=boundary, max_cells=max_cells, max_rows=max_rows))
    first_tokens = [int(token) for batch in batches for token in batch.tensors["input_ids"][:, 0]]
    assert first_tokens == list(range(1, len(rows) + 1))
    most = (max_rows or len(rows)) if knows_padding else 1
    expected_start = 0
    for batch in batches:
        assert batch.start == expected_start
        expected_start += batch.size
        assert batch.size <= most
        assert batch.size == 1 or batch.size * batch.length <= max_cells
        assert not batch.start < boundary < batch.start + batch.size
        assert batch.length == max(lengths[batch.start : batch.start + batch.size])
    for left, right in pairwise(batches):
        # No batch is smaller than it has to be.
        joined = left.size + 1
        longest = max(lengths[left.start : right.start + 1])
        assert joined > most or joined * longest > max_cells or right.start == boundary


KNOWS_PADDING = Classifier.of(ZOO["gpt2"].build(), [{"input_ids": [5, 6]}])
KNOWS_NONE = Classifier.of(without_padding_token(ZOO["gpt2"].build(), None), [{"input_ids": [5, 6]}])
