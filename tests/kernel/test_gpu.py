"""CUDA against the CPU."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import assert_identical, error, replanned
from helpers.zoo import ZOO, ragged_rows

from ntk_lpft.kernel import compute_ntk

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("outputs", ["full", "class_trace", "pseudo"])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float64", 1e-10), ("float32", 1e-4), ("tf32", 2e-2), ("bfloat16", 2e-2)]
)
@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta-v2"])
def test_cuda_agrees_with_the_cpu(name: str, precision: str, tolerance: float, outputs: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    exact = compute_ntk(model, rows, precision="float64", outputs=outputs)
    ntk = compute_ntk(model, rows, precision=precision, outputs=outputs, device="cuda")
    assert ntk.metadata["device"] == "cuda"
    assert ntk.metadata["device_name"] == torch.cuda.get_device_name()
    assert ntk.metadata["precision"] == precision
    assert not ntk.feature_kernel.is_cuda
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert error(ntk.ft_effective.double(), exact.ft_effective) <= tolerance
    assert error(ntk.feature_kernel.double(), exact.feature_kernel) <= tolerance
    assert error(ntk.row_logits.double(), exact.row_logits) <= tolerance


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_two_runs_on_cuda_give_the_same_bits(name: str) -> None:
    model, rows = ZOO[name].build(dtype=torch.float32).cuda(), ragged_rows(ZOO[name])
    assert_identical(compute_ntk(model, rows), compute_ntk(model, rows))


def test_two_runs_of_a_model_that_gathers_agree_to_rounding() -> None:
    """PyTorch adds gradients of ``gather``, of which DeBERTa's attention is made, on CUDA in no fixed order."""
    model, rows = ZOO["deberta-v2"].build(dtype=torch.float32).cuda(), ragged_rows(ZOO["deberta-v2"])
    one, two = compute_ntk(model, rows), compute_ntk(model, rows)
    assert torch.equal(one.feature_kernel, two.feature_kernel)
    assert error(one.ft_effective.double(), two.ft_effective.double()) < 1e-5


def test_tf32_is_used_only_where_it_is_asked_for() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    model, rows = ZOO["bert"].build().cuda(), ragged_rows(ZOO["bert"])
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        plain = compute_ntk(model, rows, precision="float32")
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    exact = compute_ntk(model, rows, precision="float64")
    assert error(plain.ft_effective.double(), exact.ft_effective) < 1e-4


def test_a_run_goes_on_where_the_gpus_memory_runs_out() -> None:
    """The plan allows one large batch; the process may only take the memory of a small one."""
    entry = ZOO["bert"]
    model, rows = entry.build().cuda(), ragged_rows(entry, n=7, max_len=20) * 60
    with replanned(max_cells=20):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        small = compute_ntk(model, rows, precision="float64", outputs="class_trace")
        allowed = 1.5 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    with replanned(max_cells=10**6):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        compute_ntk(model, rows, precision="float64", outputs="class_trace")
        wanted = torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
        assert wanted > allowed
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(allowed)
        try:
            ntk = compute_ntk(model, rows, precision="float64", outputs="class_trace", memory_budget="8GiB")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert error(ntk.ft_effective, small.ft_effective) < 1e-10
