"""What a worker process does with one job: run its command, keep its output, record how it ended."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from analysis.suite.folder import SuiteFolder
from analysis.suite.job import KINDS, Job, Record, last_lines, read_record, write_record


def run_job(job: Job, results: SuiteFolder, launcher: str = "local", gpu: int | None = None) -> str:
    """Run a job's command in this process, to its end, and record it.

    Args:
        job: The job.
        results: The results folder.
        launcher: How this process was started.
        gpu: The only GPU that it may see; None leaves that as it is.

    Returns:
        Its state; ``running`` where another process is at it.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    before = read_record(results, job.name).seconds
    path = results.job_lock(job.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "running"
    with lock:
        process = psutil.Process()
        running = Record(
            "running",
            arguments=job.arguments,
            host=socket.gethostname(),
            pid=process.pid,
            began=process.create_time(),
            launcher=launcher,
            job_id=os.environ.get("SLURM_JOB_ID", ""),
            seconds=before,
        )
        write_record(results, job.name, running)
        start = time.monotonic()
        status = _call(job, results)
        done = status == 0 and job.complete(results)
        said = "" if done else last_lines(results.log(job.name))
        ended = Record(
            "finished" if done else "failed",
            arguments=job.arguments,
            host=running.host,
            launcher=launcher,
            job_id=running.job_id,
            seconds=before + time.monotonic() - start,
            error="" if done else f"exit status {status}: {said}" if status else f"ended without its results: {said}",
        )
        write_record(results, job.name, ended)
    return ended.state


def _call(job: Job, results: SuiteFolder) -> int:
    """Call the command's main function; what it prints goes to the job's log."""
    words = job.command(results)
    with _output_to(results.log(job.name)):
        print(f"$ {' '.join(words[1:])}", flush=True)
        try:
            main = importlib.import_module(KINDS[job.kind].module).main
            return int(main(words[3:]) or 0)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:  # noqa: BLE001 - whatever it is belongs into the log, and the suite goes on
            traceback.print_exc()
            return 1


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send everything that this process prints, libraries' C code included, to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def alive(record: Record) -> bool:
    """Whether the process that a record names is still at work on this machine."""
    if record.host != socket.gethostname() or not record.pid:
        return False
    try:
        process = psutil.Process(record.pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - record.began) < 1
    except psutil.NoSuchProcess:
        return False
