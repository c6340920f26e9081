"""LoRA kernels of a decoder of a billion parameters, which are held in bfloat16, on a machine without a GPU."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from ntk_lpft.classifier import Head, LinearHeadClassifier, apply_lora
from ntk_lpft.kernel.engine import compute_ntk


def tiny_llama_size(num_labels: int) -> nn.Module:
    """Make a random model of TinyLlama's shape with adapters of rank 8 on query and value, all else but V frozen.

    Weights are made in bfloat16; B of the adapters is random, so that A has a gradient.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        pad_token_id=0,
        rms_norm_eps=1e-5,
    )
    body = LlamaModel._from_config(config, dtype=torch.bfloat16)
    model = LinearHeadClassifier(body, num_labels, "last").eval()
    adapted = apply_lora(model, Head("classifier", model.classifier), rank=8, targets=["q_proj", "v_proj"]).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return adapted


def large_decoder(samples: int = 32, budget: str = "4GiB") -> dict[str, Any]:
    """Measure N = 32, C = 2, 32 to 64 random tokens; exactness is the self-check's, on two of the samples."""
    model = tiny_llama_size(2)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(32, 64, samples).round().int().tolist()
    rows = [{"input_ids": torch.randint(3, 32000, (length,), generator=generator).tolist()} for length in lengths]
    before = _peak()
    began, worked = time.perf_counter(), time.process_time()
    ntk = compute_ntk(model, rows, memory_budget=budget, report=lambda line: print(line, flush=True))
    plan, check = ntk.metadata["plan"], ntk.metadata["self_check"]
    return {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - worked,
        "peak": _peak(),
        "before": before,
        "weights": weights,
        "predicted": weights + plan["predicted_peak"],
        "passes": plan["passes"],
        "error": check["error"],
        "worst": check["worst"],
        "head_error": ntk.metadata["head_error"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "frozen_weights": ntk.metadata["frozen_weights"],
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
