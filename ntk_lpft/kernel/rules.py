"""One rule for each kind of layer: from a module's inputs and output gradients to per-sample parameter gradients.

A new kind of layer is one new class with ``@register``. A rule need not be right for every module that it matches:
each parameter's rule is checked against plain autograd on the model at hand before it is used.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_lpft.kernel.gradients import (
    Active,
    DenseGradients,
    OuterGradients,
    SampleGradients,
    keep_active,
    sum_by_token,
)


@dataclass(frozen=True)
class LayerCalls:
    """What a module was called with, and the gradients with respect to what it returned.

    Attributes:
        inputs: What the module was called with; several calls stand one after the other along t.
        grads: Gradients of the k channels with respect to the module's outputs.
        start: Internal number of the first sample.
        dtype: What floating-point results are stored in.
        active: The positions with a gradient, where they are known.
    """

    inputs: Shaped[Tensor, "n t *i"]
    grads: Float[Tensor, "n t k o"]
    start: int
    dtype: torch.dtype
    active: Active | None = None


class Rule(ABC):
    """Per-sample gradients of the parameters that one kind of module owns."""

    @abstractmethod
    def matches(self, module: nn.Module) -> bool:
        """Whether the rule is meant for this module."""

    def drops_positions(self, parameter: str) -> bool:
        """Whether the gradients of a parameter, by its name in the module, are kept for active positions only."""
        return False

    @abstractmethod
    def record(self, module: nn.Module, parameter: str, calls: LayerCalls) -> SampleGradients:
        """Per-sample gradients of one parameter.

        Args:
            module: The module.
            parameter: The parameter's name in the module.
            calls: Its calls on some samples.

        Returns:
            The gradients, in the most compact form.
        """


RULES: list[Rule] = []


def register(rule: type[Rule]) -> type[Rule]:
    """Class decorator that adds a rule; later rules are asked first."""
    RULES.insert(0, rule())
    return rule


def find_rule(module: nn.Module) -> Rule | None:
    """Return the rule for a module, or None where no rule is known."""
    return next((rule for rule in RULES if rule.matches(module)), None)


# They normalise over samples, positions or groups of channels, and so cannot be called on single positions.
_NORMS_OF_OTHER_AXES = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


@register
class DenseLayer(Rule):
    """``nn.Linear`` and Hugging Face's ``Conv1D``: y = W a + b, so ∂W = Σ_t g_t a_tᵀ and ∂b = Σ_t g_t.

    ``Conv1D`` stores W transposed, which changes no inner product. LoRA's adapters are two such layers.
    """

    def matches(self, module: nn.Module) -> bool:
        """Linear layers whose class keeps the plain forward pass, of a weight and at most a bias."""
        plain = any(isinstance(module, kind) and type(module).forward is kind.forward for kind in (nn.Linear, Conv1D))
        return plain and {name for name, _ in module.named_parameters(recurse=False)} <= {"weight", "bias"}

    def drops_positions(self, parameter: str) -> bool:
        """Those of the weight are."""
        return parameter != "bias"

    def record(self, module: nn.Module, parameter: str, calls: LayerCalls) -> SampleGradients:
        """Outer-product factors of the weight, or the bias's gradient."""
        if parameter == "bias":
            return DenseGradients(calls.start, calls.grads.sum(dim=1).to(calls.dtype))
        inputs, grads = keep_active(calls.inputs, calls.grads, calls.active)
        return OuterGradients(calls.start, inputs.to(calls.dtype), grads.to(calls.dtype))


@register
class Norm(Rule):
    """Layers y = x̂ ⊙ w + b or x̂ ⊙ (1 + w): LayerNorm and the many RMSNorms, so ∂w = Σ_t g_t ⊙ x̂_t and ∂b = Σ_t g_t.

    x̂ is taken from the module itself as (y(w = 1) − y(w = −1)) / 2 at b = 0, which rounds nothing in either form, so
    that its epsilon, its dtype and where it puts the one need not be known.
    """

    def matches(self, module: nn.Module) -> bool:
        """Modules called norms of the last axis that own one weight vector, and at most a bias of its size."""
        if isinstance(module, _NORMS_OF_OTHER_AXES):
            return False
        own = dict(module.named_parameters(recurse=False))
        weight = own.get("weight")
        return (
            "norm" in type(module).__name__.lower()
            and weight is not None
            and weight.dim() == 1
            and set(own) <= {"weight", "bias"}
            and all(p.shape == weight.shape for p in own.values())
        )

    def record(self, module: nn.Module, parameter: str, calls: LayerCalls) -> SampleGradients:
        """Gradient of the scale or of the shift."""
        if parameter == "bias":
            return DenseGradients(calls.start, calls.grads.sum(dim=1).to(calls.dtype))
        own = {name: torch.zeros_like(p) for name, p in module.named_parameters(recurse=False)}
        one = torch.ones_like(own["weight"])
        with torch.no_grad():
            plus, minus = (
                torch.func.functional_call(module, own | {"weight": weight}, (calls.inputs.to(one.device),))
                for weight in (one, -one)
            )
        normalised = ((plus - minus) / 2).to(calls.grads)
        scale = torch.einsum("ntko,nto->nko", calls.grads, normalised)
        return DenseGradients(calls.start, scale.to(calls.dtype))


@register
class EmbeddingTable(Rule):
    """``nn.Embedding``: the gradient of row v is Σ_t [id_t = v] g_t; the padding row gets none.

    Subclasses that multiply what they look up by a constant ``embed_scale`` are included.
    """

    def matches(self, module: nn.Module) -> bool:
        """Embeddings, save for options that change the gradient."""
        return isinstance(module, nn.Embedding) and not module.scale_grad_by_freq and module.max_norm is None

    def record(self, module: nn.Module, parameter: str, calls: LayerCalls) -> SampleGradients:
        """One vector for each distinct token of a sample."""
        assert isinstance(module, nn.Embedding)
        scale = getattr(module, "embed_scale", 1.0)
        table, padding = module.num_embeddings, module.padding_idx
        return sum_by_token(calls.start, calls.inputs, calls.grads * scale, table, padding, calls.dtype)
