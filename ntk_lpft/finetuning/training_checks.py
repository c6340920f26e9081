"""Settings of ``TrainingArguments`` that would fail only in the middle of a run, refused before it starts."""

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from ntk_lpft.errors import InputError
from ntk_lpft.options import flag_of

_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def check_strategies(training: Mapping[str, Any]) -> None:
    """Refuse to keep the best of weights that are never measured or never stored.

    Args:
        training: Settings of ``TrainingArguments``, before it is made of them.

    Raises:
        InputError: See above.
    """
    measured, stored = (
        getattr(training.get(name), "value", training.get(name)) for name in ("eval_strategy", "save_strategy")
    )
    if training.get("load_best_model_at_end") and measured != stored and stored != "best":
        raise InputError(
            f"--eval-strategy {measured} and --save-strategy {stored} leave no best weights to keep; choose the same "
            "for both, or give --load-best-model-at-end false for the last"
        )


def check_arguments(arguments: TrainingArguments) -> None:
    """Refuse numbers that make no sense, and what is not installed or not to be had on this machine.

    Args:
        arguments: Settings that transformers itself has accepted.

    Raises:
        InputError: See above.
    """
    for name in ("learning_rate", "num_train_epochs"):
        value = getattr(arguments, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{flag_of(name)} {value} must be a finite number above zero")
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(arguments, name) < 1:
            raise InputError(f"{flag_of(name)} {getattr(arguments, name)} must be 1 or more")
    if arguments.max_steps < 1 and arguments.max_steps != TrainingArguments.max_steps:
        raise InputError(f"--max-steps {arguments.max_steps} must be 1 or more; leave it out to count epochs")
    if not (math.isfinite(arguments.weight_decay) and arguments.weight_decay >= 0):
        raise InputError(f"--weight-decay {arguments.weight_decay} must be a finite number, 0 or more")
    if not arguments.max_grad_norm >= 0:
        raise InputError(f"--max-grad-norm {arguments.max_grad_norm} must be a number, 0 (no clipping) or more")
    if not 0 <= arguments.label_smoothing_factor < 1:
        raise InputError(f"--label-smoothing-factor {arguments.label_smoothing_factor} is not from 0 to below 1")
    if not 0 <= arguments.seed < 2**32:
        raise InputError(f"--seed {arguments.seed} is not from 0 to 2**32 - 1")
    _check_rest(arguments)
    if arguments.fp16 and arguments.device.type == "cpu":
        raise InputError("--fp16 needs a GPU; leave it out, or train in --bf16 --use-cpu")
    _check_reports(arguments)
    _check_optimizer(arguments)


def _check_rest(arguments: TrainingArguments) -> None:
    """Refuse numbers that transformers takes and fails on in the middle of training."""
    least = {
        "warmup_steps": 0,
        "neftune_noise_alpha": 0,
        "dataloader_num_workers": 0,
        "eval_accumulation_steps": 1,
        "data_seed": 0,
        "logging_steps": 0,
        "eval_steps": 0,
        "save_steps": 0,
        "eval_delay": 0,
        "adam_epsilon": 0,
        "save_total_limit": 1,
        "dataloader_prefetch_factor": 1,
        "torch_empty_cache_steps": 1,
        "ddp_timeout": 1,
    }
    for name, bound in least.items():
        value = getattr(arguments, name, None)
        if value is not None and not (math.isfinite(value) and value >= bound):
            raise InputError(f"{flag_of(name)} {value} must be a finite number, {bound} or more")
    if arguments.torch_compile_mode not in (None, *_COMPILE_MODES):
        raise InputError(
            f"unknown --torch-compile-mode {arguments.torch_compile_mode!r}; choose one of {', '.join(_COMPILE_MODES)}"
        )
    if "lomo" in arguments.optim and importlib.util.find_spec("lomo_optim") is None:
        raise InputError(f"--optim {arguments.optim.value} needs the package lomo_optim; install it, or choose another")
    if arguments.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        raise InputError("--use-liger-kernel needs the package liger_kernel; install it, or leave it out")


def _check_reports(arguments: TrainingArguments) -> None:
    installed = get_available_reporting_integrations()
    missing = [name for name in arguments.report_to if name not in installed]
    if missing:
        known = f" (installed: {', '.join(installed)})" if installed else ""
        raise InputError(f"--report-to {missing[0]} is not installed or unknown{known}; install it, or give none")


def _check_optimizer(arguments: TrainingArguments) -> None:
    """Try optimizer and schedule on one number; those that ask for the model are left to ``Trainer``."""
    if arguments.optim_target_modules or "lomo" in arguments.optim:
        return
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
        parameter = nn.Parameter(torch.zeros(1))
        optimizer = kind([parameter], **settings)
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            num_warmup_steps=0,
            num_training_steps=2,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )
        if kind.__module__.startswith("torch.optim"):  # others may want a GPU
            parameter.grad = torch.ones(1)
            optimizer.step()
    except (ValueError, ImportError, TypeError) as error:
        raise InputError(f"training settings: {plain(error)}") from error
    except RuntimeError as error:  # AdamW's step does not fit into a float
        raise InputError(f"--learning-rate {arguments.learning_rate}: {plain(error)}") from error


def plain(error: Exception) -> str:
    """Say what a library says, on one line."""
    return " ".join(str(error).split())
