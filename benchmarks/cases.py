"""The measurements, each run in a process of its own so that peak memory is its own."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inputs import cb_train, minilm, roberta_base_size, text_of_length, without_segments
from benchmarks.large_decoder import large_decoder
from benchmarks.peers import dense_jacobian_kernel, published_seconds_per_sample
from ntk_lpft.kernel import syrk
from ntk_lpft.kernel.capture import capture
from ntk_lpft.kernel.cost import measure_costs
from ntk_lpft.kernel.engine import compute_ntk  # all of it, so that no timing has imports in it
from ntk_lpft.kernel.selfcheck import run_self_check
from ntk_lpft.kernel.setup import open_setup

Result = dict[str, Any]


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Median time of a call, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        _synchronise()
        began = time.perf_counter()
        work()
        _synchronise()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def product_rate(device: str = "cpu", size: int = 2048) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    matrix = torch.randn(size, size, device=device)
    return 2 * size**3 / seconds(lambda: matrix @ matrix, repeats=9)


def structured_small() -> Result:
    """MiniLM, N = 32, T = 64, C = 2, by the structured engine."""
    model, rows = minilm(2), text_of_length(32, 64)
    base = peak_bytes()
    taken = seconds(lambda: compute_ntk(model, rows), repeats=3)
    return {"seconds": taken, "peak": peak_bytes(), "base": base}


def dense_small() -> Result:
    """Compute the same kernel by the dense Jacobian."""
    model, rows = minilm(2), text_of_length(32, 64)
    base = peak_bytes()
    began = time.perf_counter()
    kernel = dense_jacobian_kernel(model, rows)
    taken = time.perf_counter() - began
    peak = peak_bytes()
    structured = compute_ntk(model, rows).total
    error = float((structured - kernel).norm() / kernel.norm())
    return {"seconds": taken, "peak": peak, "base": base, "error": error}


def published_small() -> Result:
    """One sample of T = 64 by the published algorithm, C = 2."""
    return {"seconds_per_sample": published_seconds_per_sample(minilm(2), text_of_length(1, 64)[0], features=3)}


def needed_flops(model: torch.nn.Module, rows: list, device: str) -> dict[str, float]:
    """Floating-point operations that the algorithm needs: one capture, and the contraction without redundant halves."""
    with open_setup(model, rows, precision="float32", device=device) as setup:
        run_self_check(setup, 1 << 30)
        counted = cells = 0
        for number, batch in enumerate(setup.batches(2048)):
            if number % 4 == 0:
                with FlopCounterMode(display=False) as counter:
                    capture(model, setup.parameters, batch, setup.seeds, torch.float32)
                counted += counter.get_total_flops()
                cells += int(batch.tensors["attention_mask"].sum())
        tokens = sum(len(row["input_ids"]) for row in setup.rows)
        contraction = sum(cost.flops for cost in measure_costs(setup))
        return {"capture": counted / cells * tokens, "contraction": contraction}


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
    "structured": structured_small,
    "dense": dense_small,
    "published": published_small,
    "cb": cb_structured,
    "roberta": roberta_size,
    "large-decoder": large_decoder,
    "many-classes": many_classes,
    "forms": forms,
    "gpu-float32": lambda: gpu("float32"),
    "gpu-tf32": lambda: gpu("tf32"),
}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]]()))
