"""What the side experiments share: where the samples and the model come from, and how results are written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ntk_lpft.command import write_json
from ntk_lpft.compute import ComputeOptions, Data
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.identity import versions

CONFIG, SUMMARY = "config.json", "summary.json"


def option(default: Any, text: str) -> Any:
    """Dataclass field with a help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class ExperimentOptions:
    """Options that say which samples and which model: those that ``python -m ntk_lpft.compute`` has for the same."""

    model: str = option("minilm", "model: a Hub name, a folder, or the bundled 'minilm'")
    dataset: str = option("cb", "task by name; see --train-file for your own data")
    data_dir: str | None = option(None, "folder with original releases (default: $NTK_LPFT_DATA, else the Hub)")
    train_file: str | None = option(None, "your own training data, instead of --dataset")
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "one or two text columns of your own data"}
    )
    label_column: str = option("label", "label column of your own data")
    max_length: int = option(128, "longest row in tokens")
    seed: int = option(0, "seed of samples, new head and draws")
    precision: str = option("float32", "float32 or float64")
    device: str | None = option(None, "cpu, cuda, cuda:1 (default: cuda where there is one)")
    output_dir: str | None = option(None, "folder for the results (default: below runs)")
    overwrite: bool = option(False, "replace results in the output folder")

    def start(self, **more: Any) -> ComputeOptions:
        """Return options of ``python -m ntk_lpft.compute`` with the same samples and model.

        Raises:
            InputError: Some of them makes no sense.
        """
        if self.precision not in ("float32", "float64"):
            raise InputError(f"unknown --precision {self.precision!r}; choose float32 or float64")
        names = {f.name for f in dataclasses.fields(ComputeOptions)}
        shared = {name: value for name, value in dataclasses.asdict(self).items() if name in names}
        options = ComputeOptions(**{**shared, "n_eval": 1, "eval_split": "validation", **more})
        options.check()
        return options

    def folder_for(self, *parts: str) -> Path:
        """Return where the results go: the folder that was asked for, or ``runs/PART-…-MODEL-DATASET``."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        data = Path(self.train_file).stem if self.train_file else self.dataset
        return Path("runs") / "-".join([*parts, Path(self.model).name, data])


def write_results(
    folder: Path,
    command: str,
    options: ExperimentOptions,
    data: Data,
    table: tuple[str, pd.DataFrame],
    summary: Mapping[str, Any],
) -> None:
    """Write settings, a table and a summary, each whole or not at all; the summary last, as it marks the end.

    Args:
        folder: Where to; it exists.
        command: How the command is called.
        options: What it was asked for.
        data: What it was run on.
        table: The table's file name, and the table.
        summary: What was found.
    """
    name, frame = table
    for file in (CONFIG, name, SUMMARY):
        (folder / file).unlink(missing_ok=True)
    train = data.train
    config = {
        "command": command,
        "options": {key: value for key, value in dataclasses.asdict(options).items() if key != "overwrite"},
        "versions": versions(),
        "data": {
            "train": {
                "fingerprint": train.fingerprint,
                "indices": train.indices.tolist(),
                "labels": train.labels.tolist(),
                "truncated": train.n_truncated,
            }
        },
        "label_names": list(data.task.label_names),
        "source": data.task.source,
    }
    write_json(folder / CONFIG, config)
    partial = folder / f".{name}.{os.getpid()}.partial"
    frame.to_csv(partial, index=False)
    os.replace(partial, folder / name)
    write_json(folder / SUMMARY, summary)
    print(f"Results in {folder}: {CONFIG}, {name}, {SUMMARY}")
