"""Folders of the side experiments' results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
from torch import Tensor

from ntk_lpft.json_files import read_json
from ntk_lpft.runs import RunFolder
from ntk_lpft.storage import read_tensors, write_json, write_table, write_tensors


class FeatureRun(RunFolder):
    """Features of the same samples before and after a run."""

    FEATURES: ClassVar[str] = "features.safetensors"
    RESULTS = (RunFolder.CONFIG, FEATURES)
    MARKER = FEATURES
    COMMAND = "python -m analysis.experiments.features"

    def write_features(self, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Write features and heads, and mark the command as finished."""
        write_tensors(self.file(self.FEATURES), tensors, {"command": self.COMMAND, **description})
        self.seal()

    def features(self) -> dict[str, Tensor]:
        """Read features and heads by name.

        Raises:
            InputError: The file is missing, damaged or altered.
        """
        return read_tensors(self.believed(self.FEATURES))[0]


class ExperimentRun(RunFolder):
    """A table of draws, and a summary."""

    TABLE: ClassVar[str]
    SUMMARY: ClassVar[str] = "summary.json"
    MARKER = SUMMARY

    def write_results(self, table: pd.DataFrame, summary: Mapping[str, Any]) -> None:
        """Write table and summary, and mark the command as finished."""
        write_table(self.file(self.TABLE), table)
        write_json(self.file(self.SUMMARY), summary)
        self.seal()

    def summary(self) -> dict[str, Any]:
        """Read the summary.

        Raises:
            InputError: It is missing, damaged or altered.
        """
        return read_json(self.believed(self.SUMMARY))


class SamplingRun(ExperimentRun):
    """A sampled word-embedding block against the exact one."""

    TABLE = "draws.csv"
    RESULTS = (RunFolder.CONFIG, TABLE, ExperimentRun.SUMMARY)
    COMMAND = "python -m analysis.experiments.embedding_sampling"


class ScalingRun(ExperimentRun):
    """F of LoRA against that of fine-tuning."""

    TABLE = "scaling.csv"
    RESULTS = (RunFolder.CONFIG, TABLE, ExperimentRun.SUMMARY)
    COMMAND = "python -m analysis.experiments.lora_scaling"
