"""The finetune command in processes of its own, which may die at a chosen moment or work together.

They are forked from a server that has imported the package once, as an import takes longer than a small run.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["ntk_lpft.commands.finetune.run"])


def launch(
    words: Sequence[str], log: Path, moment: str | None = None, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start the command.

    Args:
        words: Its options.
        log: Where its output goes.
        moment: When it kills itself by SIGKILL, see `_BREAKS`; None for never.
        environment: Variables to set.

    Returns:
        The process; its exit code is the command's.
    """
    process = _CONTEXT.Process(target=_run, args=(list(words), str(log), moment, dict(environment or {})))
    process.start()
    return process


def launch_together(words: Sequence[str], log: Path, count: int) -> list[BaseProcess]:
    """Start the command in several processes that train together, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        launch(words, log.with_suffix(f".{rank}"), None, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def _run(words: list[str], log: str, moment: str | None, environment: dict[str, str]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    import torch

    from ntk_lpft.commands.finetune import main

    torch.set_num_threads(1)
    if moment is not None:
        name, _, number = moment.partition(":")
        _BREAKS[name](int(number or 1))
    status = main(words)
    if environment:
        torch.distributed.destroy_process_group()
    os._exit(status)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_call(owner: Any, name: str, number: int, last_act: Callable[..., object] | None = None) -> None:
    """Die at the nth call of a function, after a last act that is given its arguments."""
    real, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            if last_act is not None:
                last_act(real, *args, **kwargs)
            _die()
        return real(*args, **kwargs)

    setattr(owner, name, counted)


def _half_written(real: Callable[..., object], path: Any, *args: Any, **kwargs: Any) -> None:
    real(path, *args, **kwargs)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def _half_removed(_: Callable[..., object], path: Any, *args: Any, **kwargs: Any) -> None:
    # The file that a checkpoint is told by stays.
    next(file for file in sorted(Path(path).iterdir()) if file.suffix == ".safetensors").unlink()


def _in_a_step(number: int) -> None:
    from transformers import Trainer

    _at_call(Trainer, "training_step", number)


def _before_the_start(number: int) -> None:
    from ntk_lpft.commands.finetune import run

    _at_call(run, "prepare_start", number)


def _in_weights(number: int) -> None:
    from ntk_lpft.finetuning import trainer

    _at_call(trainer, "save_weights", number, _half_written)


def _in_state(number: int) -> None:
    from ntk_lpft.finetuning import trainer

    _at_call(trainer, "save_state", number, _half_written)


def _in_the_last_file(number: int) -> None:
    from transformers import TrainerState

    def half(real: Callable[..., object], state: Any, path: str) -> None:
        _half_written(lambda where: real(state, where), path)

    _at_call(TrainerState, "save_to_json", number, half)


def _in_removal(number: int) -> None:
    _at_call(shutil, "rmtree", number, _half_removed)


def _in_predictions(number: int) -> None:
    from ntk_lpft.runs import FinetuneRun

    _at_call(FinetuneRun, "write_predictions", number, _after)


def _before_the_end(number: int) -> None:
    from ntk_lpft.commands.finetune import run

    _at_call(run, "remove_checkpoints", number)


def _after(real: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    real(*args, **kwargs)


_BREAKS: dict[str, Callable[[int], None]] = {
    "start": _before_the_start,
    "step": _in_a_step,
    "weights": _in_weights,
    "state": _in_state,
    "last file": _in_the_last_file,
    "removal": _in_removal,
    "predictions": _in_predictions,
    "end": _before_the_end,
}
