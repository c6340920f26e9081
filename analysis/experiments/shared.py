"""What the side experiments share: where the samples and the model come from, and how results are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from analysis.experiments.folders import ExperimentRun
from ntk_lpft.choices import choose
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.compute.start import KernelSamples
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.kernel import KernelSettings
from ntk_lpft.options import DataOptions, ModelOptions, OutputOptions, SeedOptions, with_default
from ntk_lpft.provenance import versions


@dataclass(frozen=True)
class ExperimentOptions(OutputOptions, SeedOptions, ModelOptions, DataOptions):
    """Options that say which samples and which model: those that ``python -m ntk_lpft.compute`` has for the same."""

    SAMPLES: ClassVar[int]  # training samples where none are asked for

    dataset: str = with_default(DataOptions, "dataset", "cb")
    head_init: str = with_default(ModelOptions, "head_init", "lp")
    precision: str = with_default(KernelSettings, "precision", "float32")
    device: str | None = with_default(KernelSettings, "device", None)

    def start(self) -> ComputeOptions:
        """Return options of ``python -m ntk_lpft.compute`` with the same samples and model.

        Raises:
            InputError: Some of them makes no sense.
        """
        choose("--precision", self.precision, ("float32", "float64"))
        names = {field.name for field in dataclasses.fields(ComputeOptions)}
        shared = {name: value for name, value in dataclasses.asdict(self).items() if name in names}
        rows = {"n_train": self.SAMPLES if self.n_train is None else self.n_train, "n_eval": 1}
        return ComputeOptions(**{**shared, **rows, "eval_split": "validation"}).resolved()

    def folder_for(self, *parts: str) -> Path:
        """Return where the results go: the folder that was asked for, or ``runs/PART-…-MODEL-DATASET``."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        return Path("runs") / "-".join([*parts, self.model_name, self.data_name])


def write_results(
    run: ExperimentRun,
    options: ExperimentOptions,
    samples: KernelSamples,
    table: pd.DataFrame,
    summary: Mapping[str, Any],
) -> None:
    """Write settings, a table and a summary; the summary last, as it marks the end.

    Args:
        run: Where to.
        options: What was asked for.
        samples: What it was run on.
        table: One row for each draw.
        summary: What was found.
    """
    run.clear()
    run.write_config(
        {
            "options": stored_options(options),
            "versions": versions(),
            "data": {"train": samples.train.description()},
            "label_names": list(samples.task.label_names),
            "source": samples.task.source,
        }
    )
    run.write_results(table, summary)
    print(f"Results in {run.path}: {', '.join(run.written())}")
