"""What may stand around a classifier, and which arguments its ``forward`` hands on through it."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def without_runtime(model: nn.Module) -> nn.Module:
    """Take off what only says how a model is run: ``torch.compile`` and the data-parallel wrappers."""
    while True:
        compiled = model._modules.get("_orig_mod")
        if compiled is not None:
            model = compiled
        elif isinstance(model, _PARALLEL):
            model = model.module
        else:
            return model


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the classifier inside PEFT's, compiled and data-parallel wrappers, or the model itself."""
    model = without_runtime(model)
    getter: Any = getattr(model, "get_base_model", None)
    return model if getter is None else without_runtime(getter())


def innermost(model: nn.Module) -> nn.Module:
    """Return the classifier inside wrappers of any kind: modules that hand all they are given on to one of theirs."""
    module = unwrapped(model)
    while not (names := _own_names(module)) or "input_ids" not in names:
        inner = [child for child in module.children() if "input_ids" in (forward_names(child) or ())]
        if len(inner) != 1:
            break
        module = unwrapped(inner[0])
    return module


def config_of(model: nn.Module) -> Any:
    """Return the config of a model, or of the one inside it; None where neither has one."""
    own = getattr(model, "config", None)
    return getattr(innermost(model), "config", None) if own is None else own


def forward_names(model: nn.Module) -> set[str] | None:
    """Names of the arguments that a model's ``forward`` takes.

    Where it takes any (``**kwargs``), those of its modules that take tokens are among them, as it hands them on.

    Args:
        model: The model; wrappers are looked through.

    Returns:
        The names; None where it takes any, and no module of it says which.
    """
    module = unwrapped(model)
    names = _own_names(module)
    if not any(p.kind == inspect.Parameter.VAR_KEYWORD for p in _parameters(module)):
        return names
    handed_on = [inner for child in module.children() if "input_ids" in (inner := forward_names(child) or set())]
    return names.union(*handed_on) if handed_on or "input_ids" in names else None


def _own_names(module: nn.Module) -> set[str]:
    return {parameter.name for parameter in _parameters(module) if parameter.kind in _NAMED}


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # compiled by other means than Python's
        return []
