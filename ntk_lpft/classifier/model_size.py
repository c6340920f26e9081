"""What a model's config asks for, before anything is allocated for it."""

import copy
from typing import Any

import psutil
import torch
from transformers import AutoModel

from ntk_lpft.byte_sizes import format_bytes
from ntk_lpft.errors import InputError
from ntk_lpft.model_sources import MOST_LABELS


def check_memory(
    config: Any, labels: int, where: str, dtype: torch.dtype = torch.float32, *, trust_remote_code: bool = False
) -> None:
    """Refuse a model that does not fit into memory; parameters are counted without being allocated.

    Args:
        config: The model's config.
        labels: Number of classes of the head.
        where: What messages call the model.
        dtype: What it is loaded in.
        trust_remote_code: Whether to run code that the model's repository ships.

    Raises:
        InputError: Its parameters need more memory than is free.
    """
    if labels > MOST_LABELS:
        raise InputError(f"{where} is to have {labels} classes; at most {MOST_LABELS} are possible")
    count = _body_parameters(config, trust_remote_code) + labels * int(getattr(config, "hidden_size", 0) or 0)
    needed, free = dtype.itemsize * count, psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{where} has {count / 1e6:.0f} million parameters, which need {format_bytes(needed)} in "
            f"{str(dtype).removeprefix('torch.')}; "
            f"{format_bytes(free)} are free; take a smaller model, or fewer classes"
        )


def _body_parameters(config: Any, trust_remote_code: bool) -> int:
    """Count the body's parameters; 0 where its code does not run without numbers."""
    try:
        with torch.device("meta"):
            body = AutoModel.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code)
    except NotImplementedError:
        return 0
    return sum(parameter.numel() for parameter in body.parameters())
