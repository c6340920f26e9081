"""What the side experiments share: where the samples and the model come from, and how results are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.experiments.folders import ExperimentRun
from analysis.experiments.options import ExperimentOptions
from ntk_lpft.commands.compute.start import KernelSamples
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.provenance import versions


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
