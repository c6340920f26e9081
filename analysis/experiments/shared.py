"""What the side experiments share: where the samples and the model come from, and how results are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import nn

from analysis.experiments.folders import ExperimentRun
from analysis.experiments.options import ExperimentOptions
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.compute.start import KernelSamples, read_samples, settle_head
from ntk_lpft.commands.data import task_of
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.provenance import versions
from ntk_lpft.runs import RunFolder
from ntk_lpft.storage import tensor_digest


def start_of(options: ExperimentOptions) -> tuple[ComputeOptions, KernelSamples]:
    """Return the options of ``python -m ntk_lpft.compute`` with the same samples and model, and the samples.

    Args:
        options: What was asked for.

    Returns:
        Both.

    Raises:
        InputError: Anything wrong with the options, the data or the tokenizer.
    """
    start = options.start()
    task = task_of(start)
    start = settle_head(start, task)
    return start, read_samples(start, task)


def config_of(options: ExperimentOptions, samples: KernelSamples, model: nn.Module) -> dict[str, Any]:
    """Return what an experiment depends on, as its config holds it.

    Args:
        options: What was asked for.
        samples: What it is run on.
        model: The model that it is run with.

    Returns:
        The content of the config.
    """
    return {
        "options": stored_options(options),
        "versions": versions(),
        "data": {"train": samples.train.description()},
        "model": {"weights_sha256": tensor_digest(dict(model.named_parameters()))},
        "label_names": list(samples.task.label_names),
        "source": samples.task.source,
    }


def is_done(run: RunFolder, config: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Say so where a folder holds what a command would make.

    Args:
        run: The folder, opened with the command's options.
        config: What the results depend on.
        overwrite: Whether they are to be made anew all the same.

    Returns:
        Whether they are there.

    Raises:
        InputError: Finished results of the same options are there, of other data, another model or other versions.
    """
    if overwrite or not run.finished:
        return False
    run.check_same(config, ["data", "model", "versions"])
    print(f"{run.path} holds finished results of these settings: {', '.join(run.written())}")
    return True


def write_results(
    run: ExperimentRun, config: Mapping[str, Any], table: pd.DataFrame, summary: Mapping[str, Any]
) -> None:
    """Write settings, a table and a summary; the summary last, as it marks the end.

    Args:
        run: Where to.
        config: What the results depend on.
        table: One row for each draw.
        summary: What was found.
    """
    run.clear()
    run.write_config(config)
    run.write_results(table, summary)
    print(f"Results in {run.path}: {', '.join(run.written())}")
