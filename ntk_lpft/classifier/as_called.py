"""The model as its user calls it, beside the model as it is run here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ntk_lpft.classifier.head import logits_of
from ntk_lpft.classifier.rows import Row, collate
from ntk_lpft.errors import InputError

_HALF = (torch.bfloat16, torch.float16)


class Casts(TorchDispatchMode):
    """Notices floating-point values being cast to narrower types.

    Attributes:
        seen: Pairs of dtypes, from and to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.dtype, torch.dtype]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].is_floating_point() and result.is_floating_point():
            before, after = args[0].dtype, result.dtype
            if torch.finfo(after).eps > torch.finfo(before).eps:
                self.seen.add((before, after))
        return result


def check_as_called(model: nn.Module, module: nn.Module, row: Row, whole: Row, what: str, device: torch.device) -> None:
    """Refuse a model that computes something else when it is called with all that a row says of its tokens.

    A ``forward`` that takes any argument may use one that no signature names; a hook or a wrapper may change what the
    model inside returns; a model may round to a half-precision type inside.

    Args:
        model: The classifier as it was given, opened.
        module: The same without the wrappers that are taken off.
        row: The first row, as `to_rows` makes it for the module.
        whole: The same with all that it says of each token.
        what: How messages name the inputs.
        device: Where the model is given its inputs.

    Raises:
        InputError: Other logits, or casts to bfloat16 or float16 inside.
    """
    with torch.no_grad():
        here = logits_of(module, collate([row], 0, device).tensors)
        with Casts() as casts:
            called = _called(model, row, whole, device)
    half = sorted(str(after).removeprefix("torch.") for _, after in casts.seen if after in _HALF)
    if half:
        raise InputError(
            f"the model rounds to {half[0]} inside its forward (an autocast there?), so that nothing after it is more "
            "precise; take that out of the model"
        )
    size = float(here.nan_to_num(0.0, 0.0, 0.0).abs().max()) + 1e-30
    if torch.allclose(called, here, rtol=1e-3, atol=1e-4 * size, equal_nan=True):
        return
    unnamed = sorted(whole.keys() - row.keys())
    if unnamed:
        raise InputError(
            f"{what}: the model's logits depend on {', '.join(unnamed)}, which its forward takes as **kwargs while no "
            "signature in it names them; name them in forward, or leave them out"
        )
    raise InputError(
        f"the model gives other logits through its wrapper {type(model).__name__} than inside it; give the model inside"
    )


def _called(model: nn.Module, row: Row, whole: Row, device: torch.device) -> Tensor:
    try:
        return logits_of(model, collate([whole], 0, device).tensors)
    except (TypeError, ValueError):
        if whole.keys() == row.keys():
            raise
        # It takes no such argument, so that nobody calls it with it.
        return logits_of(model, collate([row], 0, device).tensors)
