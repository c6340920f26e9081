"""Starting jobs as processes of this machine or of a Slurm cluster, through submitit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from analysis.suite.folder import SuiteFolder
from analysis.suite.job import Job, Record, read_record
from analysis.suite.worker import alive, run_job
from ntk_lpft.errors import InputError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Handle:
    """A job that was started.

    Attributes:
        job: The job.
        gpu: The GPU it was given, if any.
        submitted: submitit's handle; None for a job that an earlier call started.
    """

    job: Job
    gpu: int | None
    submitted: Any

    def ended(self, results: SuiteFolder) -> bool:
        """Whether its process is gone."""
        if self.submitted is not None:
            return bool(self.submitted.done())
        return not alive(read_record(results, self.job.name))


class Launcher:
    """Starts jobs.

    submitit passes what a job needs through pickled files of its own; they lie in a folder that goes when all is done.

    Args:
        kind: ``local`` or ``slurm``.
        results: The results folder; on Slurm, on a disk that all machines share.
        parallel: Most jobs at a time.
        hours: Time limit of a job.
        slurm: Further settings of submitit's Slurm executor, such as ``partition`` and ``gpus_per_node``.

    Raises:
        InputError: submitit is not installed, there is no Slurm here, or it knows no such setting.
    """

    def __init__(self, kind: str, results: SuiteFolder, parallel: int, hours: float, slurm: Mapping[str, str]) -> None:
        try:
            import submitit  # an extra
        except ImportError as error:
            raise InputError(
                "running a suite needs submitit; install the extra: pip install 'ntk_lpft[analysis]'"
            ) from error
        if kind == "slurm" and shutil.which("sbatch") is None:
            raise InputError("--launcher slurm: there is no sbatch here; run this where jobs can be submitted")
        self.kind = kind
        self.results = results
        self.parallel = parallel
        self.folder = results.launcher
        self.executor = submitit.AutoExecutor(folder=str(self.folder / "%j"), cluster=kind)
        settings: dict[str, Any] = {"timeout_min": int(hours * 60)}
        settings |= {f"slurm_{name}": int(value) if value.isdigit() else value for name, value in slurm.items()}
        try:
            self.executor.update_parameters(**settings)
        except (NameError, TypeError, ValueError) as error:
            raise InputError(f"--slurm: {error}") from error
        self.free_gpus: list[int] = list(range(torch.cuda.device_count())) if kind == "local" else []

    def start(self, job: Job) -> Handle:
        """Start a job's process."""
        gpu = self.free_gpus.pop(0) if self.free_gpus else None
        with _thread_limit(0 if self.kind == "slurm" else max(1, (os.cpu_count() or 1) // self.parallel)):
            submitted = self.executor.submit(run_job, job, SuiteFolder(self.results.path.absolute()), self.kind, gpu)
        return Handle(job, gpu, submitted)

    def adopt(self, job: Job, record: Record) -> Handle | None:
        """Find the process that an earlier call started for a job, if it is still at work."""
        if record.state != "running":
            return None
        if record.launcher == "slurm" and self.kind == "slurm" and record.job_id:
            import submitit  # an extra

            submitted: Any = submitit.SlurmJob(folder=self.folder / "%j", job_id=record.job_id)
            return None if submitted.done(force_check=True) else Handle(job, None, submitted)
        return Handle(job, None, None) if alive(record) else None

    def release(self, handle: Handle) -> None:
        """Take back what a job that ended was given."""
        if handle.gpu is not None:
            self.free_gpus.append(handle.gpu)

    def close(self) -> None:
        """Remove submitit's own files."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """Share the machine's cores among the processes that are started meanwhile, unless the user has said how."""
    mine = [name for name in _THREADS if threads and name not in os.environ]
    os.environ.update(dict.fromkeys(mine, str(threads)))
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


def default_parallel(kind: str) -> int:
    """Most jobs at a time, where the user says nothing."""
    if kind == "slurm":
        return 100
    # One a GPU; on CPUs, two with half the cores each get more done than one with all, and fit a laptop's memory.
    return torch.cuda.device_count() or min(2, os.cpu_count() or 1)
