"""LoRA adapters through peft, with the head left trainable."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from ntk_lpft.arguments import checked
from ntk_lpft.classifier.head import Head
from ntk_lpft.errors import InputError
from ntk_lpft.options import LoraOptions


def adapt(model: nn.Module, head: Head, options: LoraOptions, seed: int = 0) -> nn.Module:
    """Put LoRA adapters in as a command's options say; see `apply_lora`."""
    targets = options.lora_targets or None
    return apply_lora(model, head, rank=options.lora_rank, alpha=options.lora_alpha, targets=targets, seed=seed)


@checked
def apply_lora(
    model: nn.Module,
    head: Head,
    *,
    rank: int = 8,
    alpha: float = 8.0,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Freeze a classifier but for its head, and put LoRA adapters W + (α/r) B A beside the target layers.

    Defaults are the paper's: r = α = 8 on query and value, A Kaiming-uniform, B = 0.

    Args:
        model: The classifier; it is changed in place.
        head: Its head, which stays trainable.
        rank: r.
        alpha: α.
        targets: Names of the layers (the last part of a module's name); None takes peft's choice for the
            architecture, which for most is query and value.
        seed: For A.

    Returns:
        The wrapped classifier.

    Raises:
        InputError: A rank below one, or targets that match no layer.
    """
    if rank < 1:
        raise InputError(f"LoRA rank {rank} is not positive")
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head.module]
    known = sorted({name.rsplit(".", 1)[-1] for name in layers})
    missing = [name for name in targets or () if name not in known]
    if missing:
        raise InputError(f"LoRA target {', '.join(missing)} matches no layer; this model has {', '.join(known)}")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # peft scales by alpha / r, which need not be whole
        target_modules=list(targets) if targets else None,
        # Not peft's classification mode: it would train every layer called "classifier", dense ones as well.
        modules_to_save=[head.name],
        lora_dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]), _said_to_be_float32(model, head), warnings.catch_warnings():
        # peft asks transformers for a name that is about to go, and says that it sees GPT-2's transposed layers.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise InputError(
                f"peft has no default LoRA targets for this architecture; name some of {', '.join(known)}"
            ) from error


@contextmanager
def _said_to_be_float32(model: nn.Module, head: Head) -> Iterator[None]:
    """Let narrower weights pass for float32: peft rounds adapters to the dtype of what they stand beside."""
    narrow = [
        (weight, weight.data)
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head.module  # which peft copies
        if (weight := module._parameters.get("weight")) is not None and weight.dtype in (torch.bfloat16, torch.float16)
    ]
    try:
        for weight, data in narrow:
            # One number in the place of all, as peft looks at dtype and device alone.
            weight.data = torch.zeros(1, device=data.device).expand(data.shape)
        yield
    finally:
        for weight, data in narrow:
            weight.data = data
