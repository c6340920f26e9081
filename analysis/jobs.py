"""One job of a suite: a command with a folder for its results, and a record of how it went."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ntk_lpft.command import write_json

State = Literal["waiting", "running", "finished", "failed", "blocked"]

JOBS_FOLDER = "jobs"
RESULTS_WORD = "{results}"


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        module: The command's module.
        marker: File that exists when and only when the command has finished.
        resumes: How the command goes on in a folder it has begun in: by ``--resume``, by being called again
            (``again``), or only from the start (``overwrite``).
        says: What the jobs of this kind do, for people.
    """

    module: str
    marker: str
    resumes: Literal["resume", "again", "overwrite"]
    says: str


KINDS: Mapping[str, Kind] = {
    "finetune": Kind("ntk_lpft.finetune", "metrics.json", "resume", "a method's run, tracked"),
    "probe": Kind("ntk_lpft.finetune", "metrics.json", "resume", "linear probe by Adam, every iteration recorded"),
    "head_scale": Kind("ntk_lpft.finetune", "head_scale.csv", "resume", "fine-tuning from heads of many norms"),
    "kernel": Kind("ntk_lpft.compute", "summary.json", "again", "P and F where fine-tuning starts"),
    "calibration": Kind("ntk_lpft.calibrate", "calibration.csv", "overwrite", "temperature scaling of a run"),
    "features": Kind("analysis.experiments.features", "features.safetensors", "overwrite",
                     "features before and after a run"),
    "embedding_sampling": Kind("analysis.experiments.embedding_sampling", "summary.json", "overwrite",
                               "a sampled word-embedding block against the exact one"),
    "lora_scaling": Kind("analysis.experiments.lora_scaling", "summary.json", "overwrite",
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

    def folder(self, results: Path) -> Path:
        """Where its results go."""
        return results / self.name

    def given(self, results: Path) -> list[str]:
        """Return the command's options, with the results folder put in."""
        return [word.replace(RESULTS_WORD, str(results)) for word in self.arguments]

    def command(self, results: Path) -> list[str]:
        """Return the command line, going on where an earlier one was interrupted."""
        folder, kind = self.folder(results), KINDS[self.kind]
        words = [sys.executable, "-m", kind.module, *self.given(results), "--output_dir", str(folder)]
        begun = folder.is_dir() and any(folder.iterdir())
        if not begun or kind.resumes == "again":
            return words
        if kind.resumes == "resume" and (self.kind == "head_scale" or (folder / "config.json").is_file()):
            return [*words, "--resume"]
        return [*words, "--overwrite"]

    def complete(self, results: Path) -> bool:
        """Whether its results are there."""
        return (self.folder(results) / KINDS[self.kind].marker).is_file()

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
        lists = {name: tuple(content[name]) for name in ("arguments", "needs")}
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
        error: Last lines that it wrote, where it failed.
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


def record_path(results: Path, name: str) -> Path:
    """Where a job's record is."""
    return results / JOBS_FOLDER / f"{name}.json"


def log_path(results: Path, name: str) -> Path:
    """Where a job's output is."""
    return results / JOBS_FOLDER / f"{name}.log"


def read_record(results: Path, name: str) -> Record:
    """Read a job's record; one that was never begun, or whose record is damaged, is waiting."""
    try:
        content = json.loads(record_path(results, name).read_text(encoding="utf-8"))
        return Record(**{**content, "arguments": tuple(content["arguments"])})
    except (OSError, ValueError, KeyError, TypeError):
        return Record("waiting")


def write_record(results: Path, name: str, record: Record) -> None:
    """Write a job's record, whole or not at all."""
    path = record_path(results, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record))


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
