"""Mixtures of experts: kernels of all their weights, and of adapters beside them, in every dtype, without a setting."""

from __future__ import annotations

import copy
import warnings

import peft
import pytest
import torch
from helpers.agreement import error
from helpers.architectures import build
from helpers.referee import referee
from torch import nn

from ntk_lpft.kernel import compute_ntk

ROWS = [{"input_ids": ids} for ids in ([5, 9, 7, 9, 11, 8, 2], [9, 5, 12, 2], [7, 9, 9, 8, 2])]
NAMES = ["mixtral", "qwen2_moe", "qwen3_moe", "phimoe", "minimax"]


def adapted(name: str, dtype: torch.dtype) -> nn.Module:
    """Build a mixture of experts with adapters whose B is not zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(build(name, dtype), settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def expected(model: nn.Module) -> torch.Tensor:
    """Make the kernel by plain autograd of the same weights in float64, for which grouped products have no code."""
    wide = copy.deepcopy(model).double()
    wide.config._experts_implementation = "eager"
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in ROWS]
    return sum(referee(wide, rows, attention="sdpa").values())  # type: ignore[return-value]


# Routers and norms compute in float32 inside, so that float64 is no better than 1e-6.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", NAMES)
def test_all_weights(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = build(name, dtype)
    ntk = compute_ntk(model, ROWS)
    assert ntk.total.dtype == dtype
    assert error(ntk.total.double(), expected(model)) <= tolerance
    # Experts hold their weights in one tensor each, for which there is no rule; the result says so.
    assert any("experts" in key for key in ntk.metadata["self_check"]["routes"]["autograd"])
    assert any("no rule for" in notice for notice in ntk.metadata["self_check"]["notices"])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4), (torch.bfloat16, 1e-4)])
@pytest.mark.parametrize("name", NAMES)
def test_adapters(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = adapted(name, dtype)
    ntk = compute_ntk(model, ROWS)
    assert error(ntk.total.double(), expected(model)) <= tolerance
    assert ntk.metadata["frozen_weights"] == (["bfloat16"] if dtype == torch.bfloat16 else [])
    assert ntk.metadata["self_check"]["routes"]["autograd"] == []
