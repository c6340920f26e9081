"""Adapters beside a classifier's layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.small import save_model
from helpers.zoo import ZOO, padded, ragged_rows
from torch import nn

from ntk_lpft.classifier import Head, apply_lora, find_head, load_classifier
from ntk_lpft.errors import InputError

HEADS = {"bert": "classifier", "roberta": "classifier.out_proj", "gpt2": "score", "llama": "score", "t5": "out_proj"}


def adapted(name: str, **options: object) -> tuple[nn.Module, nn.Module, dict[str, torch.Tensor]]:
    entry = ZOO[name]
    rows = [row for row in ragged_rows(entry, n=14) if len(row["input_ids"]) == 8]
    tensors = padded(rows, pad_id=entry.pad_id)
    plain, model = entry.build(), entry.build()
    return plain, apply_lora(model, find_head(model, tensors), **options), tensors


@pytest.mark.parametrize("name", HEADS)
def test_adapters_start_at_zero_and_train_with_the_head_alone(name: str) -> None:
    plain, model, tensors = adapted(name, rank=2)
    with torch.no_grad():
        before, after = plain(**tensors).logits, model.eval()(**tensors).logits
    assert torch.equal(before, after)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    of_head = [n for n in trained if "lora_" not in n]
    assert len(trained) > len(of_head) > 0
    assert all(f"{HEADS[name]}.modules_to_save" in n for n in of_head)
    for n, p in model.named_parameters():
        if "lora_B" in n:
            assert not p.any()
        elif "lora_A" in n:
            assert p.shape[0] == 2
            assert p.abs().sum() > 0


def test_adapters_are_scaled_by_alpha_over_rank() -> None:
    plain, model, tensors = adapted("bert", rank=2, alpha=3.0, targets=["query"])
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    for name, layer in plain.named_modules():
        if name.endswith("query"):
            a, b = (parameters[f"base_model.model.{name}.lora_{letter}.default.weight"] for letter in "AB")
            with torch.no_grad():
                b.copy_(torch.randn(b.shape, generator=generator))
                layer.weight += 1.5 * b.double() @ a.double()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**tensors).logits, plain(**tensors).logits, rtol=1e-6, atol=1e-6)


def test_the_seed_decides_a() -> None:
    def matrices(seed: int) -> list[torch.Tensor]:
        _, model, _ = adapted("bert", seed=seed)
        return [p.detach() for n, p in model.named_parameters() if "lora_A" in n]

    state = torch.get_rng_state()
    one, same, other = matrices(1), matrices(1), matrices(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_named_targets() -> None:
    _, model, _ = adapted("bert", targets=["key", "dense"])
    names = {n.split(".lora_")[0].rsplit(".", 1)[-1] for n, _ in model.named_parameters() if "lora_" in n}
    assert names == {"key", "dense"}


@pytest.mark.parametrize("target", ["quarry", "classifier", "LayerNorm"])
def test_targets_that_are_no_layer_of_the_body(target: str) -> None:
    with pytest.raises(InputError, match=f"LoRA target {target} matches no layer; this model has dense, key, query"):
        adapted("bert", targets=["query", target])


def test_rank_must_be_positive() -> None:
    with pytest.raises(InputError, match="LoRA rank 0 is not positive"):
        adapted("bert", rank=0)


def test_an_architecture_that_peft_does_not_know() -> None:
    with pytest.raises(InputError, match="no default LoRA targets for this architecture; name some of k_lin, lin1"):
        adapted("distilbert")
    _, model, _ = adapted("distilbert", targets=["q_lin"])
    assert any("q_lin.lora_A" in name for name, _ in model.named_parameters())


def test_around_the_linear_head(tmp_path: Path) -> None:
    plain = load_classifier(save_model(tmp_path), 3)
    tensors = padded(ragged_rows(ZOO["bert"]), pad_id=0)
    before = plain(**tensors).logits
    model = apply_lora(plain, find_head(plain, tensors))
    assert torch.equal(model(**tensors).logits, before)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sum("lora_" in n for n in trained) == 2 * 2 * 2
    assert [n for n in trained if "lora_" not in n] == [
        f"base_model.model.classifier.modules_to_save.default.{leaf}" for leaf in ("weight", "bias")
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_beside_narrow_weights_are_drawn_in_float32(dtype: torch.dtype) -> None:
    drawn = []
    for kind in (torch.float32, dtype):
        model = ZOO["llama"].build(dtype=kind)
        before = {id(p): p.detach().clone() for p in model.parameters()}
        adapted = apply_lora(model, Head("score", model.score), targets=["q_proj"], seed=3)
        kept = [p for p in adapted.parameters() if id(p) in before]
        assert all(torch.equal(p, before[id(p)]) and p.dtype == kind for p in kept)
        drawn.append({name: p for name, p in adapted.named_parameters() if "lora_A" in name})
    assert {p.dtype for p in drawn[1].values()} == {torch.float32}
    for name, value in drawn[0].items():
        assert torch.equal(value, drawn[1][name]), name
