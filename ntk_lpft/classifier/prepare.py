"""A model as the engines need it, for as long as they need it, and then as it was."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from ntk_lpft.classifier.frozen_weights import FrozenWeights
from ntk_lpft.classifier.offloaded import check_place, is_spread
from ntk_lpft.classifier.quantised import is_quantised
from ntk_lpft.classifier.stored_weights import StoredWeights
from ntk_lpft.devices import float32_products
from ntk_lpft.errors import InputError


def check_finite(model: nn.Module) -> None:
    """Refuse a model with broken weights.

    Args:
        model: The model.

    Raises:
        InputError: NaN or infinite weights, or such as were never loaded.
    """
    stored = StoredWeights(model)
    sums: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, weight in stored.items():
        if weight.is_meta:
            raise InputError(f"weight {name} of the model is not in memory (it was never loaded); load the model whole")
        if weight.is_floating_point():
            # The sum is much cheaper than a mask of all entries; sound weights can overflow it, but hardly do.
            sums.setdefault(weight.device, []).append((name, torch.isfinite(weight.detach().sum())))
    for found in sums.values():  # asked once for each device, as each answer of a GPU has to be waited for
        sound = torch.stack([finite for _, finite in found]).tolist()
        for (name, _), is_sound in zip(found, sound, strict=True):
            if not is_sound and not torch.isfinite(stored[name]).all():
                raise InputError(f"weight {name} of the model holds NaN or infinite values; load a sound checkpoint")


def _check_recordable(model: nn.Module) -> None:
    """Refuse weights of which autograd can keep no record."""
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise InputError(
                f"weight {name} of the model was made under torch.inference_mode, so that it has no gradients; load "
                "the model outside of it"
            )


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute as written, whatever the caller has switched on around it.

    No autocast; no TF32 or bfloat16 in products of float32; gradients recorded; new tensors no narrower than float32;
    no compiled code, which passes hooks by.

    Args:
        device: Where it is computed.
    """
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in sorted({"cpu", device.type}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(float32_products())
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes long
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(torch.promote_types(before, torch.float32))
        yield


@contextmanager
def prepared(model: nn.Module, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Put a model in eval mode, in one dtype, on one device, with one form of attention and without cache.

    What the caller has switched on around it does not count, see `plain_arithmetic`.

    Attention goes through PyTorch's ``scaled_dot_product_attention`` held to its plain algorithm: left free, it
    chooses a fused one by the batch's content, so that blocks of one kernel would differ, and the eager code of
    transformers rounds the softmax of float64 models to float32. Models without it keep their own code.

    Frozen weights that are stored in fewer bits, or are quantised, stay so, and are widened where a layer uses them,
    see `FrozenWeights`. A model that accelerate has spread over devices stays where it is.

    Args:
        model: Changed inside the context, put back afterwards (its parameters stay the same objects).
        dtype: Which dtype.
        device: Where to.

    Raises:
        InputError: NaN or infinite weights, or such as were made under ``torch.inference_mode``; or a model that cannot
            be moved there.
    """
    check_place(model, device)
    check_finite(model)
    _check_recordable(model)
    # The very tensors are kept, as a conversion there and back may round; ``Module.to`` replaces buffers, and a forward
    # pass may change them in place.
    weights = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    modes = {module: module.training for module in model.modules()}
    restore_settings = _set_configs(model)
    restore_hooks = _drop_gradient_hooks(model)
    try:
        model.eval()
        with torch.inference_mode(False):
            _copy_buffers(buffers)
        frozen = FrozenWeights(model, dtype)
        _convert(model, frozen.kept, dtype, None if is_spread(model) else device)
        with frozen.installed(model), plain_arithmetic(device), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for parameter, data in weights:
            parameter.data = data
        for module, held in buffers:
            module._buffers.update(held)
        for module, mode in modes.items():
            module.training = mode
        restore_hooks()
        restore_settings()


def _convert(model: nn.Module, kept: set[Tensor], dtype: torch.dtype, device: torch.device | None) -> None:
    """Bring weights and buffers into a dtype, save for those that stay in theirs, and onto a device if one is given."""
    for module in model.modules():
        if device is not None and is_quantised(module) and module.weight.device != device:
            raise InputError(
                f"the model's quantised layers are on {module.weight.device}, and cannot be moved; load it on {device}"
            )
        for parameter in module._parameters.values():
            if parameter is not None and not parameter.is_meta:
                wanted = dtype if parameter.is_floating_point() and parameter not in kept else parameter.dtype
                parameter.data = parameter.data.to(device or parameter.device, wanted)
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                wanted = dtype if buffer.is_floating_point() else buffer.dtype
                module._buffers[name] = buffer.to(device or buffer.device, wanted)


def _copy_buffers(buffers: Sequence[tuple[nn.Module, Mapping[str, Tensor | None]]]) -> None:
    """Give modules copies of their buffers; what modules shared they share still."""
    copies = {id(buffer): buffer.clone() for _, held in buffers for buffer in held.values() if buffer is not None}
    for module, held in buffers:
        module._buffers.update({name: None if old is None else copies[id(old)] for name, old in held.items()})


# What peft and transformers hang behind the token embeddings, so that blocks which recompute their activations in
# training see an input with a gradient.
_GRADIENT_HOOKS = ("make_inputs_require_grad", "make_inputs_require_grads")


def _drop_gradient_hooks(model: nn.Module) -> Callable[[], None]:
    """Take those hooks off, which change no value but cannot be run under torch.func; return how to put them back."""
    dropped = [
        (module._forward_hooks, key, hook)
        for module in model.modules()
        for key, hook in module._forward_hooks.items()
        if getattr(hook, "__name__", "") in _GRADIENT_HOOKS
    ]
    for hooks, key, _ in dropped:
        del hooks[key]

    def restore() -> None:
        for hooks, key, hook in dropped:
            hooks[key] = hook

    return restore


def _set_configs(model: nn.Module) -> Callable[[], None]:
    """Choose the form of attention and switch the cache off, in every config; return how to undo it."""
    changed: list[tuple[Any, str, Any]] = []

    def change(config: Any, name: str, value: Any) -> None:
        if getattr(config, name, None) not in (None, value):
            changed.append((config, name, getattr(config, name)))
            setattr(config, name, value)

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            change(module.config, "_attn_implementation", "sdpa" if module._supports_sdpa else "eager")
            # The grouped products of mixtures of experts have no float64.
            change(module.config, "_experts_implementation", "eager")
            change(module.config, "use_cache", False)

    def restore() -> None:
        for config, name, value in reversed(changed):
            setattr(config, name, value)

    return restore
