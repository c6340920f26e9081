"""LoRA at initialisation (Tomihari and Sato, NeurIPS 2024, the proposition on LoRA).

With W = W₀ + (α/r) B A, entries of A independent with variance σ², and B = 0, the kernel of the adapters has the mean
(α/r)² σ² r F_FT, F_FT restricted to the adapted weights. (The proposition's printed bound drops σ² r, with which its
proof ends, and has α = r.)
"""

from __future__ import annotations

import peft
import pytest
import torch
from helpers.agreement import error
from helpers.zoo import HIDDEN, ZOO, ragged_rows
from torch import Tensor, nn

from ntk_lpft.kernel import compute_ntk

pytestmark = pytest.mark.slow

ENTRY = ZOO["bert"]
ROWS = ragged_rows(ENTRY, n=3)
TARGETS = ["query", "value"]
DRAWS, BLOCK = 48, 6


def adapted(rank: int, alpha: float, distribution: bool | str) -> nn.Module:
    """Return the classifier with adapters alone trainable."""
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=TARGETS, lora_dropout=0.0, init_lora_weights=distribution
    )
    return peft.get_peft_model(ENTRY.build(), config).double().eval()


def redraw(model: nn.Module, distribution: bool | str, seed: int) -> None:
    """Give the adapters peft's own initial values: A random, B = 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.Linear):
                module.reset_lora_parameters("default", distribution)


def kernel(model: nn.Module) -> Tensor:
    return compute_ntk(model, ROWS, precision="float64", groups=False).ft_effective


@pytest.fixture(scope="module")
def full_fine_tuning() -> Tensor:
    """F of the weights that LoRA adapts, without their biases."""
    model = ENTRY.build()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(tuple(f"{target}.weight" for target in TARGETS)))
    return kernel(model)


@pytest.mark.parametrize(
    ("rank", "alpha", "distribution"),
    [(8, 8, True), (2, 8, True), (4, 3, "gaussian")],
    ids=["paper", "r=2", "gaussian"],
)
def test_the_kernel_of_lora_is_that_of_fine_tuning_in_the_mean(
    rank: int, alpha: float, distribution: bool | str, full_fine_tuning: Tensor
) -> None:
    # Kaiming's uniform distribution as peft calls it, on (−1/√d, 1/√d); peft's Gaussian has standard deviation 1/r.
    variance = 1 / (3 * HIDDEN) if distribution is True else 1 / rank**2
    expected = (alpha / rank) ** 2 * variance * rank * full_fine_tuning
    model, kernels = adapted(rank, alpha, distribution), []
    for seed in range(DRAWS):
        redraw(model, distribution, seed)
        kernels.append(kernel(model))
    draws = torch.stack(kernels)
    single, block, whole = (
        float(torch.tensor([error(part.mean(0), expected) for part in draws.split(size)]).square().mean().sqrt())
        for size in (1, BLOCK, DRAWS)
    )
    # Far from zero for one draw, and smaller for a mean by the square root of the number of draws. Few directions
    # carry the kernel, so that errors vary much themselves.
    assert single > 0.3 / rank**0.5
    assert 0.6 < single / block / BLOCK**0.5 < 1.7
    assert whole < 4 * single / DRAWS**0.5


def test_the_gradient_of_a_vanishes_where_b_is_zero() -> None:
    model = adapted(4, 8, True)
    redraw(model, True, 0)
    whole = kernel(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_A" in name)
    assert not kernel(model).any()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    assert error(kernel(model), whole) < 1e-12
    assert whole.norm() > 0


def test_p_is_that_of_fine_tuning() -> None:
    model = adapted(4, 8, True)
    redraw(model, True, 0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or ".classifier." in name)
    ntk = compute_ntk(model, ROWS, precision="float64")
    plain = compute_ntk(ENTRY.build(), ROWS, precision="float64")
    assert error(ntk.feature_kernel, plain.feature_kernel) < 1e-12
    assert torch.allclose(ntk.row_logits, plain.row_logits, rtol=0, atol=1e-12)
