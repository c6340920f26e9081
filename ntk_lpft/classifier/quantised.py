"""Layers whose weights bitsandbytes has quantised to 8 or 4 bits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntk_lpft.errors import InputError

_KINDS = ("Linear4bit", "Linear8bitLt")


def is_quantised(module: nn.Module) -> bool:
    """Whether a module is a dense layer of bitsandbytes with quantised weights."""
    names = {each.__name__ for each in type(module).__mro__ if each.__module__.partition(".")[0] == "bitsandbytes"}
    if not names & {*_KINDS}:
        return False
    weight = module._parameters.get("weight")
    return weight is not None and (weight.dtype == torch.int8 or getattr(weight, "quant_state", None) is not None)


def dequantiser(module: Any) -> Callable[[], Tensor]:
    """Return what makes the weight that a quantised layer stands for, (out, in).

    4 bits: what bitsandbytes itself dequantises it to. 8 bits: entries times their row's greatest magnitude over 127.

    Args:
        module: The layer.

    Returns:
        A function without arguments.
    """
    if module._parameters["weight"].dtype == torch.int8:
        return lambda: _from_8_bits(module)
    return lambda: _from_4_bits(module._parameters["weight"])


def dense_size(module: Any) -> int:
    """Count the entries of the weight that a quantised layer stands for."""
    return int(module.in_features * module.out_features)


def scales(module: Any) -> dict[str, Tensor]:
    """Return the numbers that a quantised layer's weight is scaled by, by name.

    Args:
        module: The layer.

    Returns:
        Of 8 bits one for each row, of 4 bits one for each block, which may be quantised in their turn.
    """
    weight = module._parameters["weight"]
    if weight.dtype == torch.int8:
        return {"SCB": _row_scales(module)}
    found: dict[str, Any] = {}
    state, prefix = weight.quant_state, ""
    while state is not None:
        found |= {f"{prefix}{name}": getattr(state, name, None) for name in ("absmax", "code", "offset")}
        state, prefix = getattr(state, "state2", None), f"{prefix}state2."
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _row_scales(module: Any) -> Tensor:
    state = module.state
    return module._parameters["weight"].SCB if state.SCB is None else state.SCB


def _from_4_bits(weight: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit  # type: ignore[import-not-found]

    if getattr(weight.quant_state, "packing_format_for_cpu", False):
        raise InputError(
            "the model's 4-bit weights have been rearranged for fast inference on this CPU; load the model again, and "
            "compute its kernel before it is run"
        )
    return dequantize_4bit(weight.data, weight.quant_state)


def _from_8_bits(module: Any) -> Tensor:
    return module._parameters["weight"].data.float() * (_row_scales(module).float() / 127.0)[:, None]
