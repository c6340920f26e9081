"""A command in several processes, as ``torchrun`` and ``accelerate launch`` start it: they meet, the first speaks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from ntk_lpft.errors import InputError

_START = "start the command by torchrun or accelerate launch, or unset WORLD_SIZE"


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

    Raises:
        InputError: The environment asks for several processes, which do not meet.
    """
    if count_of_processes() == 1:
        yield None
        return
    import torch

    cuda = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    number, local = number_of_process(), _from_environment("LOCAL_RANK", 0)
    if number >= count_of_processes():
        raise InputError(f"RANK is {number}, of WORLD_SIZE {count_of_processes()} processes; {_START}")
    if cuda and local >= torch.cuda.device_count():
        raise InputError(f"LOCAL_RANK is {local}, but there are {torch.cuda.device_count()} CUDA devices; start fewer")
    if cuda:
        torch.cuda.set_device(local)
    try:
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    except (ValueError, RuntimeError) as error:  # of a variable that is missing, or an address that nobody answers at
        reason = str(error).splitlines()[0]
        raise InputError(f"WORLD_SIZE is {count_of_processes()}, but no processes meet ({reason}); {_START}") from error
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
