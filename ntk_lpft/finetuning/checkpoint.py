"""A training run's state on disk, without pickles: weights, optimizer, schedule and random numbers."""

import json
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ntk_lpft.disk_errors import named_disk_errors
from ntk_lpft.errors import InputError
from ntk_lpft.storage import write_json

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
SCHEDULE = "schedule.safetensors"
SCALER = "scaler.safetensors"
# Trainer writes this file last, and removes a checkpoint's files in any order: one that has these all is whole.
_LAST_WRITTEN = "trainer_state.json"
_PARTS = (_LAST_WRITTEN, WEIGHTS, OPTIMIZER, SCHEDULE, *(Path(name).stem + ".json" for name in (OPTIMIZER, SCHEDULE)))
_NAME = re.compile(r"checkpoint-(\d+)")


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy the parameters that training changes, by name; the copies share no memory with each other."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the trainable parameters."""
    with named_disk_errors(path):
        save_file(trainable_weights(model), path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Put trainable parameters back.

    Args:
        path: The file that ``save_weights`` wrote.
        model: The model, whose parameters with ``requires_grad`` are overwritten.

    Raises:
        InputError: The file is damaged, or does not fit the model.
    """
    saved = _load_tensors(path, "cpu")
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if saved.keys() != wanted.keys():
        raise InputError(f"{path} holds other parameters than this model trains; start anew with --overwrite")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(saved[name])


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers and texts: tensors to ``path``, the rest beside it as JSON.

    Args:
        path: The safetensors file.
        state: What an optimizer's, a schedule's or a scaler's ``state_dict`` gives.

    Raises:
        InputError: Something in it is neither.
    """
    tensors: dict[str, Tensor] = {}
    tree = _strip(state, tensors, path.stem)
    with named_disk_errors(path):
        save_file(tensors, path)
        path.with_suffix(".json").write_text(json.dumps(tree), encoding="utf-8")


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what ``save_state`` wrote.

    Args:
        path: The safetensors file, with its JSON beside it.
        device: Where the tensors go.

    Returns:
        The nested dicts and lists, as ``load_state_dict`` takes them.

    Raises:
        InputError: The files are damaged.
    """
    try:
        tree = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path.with_suffix(".json"), error) from error
    return _fill(tree, _load_tensors(path, str(device)))


def _load_tensors(path: Path, device: str) -> dict[str, Tensor]:
    try:
        return load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"checkpoint file {path} is damaged ({error}); delete {path.parent} to go on from an earlier checkpoint, if "
        "there is one, or start anew with --overwrite"
    )


def _strip(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Make a copy that JSON can hold: tensors by number, dicts as lists of pairs, since their keys may be numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _strip(item, tensors, f"{where}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_strip(item, tensors, where) for item in value]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"{where} is a {type(value).__name__}, which cannot be stored without pickle; use another optimizer"
    )


def _fill(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "pairs":
        return {key: _fill(item, tensors) for key, item in content}
    items = [_fill(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def random_state() -> dict[str, Any]:
    """States of the generators of Python, numpy, torch and the CUDA devices."""
    kind, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators where ``random_state`` found them."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest whole checkpoint; halves, of a run killed while writing or removing one, are removed."""
    whole = []
    for path in _checkpoints(folder):
        if _is_whole(path):
            whole.append(path)
        else:
            # Another process of the same run may do the same.
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=checkpoint_step, default=None)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]


def _is_whole(path: Path) -> bool:
    try:
        json.loads((path / _LAST_WRITTEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((path / name).is_file() for name in _PARTS)


def checkpoint_step(path: Path) -> int:
    """Optimizer steps done when the checkpoint was written."""
    return int(path.name.rpartition("-")[2])


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints, and their folder if nothing else is in it, such as logs of TensorBoard."""
    for path in _checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def relocate(checkpoint: Path) -> None:
    """Let a checkpoint name its best sibling where it lies now: the run's folder may have been moved."""
    path = checkpoint / _LAST_WRITTEN
    state = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best is None:
        return
    state["best_model_checkpoint"] = str(checkpoint.parent / Path(best).name)
    write_json(path, state)
