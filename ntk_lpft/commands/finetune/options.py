"""Options of ``python -m ntk_lpft.finetune`` besides those of transformers' ``TrainingArguments``."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ntk_lpft.choices import PATH_SOLVERS
from ntk_lpft.errors import InputError
from ntk_lpft.file_names import short_name
from ntk_lpft.finetuning.settings import Method, MethodSettings
from ntk_lpft.options import (
    DataOptions,
    ModelOptions,
    OutputOptions,
    ScaleOptions,
    check_idle,
    check_least,
    option,
    with_default,
)

PROG = "python -m ntk_lpft.finetune"
DESCRIPTION = (
    "Train a Transformer classifier by linear probing (lp), fine-tuning (ft), both (lp-ft), LoRA (lora) or probing and "
    "LoRA (lp-lora), and follow its head norm, features and kernels. Takes any option of transformers' "
    "TrainingArguments as well; defaults are those of the paper."
)
HEAD_INITS = ("random", "keep")


@dataclass(frozen=True)
class FinetuneOptions(OutputOptions, MethodSettings, ScaleOptions, ModelOptions, DataOptions):
    """Options of ``python -m ntk_lpft.finetune`` besides those of ``TrainingArguments``."""

    TITLE: ClassVar[str] = "this run"

    head_init: str = with_default(ModelOptions, "head_init", "random")
    head_scale: list[float] = option(
        [1.0],
        "factor on V before fine-tuning, after the probe if there is one; several make one run each, and a picture of "
        "features against norm",
    )
    track: bool = option(True, "measure head, features, loss and gradients while training")
    probe_size: int = option(100, "rows of each split that are measured while training")
    track_kernel: int = option(0, "moments at which P and F are computed as well, from start to end")
    kernel_size: int = option(32, "training rows in the tracked kernel")
    predict: bool = option(False, "compare the theory's one-step and kernel-gradient-flow predictions with real steps")
    predict_size: int = option(32, "training and validation rows of that comparison")
    resume: bool = option(False, "go on with an interrupted run in the output folder")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        self.check_output()
        self.check_data()
        self.check_model(HEAD_INITS)
        self.check_method()
        check_least(self, n_train=2, n_eval=2, probe_size=2, track_kernel=0, kernel_size=2, predict_size=2)
        if not self.head_scale or not all(map(math.isfinite, self.head_scale)):
            raise InputError(f"--head-scale {self.head_scale} must be one or more finite numbers")
        if len({f"{factor:g}" for factor in self.head_scale}) < len(self.head_scale):  # as folders are named
            raise InputError(f"--head-scale {self.head_scale} names one factor twice")
        if self.predict and not Method.of(self.method).trains:
            raise InputError("--predict compares with fine-tuning; method lp has none")
        if self.track_kernel and not self.track:
            raise InputError("--track-kernel needs --track")
        if self.overwrite and self.resume:
            raise InputError("--overwrite starts anew and --resume goes on; give one of them")

    def check_given(self, names: set[str]) -> None:
        """Refuse options on the command line that would do nothing; in a config they are left from another method.

        Args:
            names: Those that are on the command line.

        Raises:
            InputError: One of them does nothing.
        """
        check_idle(names, self.idle())
        if "lp_iterations" in names and self.lp_solver not in PATH_SOLVERS:
            raise InputError(f"--lp-iterations does nothing for --lp-solver {self.lp_solver}; choose adam or lbfgs")
        if "fold_draws" in names and self.lp_solver in PATH_SOLVERS:
            raise InputError(f"--fold-draws does nothing for --lp-solver {self.lp_solver}, which has no folds")

    def idle(self) -> dict[str, str]:
        """Options that do nothing as the others are, with the reason."""
        method, why = Method.of(self.method), f"for method {self.method}"
        idle = {**self.idle_data(), **self.idle_model()}
        if not method.adapts:
            idle |= dict.fromkeys(("lora_rank", "lora_alpha", "lora_targets"), why)
        if not method.probes:
            idle |= dict.fromkeys(("lp_solver", "lp_iterations", "fold_draws"), why)
        if self.head_scale == [1]:
            idle["scale_bias"] = "without --head-scale"
        if not self.track:
            idle["probe_size"] = "with --no-track"
        if not self.track_kernel:
            idle["kernel_size"] = "without --track-kernel"
        if not self.predict:
            idle["predict_size"] = "without --predict"
        return idle

    def folder(self, seed: int) -> Path:
        """Where the results go: by default ``runs/MODEL-DATASET-METHOD``, with the seed where it is not 0."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        parts = [self.model_name, self.data_name, self.method] + ([f"seed{seed}"] if seed else [])
        return Path("runs") / short_name("-".join(parts))
