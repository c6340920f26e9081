"""Options of the ``finetune`` command: its own, and those of transformers' ``TrainingArguments``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ntk_lpft.classifier.linear_head import POOLINGS
from ntk_lpft.classifier.loading import HEADS
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.methods import CHECKPOINTS, Method, MethodSettings
from ntk_lpft.finetuning.probe import LOGISTIC, SOLVERS
from ntk_lpft.finetuning.settings import default_eval_rows, training_defaults
from ntk_lpft.finetuning.training_checks import check_arguments, check_strategies, plain
from ntk_lpft.tasks import Task, load_files, load_task

# Settings of Trainer that this command decides itself.
_OWN = ("output_dir", "remove_unused_columns", "label_names", "disable_tqdm", "do_train", "do_eval", "do_predict",
        "resume_from_checkpoint", "push_to_hub", "save_only_model")  # fmt: skip
# Options that say where results go and how a run continues, not what they are.
_PLACE = ("overwrite", "resume")


def _option(default: Any, text: str) -> Any:
    """Dataclass field with a help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class FinetuneOptions:
    """Options of ``python -m ntk_lpft.finetune`` besides those of ``TrainingArguments``."""

    method: str = _option("lp-ft", "lp, ft, lp-ft, lora or lp-lora")
    model: str = _option("minilm", "model: a Hub name, a folder, or the bundled 'minilm'")
    dataset: str = _option("amazon-snippets", "task by name; see --train_file for your own data")
    data_dir: str | None = _option(None, "folder with original releases (default: $NTK_LPFT_DATA, else the Hub)")
    train_file: str | None = _option(None, "your own training data: csv, tsv, jsonl or parquet, instead of --dataset")
    validation_file: str | None = _option(None, "your own validation data (default: the last tenth of training)")
    test_file: str | None = _option(None, "your own test data")
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "one or two text columns of your own data"}
    )
    label_column: str = _option("label", "label column of your own data")
    max_length: int = _option(128, "longest row in tokens")
    n_train: int | None = _option(None, "training rows to draw, class-balanced as far as they go (default: all)")
    n_eval: int | None = _option(None, "rows to draw of each other split (default: all, but 500 of the bundled data)")
    head: str = _option("linear", "'linear': one layer on the pooled feature (the paper's); 'native': the model's own")
    pooling: str = _option("auto", "feature of a linear head: first, last, mean, or auto (last for decoders)")
    head_init: str = _option("random", "V before anything: 'random', 'keep' (as loaded), or a file that a linear probe "
                                       "wrote")  # fmt: skip
    head_scale: list[float] = field(
        default_factory=lambda: [1.0],
        metadata={"help": "factor on V before fine-tuning, after the probe if there is one; several "
                  "make one run each, and a picture of features against norm"},
    )  # fmt: skip
    scale_bias: bool = _option(False, "whether --head_scale multiplies b as well")
    lora_rank: int = _option(8, "rank r of the adapters")
    lora_alpha: float = _option(8.0, "α; adapters are scaled by α / r")
    lora_targets: list[str] = field(
        default_factory=list, metadata={"help": "layers to adapt (default: peft's choice, mostly query and value)"}
    )
    lp_solver: str = _option("logistic", "linear probe: 'logistic' (cross-validated, the paper's), or 'adam' or "
                                         "'lbfgs', which record every iteration")  # fmt: skip
    lp_iterations: int | None = _option(None, "iterations of adam and lbfgs (default: 1000)")
    track: bool = _option(True, "measure head, features, loss and gradients while training")
    probe_size: int = _option(100, "rows of each split that are measured while training")
    track_kernel: int = _option(0, "moments at which P and F are computed as well, from start to end")
    kernel_size: int = _option(32, "training rows in the tracked kernel")
    predict: bool = _option(False, "compare the theory's one-step and kernel-gradient-flow predictions with real steps")
    predict_size: int = _option(32, "training and validation rows of that comparison")
    trust_remote_code: bool = _option(False, "run code that the model's repository ships")
    overwrite: bool = _option(False, "replace results in the output folder")
    resume: bool = _option(False, "go on with an interrupted run in the output folder")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        method = Method.of(self.method)
        for flag, value, known in (("--head", self.head, HEADS), ("--pooling", self.pooling, POOLINGS),
                                   ("--lp_solver", self.lp_solver, SOLVERS)):  # fmt: skip
            if value not in known:
                raise InputError(f"unknown {flag} {value!r}; choose one of {', '.join(known)}")
        if self.head_init not in ("random", "keep") and not Path(self.head_init).is_file():
            raise InputError(f"--head_init {self.head_init!r} is neither random, keep, nor a file that exists")
        if not self.head_scale or not all(map(math.isfinite, self.head_scale)):
            raise InputError(f"--head_scale {self.head_scale} must be one or more finite numbers")
        if len({f"{factor:g}" for factor in self.head_scale}) < len(self.head_scale):  # as folders are named
            raise InputError(f"--head_scale {self.head_scale} names one factor twice")
        if not math.isfinite(self.lora_alpha):
            raise InputError(f"--lora_alpha {self.lora_alpha} is not a finite number")
        least = {"lora_rank": 1, "probe_size": 2, "track_kernel": 0, "kernel_size": 2, "predict_size": 2}
        least |= {"lp_iterations": 1, "n_train": 2, "n_eval": 2, "max_length": 1}
        for name, bound in least.items():
            number = getattr(self, name)
            if number is not None and number < bound:
                raise InputError(f"--{name} {number} must be {bound} or more")
        if self.train_file is None and (self.validation_file or self.test_file):
            raise InputError("--validation_file and --test_file need --train_file")
        if self.predict and not method.trains:
            raise InputError("--predict compares with fine-tuning; method lp has none")
        if self.track_kernel and not self.track:
            raise InputError("--track_kernel needs --track")
        if self.overwrite and self.resume:
            raise InputError("--overwrite starts anew and --resume goes on; give one of them")

    def task(self) -> Task:
        """Return the data, not read yet.

        Raises:
            InputError: No such task, or anything wrong with your own files.
        """
        if self.train_file is None:
            return load_task(self.dataset, self.data_dir)
        return load_files(
            self.train_file,
            self.validation_file,
            self.test_file,
            text_columns=tuple(self.text_columns),
            label_column=self.label_column,
        )

    def method_settings(self) -> MethodSettings:
        """Return what the run does besides Trainer's settings."""
        return MethodSettings(
            method=self.method,
            head_init=self.head_init,
            head_scale=self.head_scale[0],
            scale_bias=self.scale_bias,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_targets=tuple(self.lora_targets),
            lp_solver=self.lp_solver,
            lp_iterations=self.lp_iterations,
        )


@dataclass(frozen=True)
class RunSettings:
    """All that a run is made of.

    Attributes:
        options: The command's own options.
        training: Settings of ``TrainingArguments``: the method's defaults, and what was given.
        folder: Where the results go.
    """

    options: FinetuneOptions
    training: dict[str, Any]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Options that replay the run by ``--config``."""
        own = {k: v for k, v in dataclasses.asdict(self.options).items() if k not in _PLACE}
        return own | {k: v.value if isinstance(v, Enum) else v for k, v in self.training.items()}

    def with_head_scale(self, factor: float) -> RunSettings:
        """One run of a grid over head scales, in a folder below."""
        options = dataclasses.replace(self.options, head_scale=[factor])
        return RunSettings(options, self.training, self.folder / f"head-scale-{factor:g}")

    def arguments(self) -> TrainingArguments:
        """Make the settings for ``Trainer``.

        Raises:
            InputError: Settings that transformers or torch refuse, that make no sense, or that ask for what is not
                supported or not installed.
        """
        if self.training.get("deepspeed") or self.training.get("fsdp"):
            raise InputError("DeepSpeed and FSDP are not supported; use torchrun or accelerate launch without them")
        check_strategies(self.training)
        cuda = torch.cuda.is_available() and not self.training.get("use_cpu", False)
        pinned = {} if "dataloader_pin_memory" in self.training else {"dataloader_pin_memory": cuda}
        try:
            arguments = TrainingArguments(
                output_dir=str(self.folder / CHECKPOINTS),
                remove_unused_columns=False,
                label_names=["labels"],
                disable_tqdm=True,
                **pinned,
                **self.training,
            )
        except (ValueError, ImportError, TypeError) as problem:
            raise InputError(f"training settings: {plain(problem)}") from problem
        check_arguments(arguments)
        # Without torchrun, Trainer would spread a batch over all GPUs and then misjudge its mean loss.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        return arguments


def resolve(given: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[RunSettings, Task]:
    """Put options, a config's options and the method's defaults together.

    Args:
        given: What the command line says.
        config: What the config file says; the command line overrides it.

    Returns:
        The settings, and the task.

    Raises:
        InputError: Some option makes no sense.
    """
    merged = {**config, **given}
    own = {f.name: merged.pop(f.name) for f in dataclasses.fields(FinetuneOptions) if f.name in merged}
    options = FinetuneOptions(**own)
    options.check()
    output = merged.pop("output_dir", None)
    refused = sorted(set(merged) & set(_OWN))
    if refused:
        raise InputError(f"--{refused[0]} is decided by this command; leave it out")
    _check_given(options, given)
    task = options.task()
    if options.n_eval is None:
        options.n_eval = default_eval_rows(task.name)
    training = {**training_defaults(options.method, task.name, task.metric), **merged}
    best = str(training["metric_for_best_model"]).removeprefix("eval_")
    if best not in {"loss", "accuracy", task.metric}:
        known = ", ".join(dict.fromkeys(("accuracy", task.metric, "loss")))
        raise InputError(f"unknown --metric_for_best_model {best!r}; choose one of {known}")
    folder = Path(output).expanduser() if output else default_folder(options, int(training["seed"]))
    return RunSettings(options, training, folder), task


def _check_given(options: FinetuneOptions, given: Mapping[str, Any]) -> None:
    """Refuse options on the command line that would do nothing; in a config file they are left from another method."""
    method = Method.of(options.method)
    idle = [] if method.adapts else ["lora_rank", "lora_alpha", "lora_targets"]
    idle += [] if method.probes else ["lp_solver", "lp_iterations"]
    unused = [name for name in idle if name in given]
    if unused:
        raise InputError(f"--{unused[0]} does nothing for method {options.method}; leave it out")
    if "lp_iterations" in given and options.lp_solver == LOGISTIC:
        raise InputError(f"--lp_iterations does nothing for --lp_solver {LOGISTIC}; choose adam or lbfgs")


def default_folder(options: FinetuneOptions, seed: int) -> Path:
    """``runs/MODEL-DATASET-METHOD``, with the seed where it is not 0."""
    data = Path(options.train_file).stem if options.train_file else options.dataset
    parts = [Path(options.model).name, data, options.method] + ([f"seed{seed}"] if seed else [])
    return Path("runs") / "-".join(parts)
