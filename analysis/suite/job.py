"""One job of a suite: a command with a folder for its results, and a record of how it went."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from analysis.experiments.folders import FeatureRun, SamplingRun, ScalingRun
from analysis.suite.folder import SuiteFolder
from analysis.suite.schemas import State, StoredRecord
from ntk_lpft.checksums import read_sealed, write_sealed
from ntk_lpft.errors import InputError
from ntk_lpft.runs import CalibrationRun, FinetuneRun, HeadScaleGrid, KernelRun, RunFolder
from ntk_lpft.runs.schemas import check_json

RESULTS_WORD = "{results}"


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        module: The command's module.
        folder: The folder of its results.
        resumes: How the command goes on in a folder it has begun in: by ``--resume``, by being called again
            (``again``), or only from the start (``overwrite``).
        says: What the jobs of this kind do, for people.
    """

    module: str
    folder: type[RunFolder]
    resumes: Literal["resume", "again", "overwrite"]
    says: str


KINDS: Mapping[str, Kind] = {
    "finetune": Kind("ntk_lpft.finetune", FinetuneRun, "resume", "a method's run, tracked"),
    "probe": Kind("ntk_lpft.finetune", FinetuneRun, "resume", "linear probe by Adam, every iteration recorded"),
    "head_scale": Kind("ntk_lpft.finetune", HeadScaleGrid, "resume", "fine-tuning from heads of many norms"),
    "kernel": Kind("ntk_lpft.compute", KernelRun, "again", "P and F where fine-tuning starts"),
    "calibration": Kind("ntk_lpft.calibrate", CalibrationRun, "overwrite", "temperature scaling of a run"),
    "features": Kind("analysis.experiments.features", FeatureRun, "overwrite", "features before and after a run"),
    "embedding_sampling": Kind("analysis.experiments.embedding_sampling", SamplingRun, "overwrite",
                               "a sampled word-embedding block against the exact one"),
    "lora_scaling": Kind("analysis.experiments.lora_scaling", ScalingRun, "overwrite",
                         "F of LoRA against that of FT"),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        kind: A key of `KINDS`.
        dataset: The task's name.
        method: ``lp``, ``ft``, ``lp-ft``, ``lora`` or ``lp-lora``: what is run, or whose start is looked at.
        seed: Of everything random in it.
        arguments: The command's options without its output folder; ``{results}`` stands for the results folder.
        needs: Names of jobs that must have finished before.
        flops: Floating-point operations that it is expected to take, for the estimate.
    """

    kind: str
    dataset: str
    method: str
    seed: int
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    flops: float = field(default=0.0, compare=False)

    @property
    def name(self) -> str:
        """``KIND/DATASET/METHOD/seed-SEED``, which is also its folder within the results."""
        return f"{self.kind}/{self.dataset}/{self.method}/seed-{self.seed}"

    def run(self, suite: SuiteFolder) -> RunFolder:
        """Where its results go."""
        return KINDS[self.kind].folder(suite.job(self.name))

    def given(self, suite: SuiteFolder) -> list[str]:
        """Return the command's options, with the results folder put in."""
        return [word.replace(RESULTS_WORD, str(suite.path)) for word in self.arguments]

    def command(self, suite: SuiteFolder) -> list[str]:
        """Return the command line, going on where an earlier one was interrupted."""
        run, kind = self.run(suite), KINDS[self.kind]
        words = [sys.executable, "-m", kind.module, *self.given(suite), "--output-dir", str(run.path)]
        empty = not run.path.is_dir() or not any(run.path.iterdir())
        if empty or kind.resumes == "again":
            return words
        return [*words, "--resume" if kind.resumes == "resume" and run.begun else "--overwrite"]

    def complete(self, suite: SuiteFolder) -> bool:
        """Whether its results are there."""
        return self.run(suite).finished

    def to_json(self) -> dict[str, Any]:
        """Everything but the name, which follows from it."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Job:
        """Invert `to_json`.

        Raises:
            KeyError, TypeError: The content is no job's.
        """
        if content["kind"] not in KINDS:
            raise KeyError(content["kind"])
        lists = {"arguments": _with_dashes(content["arguments"]), "needs": tuple(content["needs"])}
        return Job(**{**content, **lists})


@dataclass(frozen=True)
class Record:
    """How a job went, or goes.

    Attributes:
        state: Of the job.
        arguments: Those it ran with.
        host: Name of the machine.
        pid: Process that runs it.
        began: When that process was made, in seconds since 1970; tells it from a later one with its number.
        launcher: ``local`` or ``slurm``.
        job_id: The launcher's number of it.
        seconds: It took, over all the times it was begun.
        error: Last lines that it wrote, where it failed; of a damaged record, what is wrong with it.
    """

    state: State
    arguments: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    began: float = 0.0
    launcher: str = ""
    job_id: str = ""
    seconds: float = 0.0
    error: str = ""


def _with_dashes(words: Sequence[str]) -> tuple[str, ...]:
    """Spell flags as they are today; results of earlier versions have underscores in them."""
    return tuple(word.replace("_", "-") if word.startswith("--") else word for word in words)


def read_record(suite: SuiteFolder, name: str) -> Record:
    """Read a job's record; one that was never begun, or whose record is damaged, is waiting."""
    path = suite.record(name)
    if not path.exists():
        return Record("waiting")
    try:
        content = read_sealed(path)
        check_json(path, content, StoredRecord)
    except InputError as error:
        return Record("waiting", error=str(error))
    return Record(**{**content, "arguments": _with_dashes(content.get("arguments", []))})


def write_record(suite: SuiteFolder, name: str, record: Record) -> None:
    """Write a job's record."""
    write_sealed(suite.record(name), asdict(record))


def last_lines(path: Path, count: int = 1, most: int = 4000) -> str:
    """Return the last lines that a command wrote, without the steps of progress bars."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, os.path.getsize(path) - most))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    return "\n".join([line for line in lines if line][-count:])


def names_of(jobs: Sequence[Job]) -> list[str]:
    """Return the jobs' names, in order."""
    return [job.name for job in jobs]
