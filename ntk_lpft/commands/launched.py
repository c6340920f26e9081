"""A command in several processes, as ``torchrun`` and ``accelerate launch`` start it: they meet, the first speaks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any


def number_of_process() -> int:
    """Which of a command's processes this is; 0 for the first, and for one that is alone."""
    return _from_environment("RANK", 0)


def count_of_processes() -> int:
    """How many processes a command was started in."""
    return _from_environment("WORLD_SIZE", 1)


def _from_environment(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else otherwise


@contextmanager
def meeting(device: str | None) -> Iterator[Any]:
    """Meet the other processes, if there are some; all but the first say nothing from there on.

    Args:
        device: The device that was asked for; of CUDA, each process takes that of its number on the machine.

    Yields:
        The process group; None for a process that is alone.
    """
    if count_of_processes() == 1:
        yield None
        return
    import torch

    cuda = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    if cuda:
        torch.cuda.set_device(_from_environment("LOCAL_RANK", 0))
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        with _silence(number_of_process() > 0):
            yield torch.distributed.group.WORLD
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _silence(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield
