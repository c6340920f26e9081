"""What public functions are given from Python: numpy arrays for tensors, and one line for what is of another kind."""

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from ntk_lpft.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool, np.bool_), "True or False"),
    int: ((Integral,), "a whole number"),
    float: ((Real,), "a number"),
    str: ((str,), "text"),
    Path: ((os.PathLike,), "a path"),
    torch.dtype: ((torch.dtype,), "a torch dtype, such as torch.float32"),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that its annotations hold: what is of another kind is refused, in one line, by its name.

    Where a tensor is expected a numpy array is taken as well, and the other way round, also as a value of a mapping.
    Shapes, ranges and values are left to the function.

    Args:
        function: A function whose parameters are annotated.

    Returns:
        The function, with its arguments looked at.
    """
    signature = inspect.signature(function)

    @functools.cache
    def hints() -> dict[str, Any]:
        return typing.get_type_hints(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _read(value, name, hints().get(name, Any))
        return function(*bound.args, **bound.kwargs)

    return wrapper


def _read(value: Any, name: str, hint: Any) -> Any:
    """Return the value as the hint has it."""
    if hint is Any:
        return value
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    tensors = any(_is_array(option, Tensor) for option in options)
    arrays = any(_is_array(option, np.ndarray) for option in options)
    if isinstance(value, np.ndarray) and arrays:
        return value
    if isinstance(value, Tensor) and arrays and not tensors:
        return _tensor(value, name).detach().cpu().numpy()
    expected = ["a numpy array"] if arrays else []
    for option in options:
        origin = get_origin(option) or option
        if _is_array(option, Tensor) or _is_array(option, np.ndarray) or origin is type(None):
            continue
        if origin in _PLAIN:
            kinds, words = _PLAIN[origin]
            if isinstance(value, kinds) and (origin is bool or not isinstance(value, bool)):
                return value
            expected.append(words)
        elif origin in (Mapping, dict):
            if isinstance(value, Mapping):
                inner = get_args(option)[1]
                return {key: _read(part, f"{name}[{key!r}]", inner) for key, part in value.items()}
            expected.append("a mapping from names")
        elif origin in (Iterable, Sequence, list):
            if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
                return [_read(part, f"{name}[{number}]", get_args(option)[0]) for number, part in enumerate(value)]
            expected.append("a list")
        elif isinstance(origin, type):
            if isinstance(value, origin):
                return value
            expected.append(f"of type {origin.__name__}")
        else:
            return value  # nothing is known of it
    if tensors:
        return _tensor(value, name)
    raise InputError(f"{name} is {_described(value)}; pass {' or '.join(expected)}")


def _is_array(hint: Any, kind: type) -> bool:
    """Whether a hint stands for arrays of a kind, with a shape or without."""
    return hint is kind or getattr(hint, "array_type", None) is kind


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise InputError(f"{name} is a numpy array of {value.dtype}; pass numbers")
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        if native.dtype.itemsize > 8:
            native = native.astype(np.float64)
        return torch.from_numpy(native if native.flags.writeable else native.copy()).reshape(value.shape)
    if not isinstance(value, Tensor):
        raise InputError(f"{name} is {_described(value)}; pass a torch tensor or a numpy array")
    if value.is_meta:
        raise InputError(f"{name} is on the meta device, where tensors hold no data; pass one with data")
    if value.layout != torch.strided or value.is_quantized:
        raise InputError(f"{name} is sparse or quantized; pass a dense tensor")
    return value


def _described(value: Any) -> str:
    if value is None or isinstance(value, str | bytes | bool | Real):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"of type {type(value).__name__}"
