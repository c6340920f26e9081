"""The kernel by the most naive code there is: one sample, one class, one backward pass at a time.

It shares nothing with the library, so the two can only agree by both being right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def _attention(model: nn.Module, form: str) -> Iterator[None]:
    """Run the model with one form of attention, then put back the one it had."""
    before = model.config._attn_implementation
    if before == form:
        # Some models have one form only and warn of being asked to change it, even to the one they have.
        yield
        return
    model.set_attn_implementation(form)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _logits(model: nn.Module, row: Mapping[str, Sequence[int]]) -> Tensor:
    """Logits of one row alone, without padding: shape (C,)."""
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode: dropout would make its kernel random")
    return model(**{key: torch.tensor([list(values)]) for key, values in row.items()}).logits[0]


def referee_logits(model: nn.Module, rows: Sequence[Mapping[str, Sequence[int]]], attention: str = "eager") -> Tensor:
    """Logits of rows, each computed alone.

    Args:
        model: A sequence classifier in evaluation mode.
        rows: Rows without padding.
        attention: Form of attention to compute with.

    Returns:
        Logits of shape (N, C).
    """
    with torch.no_grad(), _attention(model, attention):
        return torch.stack([_logits(model, row) for row in rows])


def referee_jacobian(
    model: nn.Module, rows: Sequence[Mapping[str, Sequence[int]]], attention: str = "eager"
) -> dict[str, Tensor]:
    """Jacobian of the logits of rows with respect to each trainable parameter.

    Args:
        model: A sequence classifier in evaluation mode.
        rows: Rows without padding.
        attention: Form of attention to compute with.

    Returns:
        For each parameter with `requires_grad`, under the name that `named_parameters` gives it (a tied one once), a
        tensor of shape (N, C, number of elements); zero where a logit does not depend on the parameter.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    jacobian: dict[str, list[list[Tensor]]] = {name: [] for name in trainable}
    with _attention(model, attention):
        for row in rows:
            for name in trainable:
                jacobian[name].append([])
            logits = _logits(model, row)
            for c in range(len(logits)):
                gradients = torch.autograd.grad(
                    logits[c], list(trainable.values()), retain_graph=True, allow_unused=True
                )
                for (name, parameter), gradient in zip(trainable.items(), gradients, strict=True):
                    if gradient is None:
                        gradient = torch.zeros_like(parameter)
                    jacobian[name][-1].append(gradient.flatten())
    return {name: torch.stack([torch.stack(classes) for classes in samples]) for name, samples in jacobian.items()}


def referee(
    model: nn.Module,
    rows: Sequence[Mapping[str, Sequence[int]]],
    other: Sequence[Mapping[str, Sequence[int]]] | None = None,
    attention: str = "eager",
) -> dict[str, Tensor]:
    """Empirical neural tangent kernel of the logits, one summand for each trainable parameter.

    Args:
        model: A sequence classifier in evaluation mode.
        rows: N rows without padding.
        other: M rows for the second argument of the kernel; the same rows if left out.
        attention: Form of attention to compute with.

    Returns:
        For each parameter with `requires_grad`, under the name that `named_parameters` gives it (a tied one once), a
        tensor K of shape (N, C, M, C): K[n, c, m, d] = ⟨∂f_c(x_n)/∂p, ∂f_d(x_m)/∂p⟩.
    """
    left = referee_jacobian(model, rows, attention)
    right = left if other is None else referee_jacobian(model, other, attention)
    return {name: torch.einsum("ncp,mdp->ncmd", left[name], right[name]) for name in left}
