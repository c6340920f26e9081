"""Classifiers, samples and the dense Jacobians of single samples that the tests of predictions share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.zoo import ZOO, Row, ragged_rows
from ntk_lpft.classifier import LinearHeadClassifier


@dataclass(frozen=True)
class Case:
    """One classifier with samples: its own head, the paper's, or adapters.

    Attributes:
        model: In float64 and eval mode.
        head: Its head.
        decoder: Whether the head is applied at every position, of which the last counts.
        train: Training rows.
        labels: Their classes.
        evaluation: Other rows.
    """

    model: nn.Module
    head: nn.Linear
    decoder: bool
    train: list[Row]
    labels: Tensor
    evaluation: list[Row]

    @property
    def body(self) -> list[nn.Parameter]:
        """Trainable parameters in front of the head."""
        of_head = {id(parameter) for parameter in self.head.parameters()}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in of_head]


NAMES = ("bert", "gpt2", "roberta", "bert-lora", "linear head")


def case(name: str, *, train: int = 5, evaluation: int = 3, dtype: torch.dtype = torch.float64) -> Case:
    """Build one of `NAMES`, or another entry of the zoo that has its own head called ``classifier`` or ``score``."""
    entry = ZOO["bert" if name == "linear head" else name]
    model: nn.Module = entry.build(dtype=dtype)
    if name == "linear head":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = LinearHeadClassifier(model.base_model, 3, "mean").to(dtype).eval()
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 3 and m.weight.requires_grad]
    assert len(heads) == 1
    labels = torch.tensor([0, 2, 1, 2, 0])[:train]
    rows = ragged_rows(entry, n=train, seed=1), ragged_rows(entry, n=evaluation, seed=7)
    return Case(model, heads[0], name == "gpt2", rows[0], labels, rows[1])


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Hold attention to the one form that the library computes with."""
    before = model.config._attn_implementation
    model.config._attn_implementation = "sdpa"
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        model.config._attn_implementation = before


def single(case: Case, row: Row) -> tuple[Tensor, Tensor]:
    """Features (h,) and logits (C,) of one row alone, with their graph, as the head is seen to be given and to say."""
    seen: list[Tensor] = []
    hook = case.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        with plain_attention(case.model):
            logits = case.model(**{name: torch.tensor([values]) for name, values in row.items()}).logits[0]
    finally:
        hook.remove()
    return seen[0][0, -1] if case.decoder else seen[0][0], logits


def dense_jacobian(outputs: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Gradient of every output, one at a time: (outputs, all entries of the parameters)."""
    rows = []
    for output in outputs:
        gradients = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(gradients, parameters, strict=True)
        rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs]))
    return torch.stack(rows)


def copies(model: nn.Module) -> dict[str, Tensor]:
    """Values of all parameters and buffers."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def relative(value: Tensor, expected: Tensor) -> float:
    """‖value − expected‖ / ‖expected‖."""
    return float((value.detach() - expected.detach()).norm() / expected.detach().norm())
