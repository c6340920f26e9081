"""Features and logits of a whole data set."""

from __future__ import annotations

import pytest
import torch
from helpers.referee import referee_logits
from helpers.zoo import ZOO, padded, ragged_rows

from ntk_lpft.classifier import extract_features
from ntk_lpft.errors import InputError

NAMES = ("bert", "roberta", "gpt2", "llama", "t5", "modernbert", "bert-lora")


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_models_own(name: str) -> None:
    entry = ZOO[name]
    model, rows = entry.build(), ragged_rows(entry, n=7)
    extracted = extract_features(model, rows, dtype=torch.float64, max_cells=20)
    tolerance = 5e-6 if entry.internal_float32 else 1e-9
    torch.testing.assert_close(extracted.logits, referee_logits(model, rows, "sdpa"), rtol=tolerance, atol=tolerance)
    rebuilt = extracted.features @ extracted.head.module.weight.T
    if extracted.head.module.bias is not None:
        rebuilt = rebuilt + extracted.head.module.bias
    torch.testing.assert_close(rebuilt, extracted.logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_neither_order_nor_batches_nor_padding_matter(name: str) -> None:
    entry = ZOO[name]
    model, rows = entry.build(), ragged_rows(entry, n=7)
    extracted = extract_features(model, rows, dtype=torch.float64)
    turned = extract_features(model, rows[::-1], dtype=torch.float64)
    torch.testing.assert_close(turned.features.flip(0), extracted.features, rtol=1e-9, atol=1e-9)
    for side in ("left", "right"):
        batch = padded(rows, pad_id=entry.pad_id, side=side, extra=3)
        again = extract_features(model, batch, dtype=torch.float64, max_cells=1)
        torch.testing.assert_close(again.features, extracted.features, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(again.logits, extracted.logits, rtol=1e-9, atol=1e-9)


def test_the_model_stays_as_it_was() -> None:
    entry = ZOO["bert"]
    model = entry.build().train()
    extracted = extract_features(model, ragged_rows(entry), dtype=torch.float32)
    assert extracted.features.dtype == torch.float32
    assert not extracted.features.requires_grad
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.training


def test_rows_that_the_model_cannot_take() -> None:
    entry = ZOO["bert"]
    model = entry.build()
    with pytest.raises(InputError, match="row 0 has 24 tokens but the model has positions for 23"):
        extract_features(model, [{"input_ids": [5] * 24}])
    with pytest.raises(InputError, match=r"row 1 has a token id outside 0…60"):
        extract_features(model, [{"input_ids": [5]}, {"input_ids": [61]}])
    with pytest.raises(InputError, match="are empty"):
        extract_features(model, [])
