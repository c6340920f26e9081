"""The paper's classifier: pooling and one linear layer."""

from __future__ import annotations

import pytest
import torch
import transformers
from helpers.zoo import ZOO, Row, padded, ragged_rows, randomise
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from ntk_lpft.classifier import LinearHeadClassifier
from ntk_lpft.classifier.linear_head import pool, resolve_pooling
from ntk_lpft.errors import InputError

LENGTHS = (4, 1, 6, 3)


def body_of(name: str) -> PreTrainedModel:
    entry = ZOO[name]
    config = getattr(transformers, entry.config)(vocab_size=61, pad_token_id=entry.pad_id, **entry.options)
    body = AutoModel.from_config(config).double().eval()
    randomise(body, 0)
    return body


def by_hand(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    result = []
    for row, visible in zip(states.tolist(), mask.tolist(), strict=True):
        kept = [vector for vector, seen in zip(row, visible, strict=True) if seen]
        if pooling == "first":
            result.append(kept[0])
        elif pooling == "last":
            result.append(kept[-1])
        else:
            result.append([sum(column) / len(kept) for column in zip(*kept, strict=True)])
    return torch.tensor(result, dtype=states.dtype)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_pooling_agrees_with_a_loop(pooling: str, side: str) -> None:
    states = torch.randn(4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [[1] * n + [0] * (6 - n) for n in LENGTHS]
    mask = torch.tensor(rows if side == "right" else [row[::-1] for row in rows])
    torch.testing.assert_close(pool(states, mask, pooling), by_hand(states, mask, pooling), rtol=0, atol=1e-15)


def test_padding_gets_no_gradient() -> None:
    for pooling in ("first", "last", "mean"):
        states = torch.randn(2, 3, 4, requires_grad=True)
        pool(states, torch.tensor([[1, 1, 0], [0, 1, 1]]), pooling).sum().backward()
        assert states.grad is not None
        assert states.grad[0, 2].abs().sum() == 0
        assert states.grad[1, 0].abs().sum() == 0
        assert states.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bert", "first"), ("roberta", "first"), ("deberta-v2", "first"), ("modernbert", "first"), ("distilbert", "first"),
     ("gpt2", "last"), ("llama", "last"), ("opt", "last"), ("gpt-neox", "last"), ("mistral", "last")],
)  # fmt: skip
def test_auto_pooling(name: str, expected: str) -> None:
    body = body_of(name).train()
    assert resolve_pooling(body, "auto") == expected
    assert body.training
    assert resolve_pooling(body, "mean") == "mean"


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(InputError, match="unknown pooling 'max'; choose one of auto, first, last, mean"):
        resolve_pooling(body_of("bert"), "max")


def expected_logits(classifier: LinearHeadClassifier, row: Row, place: int) -> Tensor:
    """Logits of one row alone."""
    tensors = {name: torch.tensor([values]) for name, values in row.items()}
    state = classifier.body(**tensors).last_hidden_state[0, place]
    return classifier.classifier.weight @ state + classifier.classifier.bias


@pytest.mark.parametrize(("name", "pooling", "place"), [("bert", "first", 0), ("llama", "last", -1),
                                                        ("opt-projected", "last", -1)])  # fmt: skip
def test_logits_do_not_depend_on_padding(name: str, pooling: str, place: int) -> None:
    entry = ZOO[name]
    classifier = LinearHeadClassifier(body_of(name), 3, pooling).double().eval()
    rows = ragged_rows(entry)
    sides = ("left", "right") if entry.left_padding_exact else ("right",)
    expected = torch.stack([expected_logits(classifier, row, place) for row in rows])
    for side in sides:
        logits = classifier(**padded(rows, pad_id=entry.pad_id, side=side, extra=2)).logits
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)


def test_gradient_flows_to_every_parameter() -> None:
    body = AutoModel.from_config(body_of("bert").config, add_pooling_layer=False).double()
    classifier = LinearHeadClassifier(body, 3, "mean", dropout=0.0).double().eval()
    output = classifier(**padded(ragged_rows(ZOO["bert"]), pad_id=0), labels=torch.tensor([0, 1, 2, 0, 1]))
    expected = nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 0, 1]))
    assert output.loss.item() == expected.item()
    output.loss.backward()
    silent = [name for name, p in classifier.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_a_missing_mask_means_that_every_token_counts() -> None:
    classifier = LinearHeadClassifier(body_of("bert"), 3, "last").double().eval()
    ids = torch.tensor([[3, 9, 10, 4], [3, 11, 12, 4]])
    torch.testing.assert_close(
        classifier(ids).logits, classifier(ids, attention_mask=torch.ones_like(ids)).logits, rtol=0, atol=0
    )


def test_dropout_acts_in_training_only() -> None:
    classifier = LinearHeadClassifier(body_of("bert"), 3, "first", dropout=0.5).double()
    assert classifier.dropout.p == 0.5
    assert LinearHeadClassifier(body_of("bert"), 3, "first").dropout.p == pytest.approx(0.1)
    classifier.body.eval()
    ids = torch.arange(10, 14).repeat(8, 1)
    assert classifier.train()(ids).logits.unique(dim=0).shape[0] > 1
    torch.testing.assert_close(*classifier.eval()(ids).logits[:2])
    assert classifier.config.num_labels == 3
