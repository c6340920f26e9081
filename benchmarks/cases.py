"""The measurements of the engine alone, each run in a process of its own so that peak memory is its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.inputs import cb_train, minilm, roberta_base_size, text_of_length, without_segments
from benchmarks.large_decoder import large_decoder
from benchmarks.measuring import peak_bytes, product_rate, seconds
from benchmarks.operations import needed_flops
from benchmarks.stages import stages_of_call
from benchmarks.worker import read_rows
from ntk_lpft.kernel import syrk
from ntk_lpft.kernel.engine import compute_ntk  # all of it, so that no timing has imports in it

Result = dict[str, Any]


def stages(folder: str, head: str) -> Result:
    """Time the stages of one call in a fresh process, on the work of a folder, and count the operations it needs."""
    model, rows = minilm(2), read_rows(Path(folder))
    given = load_file(Path(folder) / "heads.safetensors")
    with torch.no_grad():
        model.classifier.weight.copy_(given[f"{head}.weight"])
        model.classifier.bias.copy_(given[f"{head}.bias"])
    taken = stages_of_call(lambda: compute_ntk(model, rows))
    return {"stages": taken, "flops": needed_flops(model, rows, "cpu"), "rate": product_rate()}


def cb_structured(budget: str = "4.5GiB") -> Result:
    """CB's 250 training samples, C = 3, all layers of MiniLM."""
    rows = cb_train()
    if rows is None:
        return {"skipped": "NTK_LPFT_DATA is not set"}
    model = minilm(3)
    before = product_rate()
    began = time.perf_counter()
    ntk = compute_ntk(model, rows, memory_budget=budget)
    taken = time.perf_counter() - began
    after = product_rate()
    peak = peak_bytes()
    flops = needed_flops(model, rows, "cpu")
    return {
        "seconds": taken,
        "peak": peak,
        "rates": [before, after],
        "flops": flops,
        "share": sum(flops.values()) / taken / ((before + after) / 2),
        "passes": ntk.metadata["plan"]["passes"],
        "budget": budget,
    }


def roberta_size() -> Result:
    """Measure a random model of roberta-base's size, N = 64, C = 2, T = 128, default budget."""
    model, rows = roberta_base_size(2), without_segments(text_of_length(64, 128))
    began = time.perf_counter()
    ntk = compute_ntk(model, rows)
    return {
        "seconds": time.perf_counter() - began,
        "peak": peak_bytes(),
        "predicted": ntk.metadata["plan"]["predicted_peak"],
        "budget": ntk.metadata["plan"]["budget"],
        "passes": ntk.metadata["plan"]["passes"],
    }


def many_classes() -> Result:
    """MiniLM with as many classes as Banking77 has, N = 16, T = 32: all blocks, their trace, the pseudo-kernel."""
    model, rows = minilm(77), text_of_length(16, 32)
    result: Result = {}
    for outputs in ("pseudo", "class_trace", "full"):
        began = time.perf_counter()
        ntk = compute_ntk(model, rows, outputs=outputs, groups=False)
        result[outputs] = {"seconds": time.perf_counter() - began, "error": ntk.metadata["self_check"]["error"]}
    return {**result, "peak": peak_bytes()}


def gpu(precision: str) -> Result:
    """Measure roberta-base's size on a GPU: N = 250, C = 3, T ≤ 128."""
    if not torch.cuda.is_available():
        return {"skipped": "no CUDA device"}
    rows = cb_train() or text_of_length(250, 128)
    model = roberta_base_size(3).to("cuda")
    rows = without_segments(rows)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    rate = product_rate("cuda", 8192)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.cuda.reset_peak_memory_stats()
    taken = seconds(lambda: compute_ntk(model, rows, precision=precision), repeats=2)
    flops = needed_flops(model, rows, "cuda")
    return {
        "seconds": taken,
        "peak": torch.cuda.max_memory_allocated(),
        "rates": [rate],
        "share": sum(flops.values()) / taken / rate,
        "flops": flops,
        "device": torch.cuda.get_device_name(),
    }


def forms() -> Result:
    """Compare the two ways to contract a layer, and the two ways to a symmetric product, as ratios of time."""
    from ntk_lpft.kernel.contract import Workspace, _contract_gram, _contract_materialised
    from ntk_lpft.kernel.gradients import OuterGradients
    from ntk_lpft.kernel.layout import Layout, _add_by_halves_

    result: Result = {}
    for positions in (1, 16, 64):
        n, k, width = 128, 2, 384
        record = [OuterGradients(0, torch.randn(n, positions, width), torch.randn(n, positions, k, width))]
        layout, space = Layout(n, 0, True, k), Workspace(128 * 2**20)
        out = layout.zeros(torch.float32, torch.device("cpu"))
        arguments = (out, layout, record, space)
        whole = seconds(partial(_contract_materialised, *arguments))
        gram = seconds(partial(_contract_gram, *arguments))
        result[f"gram / materialised, t = {positions}"] = gram / whole
    matrix, out = torch.randn(750, 16384), torch.zeros(750, 750)
    rate = 750 * 751 * 16384 / product_rate()
    result["symmetric update, share of product rate: BLAS"] = rate / seconds(lambda: syrk.add_upper_(out, matrix))
    result["symmetric update, share of product rate: halves"] = rate / seconds(
        lambda: _add_by_halves_(out, matrix, 0, 750)
    )
    return result


CASES: dict[str, Callable[[], Result]] = {
    "cb": cb_structured,
    "roberta": roberta_size,
    "large-decoder": large_decoder,
    "many-classes": many_classes,
    "forms": forms,
    "gpu-float32": lambda: gpu("float32"),
    "gpu-tf32": lambda: gpu("tf32"),
}

if __name__ == "__main__":
    name, *words = sys.argv[1:]
    print(json.dumps(stages(*words) if name == "stages" else CASES[name]()))
