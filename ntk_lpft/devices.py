"""Where to compute: devices by name."""

from __future__ import annotations

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
