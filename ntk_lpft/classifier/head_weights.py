"""V and b of a head: drawn anew, copied in, multiplied, measured."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.classifier.head import Head
from ntk_lpft.errors import InputError


def initialise_head(head: Head, seed: int, deviation: float = 0.02) -> None:
    """Draw V from N(0, deviation²), the same on every device, and set b to 0, as BERT-like models begin."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.module.weight.copy_(torch.randn(head.module.weight.shape, generator=generator, device="cpu") * deviation)
        if head.module.bias is not None:
            head.module.bias.zero_()


def set_head(head: Head, weight: Float[Tensor, "c h"], bias: Float[Tensor, " c"] | None) -> None:
    """Copy V and b into a classifier's head.

    Where the head has no bias and one is given, the bias is left out: its model cannot hold one.

    Args:
        head: The head, changed in place.
        weight: V.
        bias: b; None for zero.

    Raises:
        InputError: Another shape.
    """
    if weight.shape != head.module.weight.shape:
        raise InputError(
            f"a head of shape {tuple(weight.shape)} does not fit the model's {tuple(head.module.weight.shape)}"
        )
    with torch.no_grad():
        head.module.weight.copy_(weight)
        if head.module.bias is not None:
            head.module.bias.copy_(weight.new_zeros(len(weight)) if bias is None else bias)


def widen_head(head: Head) -> None:
    """Hold V and b in float32, at least, as what is trained should be."""
    for parameter in head.parameters:
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))


def scale_head(head: Head, factor: float, *, bias: bool = False) -> None:
    """Multiply V by α, and b too if asked for.

    Args:
        head: The head, changed in place.
        factor: α.
        bias: Whether b is multiplied too.

    Raises:
        InputError: α is not finite.
    """
    if not math.isfinite(factor):
        raise InputError(f"head scale {factor} is not a finite number")
    with torch.no_grad():
        head.module.weight.mul_(factor)
        if bias and head.module.bias is not None:
            head.module.bias.mul_(factor)


def head_norm(head: Head) -> float:
    """‖V‖_F, without b."""
    return float(head.module.weight.detach().double().norm())
