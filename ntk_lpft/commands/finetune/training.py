"""All that a fine-tuning run is made of: the command's own options, and those of ``TrainingArguments``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ntk_lpft.commands.data import task_of
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.finetune.training_flags import REFUSED
from ntk_lpft.commands.parsing import (
    bare_parser,
    check_numbers,
    checked_values,
    parse_given,
    stored_options,
    unrecognized,
)
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.defaults import default_eval_rows, training_defaults
from ntk_lpft.finetuning.settings import Method
from ntk_lpft.finetuning.training_checks import check_arguments, check_strategies
from ntk_lpft.library_errors import told_as_bad_input
from ntk_lpft.options import flag_of, inputs_of
from ntk_lpft.runs import FinetuneRun, HeadScaleGrid
from ntk_lpft.tasks import Task

# These steer training alone.
_TRAINS = ("num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
           "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
           "per_device_train_batch_size", "gradient_accumulation_steps", "label_smoothing_factor",
           "gradient_checkpointing", "neftune_noise_alpha", "eval_strategy", "eval_steps", "save_strategy",
           "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model")  # fmt: skip

# What is never written down.
SECRET = ("hub_token",)


@dataclass(frozen=True)
class RunSettings:
    """All that a run is made of.

    Attributes:
        options: The command's own options.
        training: Settings of ``TrainingArguments``: the method's defaults, and what was given.
        path: Where the results go.
    """

    options: FinetuneOptions
    training: dict[str, Any]
    path: Path

    @property
    def run(self) -> FinetuneRun:
        """The folder of the run."""
        return FinetuneRun(self.path)

    def to_json(self) -> dict[str, Any]:
        """Options that replay the run by ``--config``; a token is none of them."""
        training = {name: value for name, value in self.training.items() if name not in SECRET}
        return stored_options(self.options) | {k: v.value if isinstance(v, Enum) else v for k, v in training.items()}

    def inputs(self) -> list[tuple[str, Path]]:
        """List what the run reads; to go on with a run, its own config may be read."""
        return [
            (flag, path) for flag, path in inputs_of(self.options) if not (self.options.resume and flag == "--config")
        ]

    def of_its_folder(self) -> dict[str, Any]:
        """Return what ``FinetuneRun.opened_to_train`` is to be told."""
        how = {"overwrite": self.options.overwrite, "resume": self.options.resume}
        return {**how, "inputs": self.inputs(), "options": self.to_json()}

    def member(self, grid: HeadScaleGrid, factor: float) -> RunSettings:
        """Return one run of a grid over head scales; going on with the grid begins those that have not begun."""
        run = grid.member(factor)
        resume = self.options.resume and run.begun
        options = dataclasses.replace(self.options, head_scale=[factor], resume=resume)
        return RunSettings(options, self.training, run.path)

    def arguments(self) -> TrainingArguments:
        """Make the settings for ``Trainer``.

        Returns:
            The arguments, for one device a process.

        Raises:
            InputError: Settings that transformers or torch refuse, that make no sense, or that ask for what is not
                supported or not installed.
        """
        check_strategies(self.training)
        cuda = torch.cuda.is_available() and not self.training.get("use_cpu", False)
        pinned = {} if "dataloader_pin_memory" in self.training else {"dataloader_pin_memory": cuda}
        with told_as_bad_input("training settings"):
            arguments = TrainingArguments(
                output_dir=str(self.run.file(FinetuneRun.CHECKPOINTS)),
                remove_unused_columns=False,
                label_names=["labels"],
                disable_tqdm=True,
                **pinned,
                **self.training,
            )
        check_arguments(arguments)
        # Without torchrun, Trainer would spread a batch over all GPUs and then misjudge its mean loss.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        return arguments


def parse_training(words: Sequence[str]) -> dict[str, Any]:
    """Read the options of ``TrainingArguments`` that words of a command line give.

    Args:
        words: Those that are none of the command's own options.

    Returns:
        The values that were given, by their names in ``TrainingArguments``; no defaults.

    Raises:
        InputError: An unknown option, or a value of the wrong kind.
    """
    given, unknown = parse_given(bare_parser(TrainingArguments), words)
    if unknown:
        raise unrecognized(unknown[0])
    check_numbers(given)
    return given


def check_stored(config: Path, stored: Mapping[str, Any]) -> None:
    """Refuse settings of ``TrainingArguments`` in a config file that are of the wrong kind.

    Args:
        config: The file.
        stored: Its settings that are none of the command's own options.

    Raises:
        InputError: One of them is.
    """
    checked_values(config, stored, TrainingArguments)


def _say_idle(names: Sequence[str], method: str) -> None:
    """Say which settings of training do nothing; they are not refused, as one script may run all methods."""
    if names:
        print(
            f"notice: {', '.join(map(flag_of, names))} {'do' if len(names) > 1 else 'does'} nothing for method {method}"
        )


def resolve(options: FinetuneOptions, given: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[RunSettings, Task]:
    """Put options, a config's training settings and the method's defaults together.

    Args:
        options: The command's own options.
        given: Settings of ``TrainingArguments`` on the command line.
        config: Those of a config file; the command line overrides it.

    Returns:
        The settings, and the task.

    Raises:
        InputError: Some option makes no sense.
    """
    merged = {**config, **given}
    for name in sorted(set(merged) & set(REFUSED)):
        raise InputError(f"{flag_of(name)} {REFUSED[name]}; leave it out")
    if not Method.of(options.method).trains:
        _say_idle([name for name in _TRAINS if name in given], options.method)
    task = task_of(options)
    if options.n_eval is None:
        options = dataclasses.replace(options, n_eval=default_eval_rows(task.name))
    training = {**training_defaults(options.method, task.name, task.metric), **merged}
    best = str(training["metric_for_best_model"]).removeprefix("eval_")
    if best not in {"loss", "accuracy", task.metric}:
        known = ", ".join(dict.fromkeys(("accuracy", task.metric, "loss")))
        raise InputError(f"unknown --metric-for-best-model {best!r}; choose one of {known}")
    return RunSettings(options, training, options.folder(int(training["seed"]))), task
