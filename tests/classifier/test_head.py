"""Which layer is the head, and what it sees."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from helpers.zoo import ENTRIES, LORA_ENTRIES, ZOO, Entry, padded, ragged_rows
from torch import Tensor, nn

from ntk_lpft.classifier import find_head
from ntk_lpft.classifier.head import features_and_logits
from ntk_lpft.errors import InputError

NAMES = {
    "roberta": "classifier.out_proj",
    "xlm-roberta": "classifier.out_proj",
    "electra": "classifier.out_proj",
    "mpnet": "classifier.out_proj",
    "t5": "classification_head.out_proj",
    "bert-lora": "base_model.model.classifier.modules_to_save.default",
    "gpt2-lora": "base_model.model.score.modules_to_save.default",
    "llama-lora": "base_model.model.score.modules_to_save.default",
    **dict.fromkeys(("gpt2", "gpt2-token-types", "opt", "opt-projected", "llama", "qwen2", "qwen3"), "score"),
    **dict.fromkeys(("gemma2", "gemma2-window", "mistral", "gpt-neox"), "score"),
}


def batch(entry: Entry, n: int = 4) -> dict[str, Tensor]:
    # Rows of one length, since some models see padding.
    rows = [row for row in ragged_rows(entry, n=21, seed=2) if len(row["input_ids"]) == 7][:n]
    assert len(rows) >= 3
    return padded(rows, pad_id=entry.pad_id)


@pytest.mark.parametrize("entry", [*ENTRIES, *LORA_ENTRIES], ids=lambda e: e.name)
def test_head_makes_the_logits(entry: Entry) -> None:
    model, tensors = entry.build(), batch(entry)
    head = find_head(model, tensors)
    assert head.name == NAMES.get(entry.name, "classifier")
    assert head.module is model.get_submodule(head.name)
    features, logits = features_and_logits(model, head, tensors)
    with torch.no_grad():
        expected = model(**tensors).logits
    torch.testing.assert_close(logits, expected)
    bias = 0 if head.module.bias is None else head.module.bias
    torch.testing.assert_close(features @ head.module.weight.T + bias, expected, rtol=1e-9, atol=1e-9)
    assert not features.requires_grad
    assert not logits.requires_grad


def test_feature_of_a_decoder_is_that_of_the_last_token() -> None:
    entry = ZOO["gpt2"]
    model, rows = entry.build(), ragged_rows(entry)
    tensors = padded(rows, pad_id=entry.pad_id)
    features, _ = features_and_logits(model, find_head(model, tensors), tensors)
    for row, feature in zip(rows, features, strict=True):
        with torch.no_grad():
            states = model.transformer(torch.tensor([row["input_ids"]])).last_hidden_state
        torch.testing.assert_close(feature, states[0, -1], rtol=1e-9, atol=1e-9)


def test_parameters_are_those_that_there_are() -> None:
    for name, count in (("bert", 2), ("llama", 1)):
        head = find_head(ZOO[name].build(), batch(ZOO[name]))
        assert len(head.parameters) == count
        assert head.parameters[0] is head.module.weight


def test_searching_leaves_the_model_as_it_was() -> None:
    entry = ZOO["bert"]
    model = entry.build()
    find_head(model, batch(entry))
    assert torch.is_grad_enabled()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


class Changed(nn.Module):
    """A classifier whose logits are changed behind its head."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change, self.config = model, change, model.config

    def forward(self, **tensors: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.change(self.model(**tensors).logits))


@pytest.mark.parametrize(
    "change",
    [
        torch.tanh,
        lambda z: torch.log_softmax(z, 1),
        lambda z: z * torch.arange(1, 4),
        lambda z: z + 0.1,
        lambda z: z[:, [1, 0, 2]],
        lambda z: z**2,
        lambda z: z * 0 + 1,
    ],
)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_logits_changed_behind_the_head_are_refused(name: str, change: Callable[[Tensor], Tensor]) -> None:
    model = Changed(ZOO[name].build(), change)
    with pytest.raises(InputError, match=r"no head found: .*tried .*model\.(classifier|score)"):
        find_head(model, batch(ZOO[name]))


def test_a_layer_of_as_many_outputs_that_is_not_the_last_is_passed_over() -> None:
    entry = ZOO["bert"]
    model = entry.build()
    model.classifier = nn.Sequential(model.classifier, nn.Tanh(), nn.Linear(3, 3).double())
    assert find_head(model, batch(entry)).name == "classifier.2"
    model.classifier = nn.Sequential(model.classifier, nn.Tanh())
    with pytest.raises(InputError, match="no head found"):
        find_head(model, batch(entry))


def test_models_without_a_linear_head_are_refused() -> None:
    entry = ZOO["bert"]
    model = entry.build()
    model.classifier = nn.Bilinear(20, 20, 3).double()
    model.classifier.forward = lambda x: nn.functional.bilinear(x, x, model.classifier.weight)
    with pytest.raises(InputError, match="tried none with 3 outputs"):
        find_head(model, batch(entry))


def test_other_shapes_of_logits_are_refused() -> None:
    entry = ZOO["bert"]
    with pytest.raises(InputError, match=r"logits of shape \(3, 2\), not \(samples, 3\)"):
        find_head(Changed(entry.build(), lambda z: z[:, :2]), batch(entry))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_labels": 1}, "1 output, as for regression"),
        ({"problem_type": "regression"}, "set up for regression"),
        ({"problem_type": "multi_label_classification"}, "set up for multi label classification"),
    ],
)
def test_models_that_are_no_single_label_classifiers_are_refused(settings: dict, message: str) -> None:
    entry = ZOO["bert"]
    model = entry.build(num_labels=settings.get("num_labels", 3))
    model.config.problem_type = settings.get("problem_type")
    with pytest.raises(InputError, match=message):
        find_head(model, batch(entry))


def test_a_model_that_says_nothing_of_its_labels_is_refused() -> None:
    with pytest.raises(InputError, match="no num_labels; a sequence classifier is needed"):
        find_head(nn.Linear(3, 3), {})
