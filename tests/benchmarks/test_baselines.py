"""What the engine is measured against computes the same kernel, on rows of several lengths."""

from __future__ import annotations

import pytest
import torch
from helpers.linear_heads import linear_head
from helpers.referee import referee
from helpers.zoo import ZOO, Row, ragged_rows
from torch import nn

from benchmarks.dense import dense_jacobian_kernel
from benchmarks.peers.vector_products import vector_product_kernel


@pytest.fixture(scope="module")
def ragged() -> list[Row]:
    return [
        {name: values for name, values in row.items() if name != "attention_mask"} for row in ragged_rows(ZOO["bert"])
    ]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return linear_head("bert", "first")


@pytest.fixture(scope="module")
def reference(model: nn.Module, ragged: list[Row]) -> torch.Tensor:
    return sum(referee(model, ragged, attention=model.config._attn_implementation).values(), torch.zeros(()))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_dense_kernel(model: nn.Module, ragged: list[Row], reference: torch.Tensor, chunk: int) -> None:
    kernel = dense_jacobian_kernel(model, ragged, chunk)
    assert float((kernel - reference).norm() / reference.norm()) < 1e-12


# torch scripts decompositions when forward-mode derivatives are first used.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_vector_products(model: nn.Module, ragged: list[Row], reference: torch.Tensor) -> None:
    kernel = vector_product_kernel(model, ragged)
    assert float((kernel - reference).norm() / reference.norm()) < 1e-12


def test_other_poolings_are_refused() -> None:
    with pytest.raises(ValueError, match="mean"):
        dense_jacobian_kernel(linear_head("bert", "mean"), [], 1)
