"""What a kernel belongs to, besides its weights and data: structure, settings and versions."""

import hashlib
import json
import platform
from typing import Any

import torch
import transformers
from torch import nn

from ntk_lpft.storage import tensor_digest
from ntk_lpft.version import __version__

_PLAIN = (bool, int, float, str, type(None))


def structure_digest(model: nn.Module) -> str:
    """Return a sha256 over what makes equal weights different models.

    Every module's class and plain attributes (an epsilon, a number of heads, LoRA's scaling), the configs, and the
    buffers. Whether the model is in training mode, and over which devices it is spread, does not count.
    """
    modules = {
        name: [type(module).__qualname__, {k: v for k, v in sorted(vars(module).items()) if _counts(k, v)}]
        for name, module in model.named_modules()
    }
    config_of: dict[str, Any] = {name: getattr(module, "config", None) for name, module in model.named_modules()}
    configs = {name: config.to_json_string() for name, config in config_of.items() if hasattr(config, "to_json_string")}
    digest = hashlib.sha256(json.dumps([modules, configs], sort_keys=True, default=str).encode())
    digest.update(tensor_digest(dict(model.named_buffers())).encode())
    return digest.hexdigest()


def _counts(name: str, value: Any) -> bool:
    if name.startswith("_") or name in ("training", "hf_device_map"):
        return False
    return isinstance(value, _PLAIN) or (
        isinstance(value, dict) and all(isinstance(v, _PLAIN) for v in [*value, *value.values()])
    )


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "ntk_lpft": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
