"""Options of the side experiments. Nothing heavy is imported, for ``--help``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ntk_lpft.choices import choose
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.errors import InputError
from ntk_lpft.file_names import short_name
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.options import (
    DeviceOptions,
    LoraOptions,
    ModelOptions,
    OutputOptions,
    SeedOptions,
    TrainDataOptions,
    check_least,
    option,
    with_default,
)

SCALING_PROG = "python -m analysis.experiments.lora_scaling"
SCALING_DESCRIPTION = (
    "Measure how close F of LoRA, rescaled, is to F of fine-tuning the adapted weights, for several ranks and draws of "
    "the adapters, beside the paper's bound."
)
SAMPLING_PROG = "python -m analysis.experiments.embedding_sampling"
SAMPLING_DESCRIPTION = (
    "Measure how far random samples of the word embeddings' parameters, as the paper's published code takes them, are "
    "from the exact word-embedding block of F, and what they make of the paper's table of kernel statistics."
)
FEATURES_PROG = "python -m analysis.experiments.features"
FEATURES_DESCRIPTION = (
    "Write the features that a fine-tuned classifier and its pretrained model give the same samples, and the rows of "
    "the head before and after training, for pictures of the feature space."
)


@dataclass(frozen=True)
class ExperimentOptions(OutputOptions, SeedOptions, ModelOptions, TrainDataOptions):
    """Options that say which samples and which model: those that ``python -m ntk_lpft.compute`` has for the same."""

    SAMPLES: ClassVar[int]  # training samples where none are asked for

    dataset: str = with_default(TrainDataOptions, "dataset", "cb")
    head: str = with_default(ModelOptions, "head", "linear")
    head_init: str = with_default(ModelOptions, "head_init", "lp")
    precision: str = with_default(KernelSettings, "precision", "float32")
    device: str | None = with_default(KernelSettings, "device", None)

    def start(self) -> ComputeOptions:
        """Return options of ``python -m ntk_lpft.compute`` with the same samples and model.

        Raises:
            InputError: Some of them makes no sense.
        """
        self.check_output()
        choose("--precision", self.precision, ("float32", "float64"))
        names = {field.name for field in dataclasses.fields(ComputeOptions)}
        shared = {name: value for name, value in dataclasses.asdict(self).items() if name in names}
        rows = {"n_train": self.SAMPLES if self.n_train is None else self.n_train, "n_eval": 1}
        return ComputeOptions(**{**shared, **rows, "eval_split": "validation"}).resolved()

    def idle(self) -> dict[str, str]:
        """Options that do nothing as the others are, each with the reason."""
        return {**self.idle_data(), **self.idle_model()}

    def folder_for(self, *parts: str) -> Path:
        """Return where the results go: the folder that was asked for, or ``runs/PART-…-MODEL-DATASET``."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        return Path("runs") / short_name("-".join([*parts, self.model_name, self.data_name]))


@dataclass(frozen=True)
class ScalingOptions(ExperimentOptions):
    """Options of ``python -m analysis.experiments.lora_scaling``."""

    TITLE: ClassVar[str] = "adapters"
    SAMPLES: ClassVar[int] = 16

    ranks: list[int] = option([1, 2, 4, 8, 16, 32, 64], "ranks r of the adapters")
    draws: int = option(5, "draws of the adapters for each rank")
    lora_alpha: float = with_default(LoraOptions, "lora_alpha", 8.0)
    lora_targets: list[str] = with_default(LoraOptions, "lora_targets", [])
    epsilons: list[float] = option([0.1, 0.25, 0.5], "ε: which entries count as close")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        if not self.ranks or min(self.ranks) < 1 or len(set(self.ranks)) < len(self.ranks):
            raise InputError(f"--ranks {self.ranks} must be one or more positive whole numbers, none twice")
        if self.draws < 1:
            raise InputError(f"--draws {self.draws} is not positive")
        if not all(0 < epsilon < 1 for epsilon in self.epsilons):
            raise InputError(f"--epsilons {self.epsilons} must lie between 0 and 1")
        if self.lora_alpha == 0:
            raise InputError("--lora-alpha 0 switches the adapters off; give another number")
        self.start()


@dataclass(frozen=True)
class SamplingOptions(ExperimentOptions):
    """Options of ``python -m analysis.experiments.embedding_sampling``."""

    TITLE: ClassVar[str] = "sampling"
    SAMPLES: ClassVar[int] = 64

    fraction: float = option(0.1, "share of parameters, and of the feature's entries, that is drawn")
    draws: int = option(100, "draws of parameters")
    published_draws: int = option(2, "how many of them are joined by draws of the feature, at C backward passes each")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        if self.head_init not in ("lp", "random"):
            raise InputError(f"unknown --head-init {self.head_init!r}; choose lp or random")
        if not 0 < self.fraction <= 1:
            raise InputError(f"--fraction {self.fraction} is not a share; give a number above 0, at most 1")
        if self.draws < 2 or not 1 <= self.published_draws <= self.draws:
            raise InputError(
                f"--draws {self.draws} must be at least 2, and --published-draws {self.published_draws} from 1 to "
                "that many"
            )
        self.start()


@dataclass(frozen=True)
class FeatureOptions(OutputOptions, DeviceOptions):
    """Options of ``python -m analysis.experiments.features``."""

    TITLE: ClassVar[str] = "features"
    INPUTS: ClassVar[tuple[str, ...]] = ("run",)

    run: str = option("", "folder of a finished `python -m ntk_lpft.finetune`")
    split: str = option("test", "train, validation, test, or ood.NAME")
    n_eval: int | None = option(None, "most rows, drawn uniformly from those of the run (default: all of them)")
    output_dir: str | None = option(None, "folder for the results")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        self.check_output()
        if not self.run.strip():
            raise InputError("--run is needed: the folder of a finished `python -m ntk_lpft.finetune`")
        if not Path(self.run).expanduser().is_dir():
            raise InputError(f"run folder {self.run} does not exist")
        if self.output_dir is None:
            raise InputError("--output-dir is needed: a folder for the results")
        check_least(self, n_eval=1)
