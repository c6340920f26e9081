"""φ and f0 of all samples, seen in passing while the body's gradients are captured."""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class HeadObserver:
    """Notes what a head is given and what it returns, wherever it is called once for each sample.

    Heads that are called at every position (the decoders of transformers) tell nothing here: which of the positions
    counts is decided behind them.

    Args:
        head: The head.
        device: Where features and logits go; a model that is spread over devices has its head on another.
    """

    def __init__(self, head: nn.Linear, device: torch.device) -> None:
        self.head = head
        self.device = device
        self.features: list[Tensor] = []
        self.logits: list[Tensor] = []

    def installed(self) -> RemovableHandle:
        """Watch the head for as long as the context that is returned lasts."""
        return self.head.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
        value = args[0] if args else next(iter(kwargs.values()))
        if value.dim() == 2:
            self.features.append(value.detach().to(self.device, copy=True))
            self.logits.append(output.detach().to(self.device, copy=True))

    def result(self, samples: int) -> dict[str, Tensor]:
        """``features`` (S, h) and ``logits`` (S, C) if every one of the samples was seen, else nothing."""
        if sum(len(part) for part in self.features) != samples:
            return {}
        return {"features": torch.cat(self.features), "logits": torch.cat(self.logits)}
