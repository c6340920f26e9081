"""A training run's state on disk, without pickles: weights, optimizer, schedule and random numbers."""

import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntk_lpft.checksums import CHECKSUMS, check_file, read_checksums, write_checksums
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.storage import read_tensors, write_tensors

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
SCHEDULE = "schedule.safetensors"
SCALER = "scaler.safetensors"
TRAINER_STATE = "trainer_state.json"
_RANDOM = "random-"  # how the files of the processes' generators begin
_NAME = re.compile(r"checkpoint-(\d+)")


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the trainable parameters."""
    write_tensors(path, {name: p for name, p in model.named_parameters() if p.requires_grad}, {})


def load_weights(path: Path, model: nn.Module) -> None:
    """Put trainable parameters back.

    Args:
        path: The file that ``save_weights`` wrote.
        model: The model, whose parameters with ``requires_grad`` are overwritten.

    Raises:
        InputError: The file is damaged, or does not fit the model.
    """
    saved, _ = _read(path, "cpu")
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if saved.keys() != wanted.keys():
        raise InputError(f"{path} holds other parameters than this model trains; start anew with --overwrite")
    for name, parameter in wanted.items():
        if saved[name].shape != parameter.shape or saved[name].dtype != parameter.dtype:
            raise InputError(
                f"{path} holds {name} as {saved[name].dtype} of shape {tuple(saved[name].shape)}, which the model has "
                f"as {parameter.dtype} of shape {tuple(parameter.shape)}; start anew with --overwrite"
            )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(saved[name])


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers and texts.

    Args:
        path: The safetensors file; what are no tensors goes into its description.
        state: What an optimizer's, a schedule's or a scaler's ``state_dict`` gives.

    Raises:
        InputError: Something in it is neither.
    """
    tensors: dict[str, Tensor] = {}
    tree = _strip(state, tensors, path.stem)
    write_tensors(path, tensors, {"tree": tree})


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what ``save_state`` wrote.

    Args:
        path: The safetensors file.
        device: Where the tensors go.

    Returns:
        The nested dicts and lists, as ``load_state_dict`` takes them.

    Raises:
        InputError: The file is missing, damaged or altered.
    """
    tensors, description = _read(path, str(device))
    return _fill(description["tree"], tensors)


def _read(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        return read_tensors(path, device)
    except InputError as error:
        raise _damaged(path.parent, f"{path} is missing, damaged or was altered") from error


def _damaged(checkpoint: Path, what: str) -> InputError:
    return InputError(
        f"{what}; delete {checkpoint} to go on from an earlier checkpoint, if there is one, or start anew with "
        "--overwrite"
    )


def _strip(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Make a copy that JSON can hold: tensors by number, dicts as lists of pairs, since their keys may be numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
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


def random_file(checkpoint: Path, process: int) -> Path:
    """File of the generators' states of one process."""
    return checkpoint / f"{_RANDOM}{process}.safetensors"


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the checksums of all files of a checkpoint, which make it a whole one."""
    write_checksums(checkpoint, sorted(path.name for path in checkpoint.iterdir() if path.name != CHECKSUMS))


def unseal_checkpoint(checkpoint: Path) -> None:
    """Take a checkpoint's checksums away, as its files are about to change."""
    (checkpoint / CHECKSUMS).unlink(missing_ok=True)


def check_checkpoint(checkpoint: Path) -> int:
    """Make sure that a whole checkpoint is as it was written; tensors are compared with their checksums when read.

    Args:
        checkpoint: Its folder.

    Returns:
        How many processes wrote it.

    Raises:
        InputError: A file is missing or was altered, or its steps are not those of its name and its schedule.
    """
    try:
        known = read_checksums(checkpoint)
        for name in known:
            check_file(checkpoint, name, known)
        state = read_json(checkpoint / TRAINER_STATE)
    except InputError as error:
        raise _damaged(checkpoint, str(error)) from error
    step, most = state.get("global_step"), state.get("max_steps")
    if step != checkpoint_step(checkpoint) or not isinstance(most, int) or not 0 < step <= most:
        raise _damaged(checkpoint, f"{checkpoint / TRAINER_STATE} says step {step} of {most}, which cannot be")
    return sum(name.startswith(_RANDOM) for name in known)


def last_checkpoint(folder: Path) -> Path | None:
    """Find the latest whole checkpoint; halves, of a run killed while writing or removing one, are removed.

    Args:
        folder: The folder of checkpoints.

    Returns:
        The checkpoint; None where there is none.

    Raises:
        InputError: It is damaged or was altered.
    """
    whole = []
    for path in _checkpoints(folder):
        if (path / CHECKSUMS).is_file():
            whole.append(path)
        else:
            # Another process of the same run may do the same.
            shutil.rmtree(path, ignore_errors=True)
    last = max(whole, key=checkpoint_step, default=None)
    if last is not None:
        check_checkpoint(last)
    return last


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that there are, by their steps."""
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """Optimizer steps done when the checkpoint was written."""
    return int(path.name.rpartition("-")[2])


def remove_oldest(folder: Path, limit: int | None, best: str | None) -> None:
    """Remove checkpoints beyond a number, the oldest first, but neither the last nor the best.

    Args:
        folder: The folder of checkpoints.
        limit: How many are kept; None keeps all.
        best: Path of the best.
    """
    found = _checkpoints(folder)
    kept = {path.name for path in (*found[-1:], *([] if best is None else [Path(best)]))}
    for path in found:
        if limit and len(_checkpoints(folder)) > max(limit, len(kept)) and path.name not in kept:
            _remove(path)


def _remove(checkpoint: Path) -> None:
    unseal_checkpoint(checkpoint)  # first, so that half a checkpoint is never taken for a whole one
    shutil.rmtree(checkpoint, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints, and their folder if nothing else is in it, such as logs of TensorBoard."""
    for path in _checkpoints(folder):
        _remove(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
