"""Models that accelerate has spread over devices, the CPU's memory and the disk: ``device_map`` of transformers.

Hooks of accelerate move what goes through such a model, and bring weights in that lie elsewhere; it is never moved as a
whole.
"""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook  # type: ignore[import-untyped]
from torch import Tensor, nn

from ntk_lpft.errors import InputError


@dataclass(frozen=True)
class OffloadedWeight:
    """A weight that is not in its module, which has an empty tensor of the meta device in its place.

    Attributes:
        module: Its module.
        name: Its name there.
        hook: The hook that brings it in.
        key: Its name among the weights of the hook.
    """

    module: nn.Module
    name: str
    hook: AlignDevicesHook
    key: str

    def load(self) -> Tensor:
        """Bring it in, in the dtype that its module says, onto the device where it is used."""
        assert self.hook.weights_map is not None
        value, said = self.hook.weights_map[self.key], self.module._parameters[self.name]
        return value.to(self.hook.execution_device, value.dtype if said is None else said.dtype)


def _hooks_of(module: nn.Module) -> list[AlignDevicesHook]:
    hook: Any = getattr(module, "_hf_hook", None)
    hooks = hook.hooks if isinstance(hook, SequentialHook) else [hook]
    return [each for each in hooks if isinstance(each, AlignDevicesHook)]


def offload_hooks(model: nn.Module) -> list[AlignDevicesHook]:
    """List the hooks that bring weights of a model in where they are used."""
    return [hook for module in model.modules() for hook in _hooks_of(module) if hook.offload]


def offloaded_weights(model: nn.Module) -> dict[str, OffloadedWeight]:
    """Find the weights that hooks of accelerate bring in.

    Args:
        model: The model.

    Returns:
        The weights by their names in ``model.named_parameters()``; a tied one under each of its names.
    """
    found = {}
    for prefix, module in model.named_modules():
        for hook in _hooks_of(module):
            if not hook.offload or hook.weights_map is None:
                continue
            names = module.named_parameters(recurse=hook.place_submodules, remove_duplicate=False)
            for key, weight in names:
                if weight.is_meta:
                    inside, _, local = key.rpartition(".")
                    owner = module.get_submodule(inside)
                    found[f"{prefix}.{key}" if prefix else key] = OffloadedWeight(owner, local, hook, key)
    return found


def home_of(model: nn.Module) -> torch.device:
    """Return the device that a model is given its inputs on, and returns its logits on.

    Args:
        model: The model.

    Returns:
        Where its weights are; of a model that accelerate has spread, where its first part is run.
    """
    for module in model.modules():
        for hook in _hooks_of(module):
            if hook.execution_device is not None:
                # The number of a device is one of CUDA, as everywhere in accelerate.
                return torch.empty(0, device=hook.execution_device).device
    return next(model.parameters()).device


def is_spread(model: nn.Module) -> bool:
    """Whether hooks of accelerate place parts of a model on devices, so that it must not be moved."""
    return any(hook.execution_device is not None for module in model.modules() for hook in _hooks_of(module))


def check_place(model: nn.Module, device: torch.device) -> None:
    """Refuse to move a model that is spread over devices, or to train what is not in memory.

    Args:
        model: The model.
        device: Where it is to be run.

    Raises:
        InputError: It is to be moved, or has trainable weights that are offloaded.
    """
    if not is_spread(model):
        return
    home = home_of(model)
    if device != home:
        raise InputError(
            f"the model is spread over devices by its device_map and begins on {home}; leave device {device} out, or "
            "load it whole, without device_map"
        )
    lost = [name for name, weight in model.named_parameters() if weight.is_meta and weight.requires_grad]
    if lost:
        raise InputError(
            f"weight {lost[0]} is trained, but is not in memory (device_map has offloaded it); freeze it "
            "(requires_grad_(False)), or keep its part of the model on a device"
        )
