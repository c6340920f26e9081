"""Layers that the rules must get right, and layers that resemble them and must have no rule.

One line in ``RULE_CASES`` gives a new rule, or a new layer of a known rule, the whole battery of
``tests/kernel/test_rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Shaped
from torch import Generator, Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D

from helpers.zoo import widened
from ntk_lpft.kernel.rules import DenseLayer, EmbeddingTable, Norm, Rule

Inputs = Callable[[Generator, int, int], Shaped[Tensor, "n t *i"]]


@dataclass(frozen=True)
class RuleCase:
    """A layer and the rule that it must have.

    Attributes:
        name: Unique, good as a test's id.
        make: Makes the module; its parameters are then filled with random numbers.
        inputs: Draws what the module is called with, from a generator, n and t.
        rule: The class of the rule.
        transposed: Whether the module stores the matrix Σ_t g_t a_tᵀ with its input features first.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Inputs = field(repr=False)
    rule: type[Rule]
    transposed: bool = False

    def build(self) -> nn.Module:
        """Make the module in eval mode, with equal random numbers in every run, none of them 0 or 1.

        Its forward pass is in float64 throughout, also where the layer insists on float32.
        """
        generator = Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            module = self.make().double().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter, mean=0.3, generator=generator)
        # Around the forward pass alone, so that a rule that rounds to float32 itself is not spared the comparison.
        module.forward = widened()(module.forward)
        return module


def vectors(size: int) -> Inputs:
    """Return a function that draws normal numbers, (n, t, size)."""
    return lambda generator, n, t: torch.randn(n, t, size, generator=generator, dtype=torch.float64)


def tokens(vocabulary: int) -> Inputs:
    """Return a function that draws token ids, (n, t), of which many come more than once."""
    return lambda generator, n, t: torch.randint(vocabulary, (n, t), generator=generator)


def with_and_without_bias(
    name: str, make: Callable[..., nn.Module], inputs: Inputs, rule: type[Rule]
) -> Iterator[RuleCase]:
    """Yield two cases of a module that takes ``bias``."""
    yield RuleCase(name, partial(make, bias=True), inputs, rule)
    yield RuleCase(f"{name} without bias", partial(make, bias=False), inputs, rule)


class ScaledEmbedding(nn.Embedding):
    embed_scale = 4.5

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.embed_scale


class ExponentialLinear(nn.Linear):
    def forward(self, value: Tensor) -> Tensor:
        return super().forward(value).exp()


class NormWithTemperature(nn.LayerNorm):
    def __init__(self) -> None:
        super().__init__(5)
        self.temperature = nn.Parameter(torch.ones(1))


class NormWithMatrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(5))


RULE_CASES = [
    *with_and_without_bias("linear", partial(nn.Linear, 5, 7), vectors(5), DenseLayer),
    *with_and_without_bias("square linear", partial(nn.Linear, 5, 5), vectors(5), DenseLayer),
    *with_and_without_bias("linear with one output", partial(nn.Linear, 5, 1), vectors(5), DenseLayer),
    RuleCase("Conv1D", lambda: Conv1D(7, 5), vectors(5), DenseLayer, transposed=True),
    RuleCase("square Conv1D", lambda: Conv1D(5, 5), vectors(5), DenseLayer, transposed=True),
    *with_and_without_bias("layer norm", partial(nn.LayerNorm, 5), vectors(5), Norm),
    RuleCase("layer norm with a large epsilon", lambda: nn.LayerNorm(5, eps=0.7), vectors(5), Norm),
    RuleCase("RMSNorm of torch", lambda: nn.RMSNorm(5), vectors(5), Norm),
    RuleCase("RMSNorm of Llama", lambda: LlamaRMSNorm(5), vectors(5), Norm),
    RuleCase("RMSNorm of Gemma, 1 + w", lambda: Gemma2RMSNorm(5), vectors(5), Norm),
    RuleCase("RMSNorm of T5", lambda: T5LayerNorm(5), vectors(5), Norm),
    RuleCase("embedding", lambda: nn.Embedding(6, 5), tokens(6), EmbeddingTable),
    RuleCase("embedding with a padding row", lambda: nn.Embedding(6, 5, padding_idx=2), tokens(6), EmbeddingTable),
    RuleCase("embedding padded with its last row", lambda: nn.Embedding(6, 5, -1), tokens(6), EmbeddingTable),
    RuleCase("embedding of few used rows", lambda: nn.Embedding(40, 3), tokens(3), EmbeddingTable),
    RuleCase("scaled embedding", lambda: ScaledEmbedding(6, 5), tokens(6), EmbeddingTable),
]


class LinearWithGain(nn.Linear):
    """Plain in its forward pass, with a parameter besides, as reparametrised layers have."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.gain = nn.Parameter(torch.ones(4))


class DoubledConv1D(Conv1D):
    """Stored as Conv1D, with another forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Twice the layer."""
        return 2 * super().forward(x)


LOOK_ALIKES: dict[str, Callable[[], nn.Module]] = {
    "linear with another forward pass": lambda: ExponentialLinear(3, 4),
    "bilinear": lambda: nn.Bilinear(2, 3, 4),
    "convolution": lambda: nn.Conv1d(3, 4, 2),
    "embedding scaled by frequency": lambda: nn.Embedding(5, 4, scale_grad_by_freq=True),
    "embedding with a largest norm": lambda: nn.Embedding(5, 4, max_norm=1.0),
    "scaled embedding with a largest norm": lambda: ScaledEmbedding(5, 4, max_norm=1.0),
    "embedding bag": lambda: nn.EmbeddingBag(5, 4),
    "norm with one more parameter": NormWithTemperature,
    "norm with a matrix": NormWithMatrix,
    "norm over two dimensions": lambda: nn.LayerNorm((4, 5)),
    "norm without parameters": lambda: nn.LayerNorm(5, elementwise_affine=False),
    "norm over a batch": lambda: nn.BatchNorm1d(4),
    "norm over groups": lambda: nn.GroupNorm(2, 4),
    "norm over positions": lambda: nn.InstanceNorm1d(4, affine=True),
    "linear with one more parameter": LinearWithGain,
    "stored transposed with another forward pass": lambda: DoubledConv1D(3, 4),
    "dropout": lambda: nn.Dropout(0.1),
}
