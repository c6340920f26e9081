"""A model is put back exactly as it was."""

from __future__ import annotations

import pytest
import torch
from helpers.zoo import ZOO
from torch import nn

from ntk_lpft.classifier.prepare import prepared
from ntk_lpft.errors import InputError

CPU = torch.device("cpu")


def state(model: nn.Module) -> dict[str, object]:
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return {
        "modes": [module.training for module in model.modules()],
        "parameters": [(n, id(p), p.data_ptr(), p.dtype, p.device, p.requires_grad)
                       for n, p in model.named_parameters()],
        "buffers": [(n, id(b), b.dtype) for n, b in model.named_buffers()],
        "attention": [getattr(config, "_attn_implementation", None) for config in configs.values()],
        "cache": [getattr(config, "use_cache", None) for config in configs.values()],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "gemma2", "t5", "deberta-v2", "modernbert", "bert-lora"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(name: str, fails: bool) -> None:
    model = ZOO[name].build().train()
    next(iter(model.children())).eval()
    supports = next(m for m in model.modules() if hasattr(m, "_supports_sdpa"))._supports_sdpa
    if supports:
        (model.get_base_model() if hasattr(model, "get_base_model") else model).set_attn_implementation("eager")
    values = {n: p.detach().clone() for n, p in model.named_parameters()}
    before = state(model)
    try:
        with prepared(model, torch.float32, CPU):
            inside = state(model)
            assert not any(inside["modes"])
            assert {p.dtype for p in model.parameters()} == {torch.float32}
            assert set(inside["attention"]) <= {"sdpa" if supports else "eager", None}
            assert not any(inside["cache"])
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert state(model) == before
    # To the last bit, although float32 holds fewer of them.
    assert all(torch.equal(p, values[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_weights_are_refused(value: float) -> None:
    model = ZOO["bert"].build()
    with torch.no_grad():
        model.bert.pooler.dense.bias[3] = value
    before = state(model)
    with (
        pytest.raises(InputError, match=r"weight bert.pooler.dense.bias of the model holds NaN or infinite values"),
        prepared(model, torch.float64, CPU),
    ):
        pytest.fail("the model was used")
    assert state(model) == before
