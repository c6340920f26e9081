"""Where to compute, devices by name, and how products of float32 numbers are rounded there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ntk_lpft.errors import InputError


def resolve_device(name: str | None, otherwise: torch.device) -> torch.device:
    """Return the device of that name.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:1``.
        otherwise: What None stands for.

    Returns:
        The device.

    Raises:
        InputError: No such device here.
    """
    if name is None:
        return otherwise
    if not isinstance(name, str):
        raise InputError(f"device is of type {type(name).__name__}; write cpu, cuda or cuda:0")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; write cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name} is not supported; use cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name} was asked for, but torch sees no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return device


def command_device(name: str | None) -> torch.device:
    """Return the device that a command computes on: the one named, or else CUDA where there is one.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:1``; None for the default.

    Returns:
        The device.

    Raises:
        InputError: No such device here.
    """
    return resolve_device(name, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


# Where torch keeps whether products of float32 numbers may be rounded to TF32 or bfloat16: for all, for a library, and
# for one kind of product each. One that says "none" follows the one before.
_SETTING = "fp32_precision"


@contextmanager
def float32_products(tf32: bool = False) -> Iterator[None]:
    """Multiply float32 numbers, in matrix products and convolutions, as float32, whatever the process has allowed.

    There are an older and a newer kind of setting for it, on CUDA and on the CPU, and a question for the older kind
    raises where someone has used the newer. Everything is put back as it was.

    Args:
        tf32: Whether TF32 is wanted instead.
    """
    if not hasattr(torch.backends, _SETTING):
        with _older_settings(tf32):
            yield
        return
    wanted = "tf32" if tf32 else "ieee"
    backends: Any = torch.backends
    products = [backends.cuda.matmul, backends.mkldnn.matmul]
    others = [backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.conv, backends.mkldnn.rnn]
    older, held = _older_precision(), []
    for holder in (backends, backends.cudnn, backends.mkldnn):
        held.append((holder, getattr(holder, _SETTING)))
        setattr(holder, _SETTING, "none")
    own = [(holder, getattr(holder, _SETTING)) for holder in (*products, *others)]
    setattr(backends, _SETTING, wanted)
    # What follows is left alone: cuDNN's begin as a TF32 that yields to the general setting, and cannot be set to that.
    held += [(holder, value) for holder, value in own if holder in products or getattr(holder, _SETTING) != wanted]
    try:
        if older is not None:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        for holder, _ in held[3:]:
            setattr(holder, _SETTING, wanted)
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)
        for holder, value in reversed(held):
            setattr(holder, _SETTING, value)


def _older_precision() -> str | None:
    """Return what the older setting of matrix products says; None where the newer one was used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@contextmanager
def _older_settings(tf32: bool) -> Iterator[None]:
    """Do the same with the settings that torch had before 2.9."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions
