"""V and b of a head: drawn anew, copied in, multiplied, measured."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ntk_lpft.classifier import Head, head_norm, scale_head, set_head
from ntk_lpft.classifier.head_weights import initialise_head
from ntk_lpft.errors import InputError


def test_drawing_a_head() -> None:
    def drawn(seed: int, deviation: float = 0.02, dtype: torch.dtype = torch.float32) -> nn.Linear:
        layer = nn.Linear(400, 50).to(dtype)
        state = torch.get_rng_state()
        initialise_head(Head("x", layer), seed, deviation)
        assert torch.equal(torch.get_rng_state(), state)
        return layer

    layer = drawn(7)
    assert not layer.bias.any()
    assert torch.equal(layer.weight, drawn(7).weight)
    assert torch.equal(drawn(7, dtype=torch.float64).weight.float(), layer.weight)
    assert not torch.equal(layer.weight, drawn(8).weight)
    torch.testing.assert_close(drawn(7, 0.04).weight, 2 * layer.weight)
    # Five standard errors of 20 000 draws.
    weight = layer.weight.detach().double()
    assert abs(float(weight.mean())) < 5 * 0.02 / math.sqrt(weight.numel())
    assert float(weight.std()) == pytest.approx(0.02, rel=5 / math.sqrt(2 * weight.numel()))
    bare = nn.Linear(400, 50, bias=False)
    initialise_head(Head("x", bare), 7)
    assert torch.equal(bare.weight, layer.weight)


def test_the_norm_of_a_head_leaves_its_bias_out() -> None:
    layer = nn.Linear(2, 2)
    set_head(Head("x", layer), torch.tensor([[3.0, 0.0], [0.0, -4.0]]), torch.tensor([100.0, 200.0]))
    assert head_norm(Head("x", layer)) == 5


def test_setting_a_head() -> None:
    weight, bias = torch.arange(6.0).reshape(2, 3), torch.tensor([7.0, 8.0])
    layer = nn.Linear(3, 2)
    parameter = layer.weight
    set_head(Head("x", layer), weight.double(), bias.double())
    assert layer.weight is parameter
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.bias, bias)
    set_head(Head("x", layer), weight, None)
    assert not layer.bias.any()
    bare = nn.Linear(3, 2, bias=False)
    set_head(Head("x", bare), weight, bias)
    assert torch.equal(bare.weight, weight)
    with pytest.raises(InputError, match=r"shape \(3, 2\) does not fit the model's \(2, 3\)"):
        set_head(Head("x", layer), weight.T, torch.ones(3))
    assert torch.equal(layer.weight, weight)


def test_scaling_a_head() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    scale_head(Head("x", layer), -4.0)
    assert torch.equal(layer.weight, -4 * weight)
    assert torch.equal(layer.bias, bias)
    scale_head(Head("x", layer), 0.5, bias=True)
    assert torch.equal(layer.weight, -2 * weight)
    assert torch.equal(layer.bias, bias / 2)
    for factor in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="is not a finite number"):
            scale_head(Head("x", layer), factor)
