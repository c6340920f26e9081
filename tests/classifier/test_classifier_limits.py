"""What a classifier leaves behind: the model as it was; and what it refuses."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers.linear_heads import linear_head
from helpers.probe_samples import counted_rows
from helpers.zoo import ZOO, padded, ragged_rows
from torch import nn

from ntk_lpft.classifier import Classifier
from ntk_lpft.classifier.classifier import require_labels
from ntk_lpft.classifier.rows import to_rows
from ntk_lpft.errors import InputError


@contextmanager
def accelerated(model: nn.Module) -> Iterator[nn.Module]:
    """Wrap a model as mixed-precision training in bfloat16 does; accelerate keeps its state in the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        yield Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bert-lora", "linear head"])
def test_the_autocast_of_accelerate_is_taken_off_and_put_back(name: str) -> None:
    def build() -> nn.Module:
        return linear_head("bert", "first").float() if name == "linear head" else ZOO[name].build(dtype=torch.float32)

    rows = ragged_rows(ZOO["bert" if name == "linear head" else name], n=4)
    expected = Classifier.of(build(), rows).run(rows)
    with accelerated(build()) as model:
        wrapped = vars(model)["forward"]
        tensors = {key: torch.tensor([value]) for key, value in rows[0].items()}
        with torch.no_grad():
            assert not torch.allclose(model(**tensors).logits[0], expected.logits[0], rtol=1e-5, atol=1e-5)
        classifier = Classifier.of(model, rows)
        assert vars(model)["forward"] is wrapped
        outputs = classifier.run(rows)
        assert vars(model)["forward"] is wrapped
        assert torch.equal(outputs.features, expected.features)
        assert torch.equal(outputs.logits, expected.logits)
        with suppress(KeyError), classifier.opened():
            assert vars(model)["forward"] is not wrapped
            raise KeyError
        assert vars(model)["forward"] is wrapped


def test_only_accelerates_wrapping_is_taken_off() -> None:
    model = linear_head("bert", "first")
    classifier = Classifier.of(model, ragged_rows(ZOO["bert"], n=2))
    with classifier.opened():
        assert "forward" not in vars(model)
    mine = model.forward
    model.forward = mine  # patched by someone else
    with classifier.opened():
        assert vars(model)["forward"] is mine
    assert vars(model)["forward"] is mine


@pytest.mark.parametrize("name", ["bert", "llama", "bert-lora"])
def test_a_run_leaves_the_model_as_it_was(name: str) -> None:
    entry = ZOO[name]
    model, rows = entry.build().train(), ragged_rows(entry, n=4)
    before = {key: (value.clone(), value.data_ptr()) for key, value in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    classifier = Classifier.of(model, rows, dtype=torch.float32)
    with classifier.opened():
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    classifier.run(rows)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    for key, (value, place) in before.items():
        assert torch.equal(after[key], value), key
        assert after[key].data_ptr() == place, key


def test_first_rows_are_cut_from_every_form_of_the_inputs() -> None:
    rows = ragged_rows(ZOO["bert"], n=3)
    right = padded(rows, pad_id=0, extra=2)
    model = ZOO["bert"].build()
    expected = {key: value for key, value in rows[0].items() if key != "attention_mask"}
    for form in (rows, tuple(rows), right, UserDict(right), datasets.Dataset.from_list(rows),
                 datasets.Dataset.from_list(rows).with_format("torch")):  # fmt: skip
        assert to_rows(form, model, first=True) == [expected]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "evaluation are empty"),
        ({"input_ids": []}, "evaluation are empty"),
        ({}, "evaluation have no input_ids"),
        ([{"attention_mask": [1]}], "evaluation, row 0 has no input_ids"),
        ([{"input_ids": [3, 61]}], "evaluation, row 0 has a token id outside 0…60"),
        ([{"input_ids": [3] * 24}], "evaluation, row 0 has 24 tokens but the model has positions for 23"),
    ],
)
def test_unusable_inputs_are_refused_by_the_name_that_they_are_given(inputs: Any, message: str) -> None:
    model = ZOO["bert"].build()
    with pytest.raises(InputError, match=message):
        Classifier.of(model, inputs, what="evaluation")
    classifier = Classifier.of(model, ragged_rows(ZOO["bert"], n=1))
    with pytest.raises(InputError, match=message):
        classifier.rows(inputs, "evaluation")


def test_rows_behind_the_first_are_looked_at_before_they_are_run() -> None:
    model = ZOO["bert"].build()
    classifier = Classifier.of(model, [{"input_ids": [5]}])
    with counted_rows(model) as seen:
        with pytest.raises(InputError, match=r"inputs, row 1 has a token id outside 0…60"):
            classifier.run([{"input_ids": [5]}, {"input_ids": [61]}])
        with pytest.raises(InputError, match=r"inputs, row 1 has columns .*give all alike"):
            classifier.run([{"input_ids": [5]}, {"input_ids": [6], "token_type_ids": [1]}])
    assert not seen


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_weights_are_refused_whenever_they_break(value: float) -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=2)
    classifier = Classifier.of(model, rows)
    with torch.no_grad():
        model.bert.pooler.dense.bias[3] = value
    message = r"weight bert\.pooler\.dense\.bias of the model holds NaN or infinite values"
    with pytest.raises(InputError, match=message):
        Classifier.of(model, rows)
    with pytest.raises(InputError, match=message):
        classifier.run(rows)
    with pytest.raises(InputError, match=message), classifier.opened():
        pytest.fail("the model was used")


def test_a_model_without_a_linear_head_is_refused() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=2)
    model.classifier = nn.Sequential(model.classifier, nn.Tanh())
    with pytest.raises(InputError, match="no head found"):
        Classifier.of(model, rows)


def test_another_number_of_classes_is_refused() -> None:
    classifier = Classifier.of(ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=1))
    require_labels(classifier, 3)
    with pytest.raises(InputError, match="the model's head has 3 classes, not 2; load it for this data"):
        require_labels(classifier, 2)
