"""Small classifiers whose layers rules could take for what they are not."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Embedding, dense layer, mean over the tokens, head; subclasses bend one step."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_labels=3, pad_token_id=0, _attn_implementation="eager")
        self.embed = nn.Embedding(9, 6)
        self.mix = self.make_mix()
        self.classifier = nn.Linear(5, 3)

    def make_mix(self) -> nn.Module:
        return nn.Linear(6, 5)

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.mix(hidden)

    def pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        weights = mask[:, :, None].to(hidden)
        return (hidden * weights).sum(1) / weights.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = torch.tanh(self.mixed(self.embed(input_ids)))
        return SimpleNamespace(logits=self.classifier(self.pooled(hidden, mask)))


class ScaledLinear(nn.Linear):
    def forward(self, value: Tensor) -> Tensor:
        return 3 * super().forward(value)


class OtherClass(Tiny):
    def make_mix(self) -> nn.Module:
        return ScaledLinear(6, 5)


class Hooked(Tiny):
    """A hook that scales the output stands before the library's own."""

    def make_mix(self) -> nn.Module:
        layer = nn.Linear(6, 5)
        layer.register_forward_hook(lambda module, args, output: 3 * output)
        return layer


class Transposed(Tiny):
    def mixed(self, hidden: Tensor) -> Tensor:
        return self.mix(hidden.transpose(0, 1)).transpose(0, 1)


class Raw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.empty(6, 5))

    def forward(self, value: Tensor) -> Tensor:
        return value @ self.matrix


class RawParameter(Tiny):
    def make_mix(self) -> nn.Module:
        return Raw()


class InPlace(Tiny):
    def mixed(self, hidden: Tensor) -> Tensor:
        return self.mix(hidden).mul_(3).add_(hidden[..., :5])


class UsedOutside(Tiny):
    def mixed(self, hidden: Tensor) -> Tensor:
        return self.mix(hidden) + torch.sin(hidden @ self.mix.weight.T)


class EmbeddingUsedOutside(Tiny):
    def mixed(self, hidden: Tensor) -> Tensor:
        return self.mix(hidden) + self.embed.weight.sum(0)[:5]


class GatedNorm(nn.Module):
    """A norm that cannot be called with one argument."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(5))

    def forward(self, value: Tensor, gate: Tensor) -> Tensor:
        return self.weight * nn.functional.layer_norm(value, (5,)) * torch.sigmoid(gate)


class WithGatedNorm(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.gated_norm = GatedNorm()

    def mixed(self, hidden: Tensor) -> Tensor:
        return self.gated_norm(self.mix(hidden), hidden[..., :5])


class PairNorm(nn.Module):
    """A norm that returns two tensors, as those fused with a residual connection do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(5))

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight * nn.functional.layer_norm(value, (5,)), value


class WithPairNorm(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.pair_norm = PairNorm()

    def mixed(self, hidden: Tensor) -> Tensor:
        return sum(self.pair_norm(self.mix(hidden)))


class FlatNorm(nn.Module):
    """A norm that takes pooled features alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(5))

    def forward(self, value: Tensor) -> Tensor:
        if value.dim() != 2:
            raise ValueError("expected samples × features")
        return self.weight * nn.functional.layer_norm(value, (5,))


class WithNormOfPooled(Tiny):
    """Features are normalised after pooling, by a module that subclasses choose."""

    def __init__(self) -> None:
        super().__init__()
        self.last = self.make_norm()

    def make_norm(self) -> nn.Module:
        return FlatNorm()

    def pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.last(super().pooled(hidden, mask))


class WithBatchNorm(WithNormOfPooled):
    def make_norm(self) -> nn.Module:
        return nn.BatchNorm1d(5)


class WithGroupNorm(WithNormOfPooled):
    def make_norm(self) -> nn.Module:
        return nn.GroupNorm(1, 5)


class SeesPadding(Tiny):
    def pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden.mean(1)


class Gathered(Tiny):
    """A layer that is given only the positions of one token, as a mixture of experts does.

    The longest and the shortest row do not hold that token.
    """

    TOKEN = 4
    always = False

    def __init__(self) -> None:
        super().__init__()
        self.expert = nn.Linear(6, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden, chosen = self.embed(input_ids), input_ids == self.TOKEN
        changed = hidden.clone()
        if self.always or chosen.any():
            changed[chosen] = hidden[chosen] + self.expert(hidden[chosen])
        return SimpleNamespace(logits=self.classifier(self.pooled(torch.tanh(self.mix(changed)), mask)))


class GatheredAlways(Gathered):
    """The same, called with no position at all where no token is chosen."""

    always = True


def build(kind: type[Tiny]) -> Tiny:
    model = kind().double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return model
