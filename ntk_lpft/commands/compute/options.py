"""Options of ``python -m ntk_lpft.compute``."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ntk_lpft.choices import HEADS, LOGISTIC_SOLVERS, WEIGHT_DTYPES, choose
from ntk_lpft.errors import InputError
from ntk_lpft.file_names import short_name
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.options import (
    DataOptions,
    LoraOptions,
    ModelOptions,
    OutputOptions,
    ProbeOptions,
    ScaleOptions,
    SeedOptions,
    check_least,
    check_seed,
    option,
    with_default,
)

PROG = "python -m ntk_lpft.compute"
DESCRIPTION = (
    "Compute the empirical neural tangent kernel of a Transformer classifier's logits, split it into the "
    "pre-train-effective component P (linear head) and the FT-effective component F (body), and say what it means."
)
HEAD_INITS = ("auto", "lp", "random", "keep")
SAMPLES = 250  # the paper's


@dataclass(frozen=True)
class ComputeOptions(
    OutputOptions, SeedOptions, KernelSettings, LoraOptions, ProbeOptions, ScaleOptions, ModelOptions, DataOptions
):
    """Options of ``python -m ntk_lpft.compute``."""

    TITLE: ClassVar[str] = "this kernel"

    head: str = with_default(ModelOptions, "head", "auto")
    eval_split: str = option("test", "evaluation split: test, validation, or the name of an OOD test")
    balanced: bool = option(False, "draw equally many samples of each class, instead of uniformly")
    head_scale: float = option(1.0, "factor on V")
    lora: bool = option(False, "train LoRA adapters instead of the body")
    weights_dtype: str = option(
        "auto",
        "dtype in which --lora holds the frozen body: 'auto' (the checkpoint's own), bfloat16, float16, float32 or "
        "float64; each weight is widened where a layer uses it, and the head is float32 at least",
    )
    kernel_classifier: bool = option(True, "fit the paper's kernel classifier")
    max_iter: int = option(10_000, "most iterations of a kernel classifier's fit")
    dry_run: bool = option(False, "say what the kernel will cost (passes, operations, memory, disk, time), and stop")

    def resolved(self) -> ComputeOptions:
        """Put defaults that depend on the command in, and refuse what can be seen to be wrong without loading anything.

        Returns:
            The options with which to go on.

        Raises:
            InputError: Some option makes no sense.
        """
        options = dataclasses.replace(
            self,
            n_train=SAMPLES if self.n_train is None else self.n_train,
            n_eval=SAMPLES if self.n_eval is None else self.n_eval,
        )
        options.check()
        return options

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        self.check_output()
        self.check_data()
        self.check_model(HEAD_INITS, ("auto", *HEADS))
        self.check_lora()
        choose("--weights-dtype", self.weights_dtype, WEIGHT_DTYPES)
        self.check_probe(LOGISTIC_SOLVERS)
        check_least(self, n_train=2, n_eval=1, max_iter=1)
        check_seed(self.seed)
        if not math.isfinite(self.head_scale):
            raise InputError(f"--head-scale {self.head_scale} is not a finite number")
        KernelSettings.check(self)
        if self.outputs == "pseudo" and self.head_init == "lp":
            raise InputError(
                "--outputs pseudo says nothing with --head-init lp, whose logits always sum to the same; "
                "use --outputs class_trace, or another --head-init"
            )

    def idle(self) -> dict[str, str]:
        """Options that do nothing as the others are, with the reason."""
        idle = {**self.idle_data(), **self.idle_model()}
        if not self.lora:
            names = ("lora_rank", "lora_alpha", "lora_targets", "weights_dtype")
            idle |= dict.fromkeys(names, "without --lora")
        if self.head_init not in ("lp", "auto"):
            why = f"with --head-init {self.head_init}, as only lp fits a probe"
            idle |= dict.fromkeys(("lp_solver", "fold_draws"), why)
        if self.head_scale == 1:
            idle["scale_bias"] = "without --head-scale"
        if self.outputs != "full":
            why = f"for --outputs {self.outputs}, which have no class blocks to classify with"
            idle |= dict.fromkeys(("kernel_classifier", "max_iter") if self.kernel_classifier else ("max_iter",), why)
        elif not self.kernel_classifier:
            idle["max_iter"] = "without the kernel classifier"
        return idle

    def folder(self) -> Path:
        """Where the results go; ``auto`` must have been made out."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        parts = [self.model_name, self.data_name, Path(self.head_init).stem] + (["lora"] if self.lora else [])
        return Path("runs") / short_name("-".join(parts))
