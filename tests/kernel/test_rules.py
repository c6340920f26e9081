"""Each rule against autograd, on one module at a time, called once or several times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D
from zoo import widened

from ntk_lpft.kernel.records import DenseRecord, OuterRecord, Record
from ntk_lpft.kernel.rules import RULES, DenseLayer, EmbeddingTable, Norm, Rule, find_rule, register

SAMPLES, POSITIONS, CHANNELS = 3, 4, 2

DENSE = {
    "linear": lambda: nn.Linear(5, 7),
    "linear without bias": lambda: nn.Linear(5, 7, bias=False),
    "square linear": lambda: nn.Linear(5, 5),
    "Conv1D": lambda: Conv1D(7, 5),
    "square Conv1D": lambda: Conv1D(5, 5),
}
NORMS = {
    "layer norm": lambda: nn.LayerNorm(5),
    "layer norm with a large epsilon": lambda: nn.LayerNorm(5, eps=0.7),
    "layer norm without bias": lambda: nn.LayerNorm(5, bias=False),
    "RMSNorm of torch": lambda: nn.RMSNorm(5),
    "RMSNorm of Llama": lambda: LlamaRMSNorm(5),
    "RMSNorm of Gemma, 1 + w": lambda: Gemma2RMSNorm(5),
    "RMSNorm of T5": lambda: T5LayerNorm(5),
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Equal values in every run, and the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def random(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.3)
    return module.double()


def dense_gradients(record: Record, module: nn.Module, shape: torch.Size) -> Tensor:
    """(n, k, *shape) from any form of record, by plain sums."""
    if isinstance(record, DenseRecord):
        return record.jacobian.reshape(SAMPLES, CHANNELS, *shape)
    if isinstance(record, OuterRecord):
        gradients = torch.einsum("ntko,nti->nkoi", record.grads, record.inputs)
        return gradients.transpose(2, 3) if isinstance(module, Conv1D) else gradients
    gradients = torch.zeros(SAMPLES, CHANNELS, *shape, dtype=torch.float64)
    for owner, token, value in zip(record.owners, record.tokens, record.values, strict=True):
        gradients[owner, :, token] = value
    return gradients


def assert_rule(module: nn.Module, inputs: Tensor, *, start: int = 0) -> None:
    """Compare every parameter's per-sample gradients with autograd's, for random gradients of the output."""
    rule = find_rule(module)
    outputs = module(inputs[:1]).shape[-1]
    grads = torch.randn(SAMPLES, POSITIONS, CHANNELS, outputs, dtype=torch.float64)
    grads[1, 2:] = 0
    for name, parameter in module.named_parameters():
        expected = torch.stack(
            [
                torch.stack(
                    [
                        torch.autograd.grad((module(inputs[n][None])[0] * grads[n, :, k]).sum(), parameter)[0]
                        for k in range(CHANNELS)
                    ]
                )
                for n in range(SAMPLES)
            ]
        )
        record = rule.record(module, name, inputs, grads, start, torch.float64)
        found = dense_gradients(record, module, parameter.shape)
        assert torch.allclose(found, expected, rtol=0, atol=1e-12), name
        assert expected.any()


@pytest.mark.parametrize("kind", DENSE)
def test_dense_layers(kind: str) -> None:
    module = random(DENSE[kind]())
    assert isinstance(find_rule(module), DenseLayer)
    assert_rule(module, torch.randn(SAMPLES, POSITIONS, 5, dtype=torch.float64))


@pytest.mark.parametrize("kind", NORMS)
def test_norms(kind: str) -> None:
    module = random(NORMS[kind]())
    assert isinstance(find_rule(module), Norm)
    with widened():
        assert_rule(module, torch.randn(SAMPLES, POSITIONS, 5, dtype=torch.float64))


def test_a_norms_weight_may_be_zero_and_is_left_alone() -> None:
    module = nn.LayerNorm(5).double()
    with torch.no_grad():
        module.weight[1] = 0
        module.bias.fill_(1e9)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    assert_rule(module, torch.randn(SAMPLES, POSITIONS, 5, dtype=torch.float64))
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_embeddings(padding_idx: int | None) -> None:
    module = random(nn.Embedding(6, 5, padding_idx=padding_idx))
    assert isinstance(find_rule(module), EmbeddingTable)
    assert_rule(module, torch.tensor([[1, 2, 1, 5], [2, 2, 0, 2], [3, 1, 4, 1]]))


class Scaled(nn.Embedding):
    embed_scale = 4.5

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.embed_scale


def test_scaled_embeddings() -> None:
    assert_rule(random(Scaled(6, 5)), torch.tensor([[1, 2, 1, 5], [2, 2, 0, 2], [3, 1, 4, 1]]))


class OtherForward(nn.Linear):
    def forward(self, value: Tensor) -> Tensor:
        return super().forward(value).exp()


class NormWithMore(nn.LayerNorm):
    def __init__(self) -> None:
        super().__init__(5)
        self.temperature = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv1d(3, 4, 2),
        nn.Bilinear(2, 3, 4),
        OtherForward(3, 4),
        nn.Embedding(5, 4, scale_grad_by_freq=True),
        nn.Embedding(5, 4, max_norm=1.0),
        NormWithMore(),
        nn.LayerNorm((4, 5)),
        nn.LayerNorm(5, elementwise_affine=False),
        nn.Dropout(0.1),
    ],
    ids=lambda module: type(module).__name__,
)
def test_other_modules_have_no_rule(module: nn.Module) -> None:
    assert find_rule(module) is None


def test_later_rules_are_asked_first() -> None:
    before = list(RULES)
    try:

        @register
        class Everything(Rule):
            def matches(self, module: nn.Module) -> bool:
                return True

            def record(self, module, parameter, inputs, grads, start, dtype):
                raise NotImplementedError

        assert isinstance(find_rule(nn.Linear(2, 2)), Everything)
    finally:
        RULES[:] = before
    assert isinstance(find_rule(nn.Linear(2, 2)), DenseLayer)
