"""Runs a suite: which jobs are left, when each may start, and what became of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import pandas as pd
from tqdm.auto import tqdm

from analysis import catalogue
from analysis.suite.definitions import MODELS, Suite, suite_of
from analysis.suite.folder import SuiteFolder
from analysis.suite.job import KINDS, Job, names_of, read_record, write_record
from analysis.suite.launcher import Handle, Launcher, default_parallel
from analysis.suite.options import SuiteOptions
from analysis.suite.plan import plan
from analysis.suite.preparation import machine_versions, prepare_model
from analysis.suite.results import describe_problem, read_results
from ntk_lpft.errors import InputError
from ntk_lpft.runs.lock import folder_lock
from ntk_lpft.tasks import load_task

_POLL = 1.0  # seconds


def run_suite(options: SuiteOptions) -> int:
    """Run a suite; jobs that have finished are left as they are.

    Returns:
        How many of the jobs asked for have no results in the end.

    Raises:
        InputError: Some option makes no sense, or the folder belongs to another suite.
    """
    suite = suite_of(options.suite)
    kinds = catalogue.kinds_for(options.only) if options.only else None
    jobs = plan(suite, kinds=kinds, datasets=options.datasets, methods=options.methods, seeds=options.seeds)
    results = SuiteFolder(options.output_dir or f"runs/{suite.name}")
    _check_folder(results, suite, jobs)
    parallel = options.parallel or default_parallel(options.launcher)
    if options.dry_run:
        _show_plan(suite, jobs, results, parallel, retry=options.retry)
        return 0
    for dataset in dict.fromkeys(job.dataset for job in jobs):
        load_task(dataset, None).split("train")  # data that is not there is named now, not hours later
    with folder_lock(results.path, results.COMMAND):
        results.check_own([*KINDS, MODELS])
        launcher = _launcher(options, results, parallel)
        _write_suite(results, suite, jobs)  # first, as it says whose the folder is
        prepare_model(suite, results)
        _run_jobs(jobs, results, launcher, retry=options.retry)
    return _close(results, jobs)


def _launcher(options: SuiteOptions, results: SuiteFolder, parallel: int) -> Launcher:
    try:
        return Launcher(
            options.launcher, results, parallel, options.hours, dict(word.split("=", 1) for word in options.slurm)
        )
    except InputError:
        if not results.begun:  # submitit has made a folder
            shutil.rmtree(results.path / results.JOBS, ignore_errors=True)
        raise


def _check_folder(results: SuiteFolder, suite: Suite, jobs: Sequence[Job]) -> None:
    """Refuse to mix suites, or results of other settings, in one folder."""
    if results.begun:
        before = read_results(results.path)
        if before.suite.get("name") != suite.name:
            raise InputError(f"{results.path} holds suite {before.suite.get('name')}; choose another --output-dir")
    for job in jobs:
        record = read_record(results, job.name)
        if record.state == "finished" and record.arguments != job.arguments:
            raise InputError(
                f"{job.run(results).path} was made with other settings ({_changed(record.arguments, job.arguments)}); "
                "move it away, or choose another --output-dir"
            )


def _changed(old: Sequence[str], new: Sequence[str]) -> str:
    """Find the first place where two command lines differ."""
    for before, now in zip(old, new, strict=False):
        if before != now:
            return f"{before} instead of {now}"
    return f"{len(old)} words instead of {len(new)}"


def _write_suite(results: SuiteFolder, suite: Suite, jobs: Sequence[Job]) -> None:
    """Describe the results: the suite, and every job ever asked for in this folder."""
    known = [entry.job for entry in read_results(results.path).entries] if results.begun else []
    merged = {job.name: job for job in (*known, *jobs)}
    order = {name: place for place, name in enumerate(names_of(plan(suite)))}
    together = sorted(merged.values(), key=lambda job: order.get(job.name, len(order)))
    content = {
        "name": suite.name,
        "says": suite.says,
        "settings": json.loads(json.dumps(asdict(suite))),
        "versions": machine_versions(),
        "jobs": [job.to_json() for job in together],
    }
    results.write(content)


def _run_jobs(jobs: Sequence[Job], results: SuiteFolder, launcher: Launcher, *, retry: bool) -> None:
    """Run what is to be run, as many at a time as allowed, until nothing is left that can be."""
    state = {job.name: _state_now(job, results, retry=retry) for job in jobs}
    waiting = [job for job in jobs if state[job.name] == "waiting"]
    active: list[Handle] = []
    for job in jobs:
        handle = launcher.adopt(job, read_record(results, job.name)) if state[job.name] == "waiting" else None
        if handle is not None:
            active.append(handle)
            waiting.remove(job)
    skipped = list(state.values()).count("finished")
    print(f"{len(jobs)} jobs, {skipped} of them finished before; results in {results.path}", flush=True)
    with tqdm(total=len(jobs) - skipped, unit="job", desc="suite", dynamic_ncols=True, smoothing=0) as bar:
        bar.update(list(state.values()).count("failed"))
        while waiting or active:
            for job in [job for job in waiting if any(state.get(name) in ("failed", "blocked") for name in job.needs)]:
                waiting.remove(job)
                state[job.name] = "blocked"
                write_record(results, job.name, replace(read_record(results, job.name), state="blocked"))
                bar.update()
            while len(active) < launcher.parallel:
                ready = next((job for job in waiting if _ready(job, state)), None)
                if ready is None:
                    break
                waiting.remove(ready)
                active.append(launcher.start(ready))
            bar.set_postfix_str(", ".join(handle.job.name for handle in active[:3]), refresh=False)
            bar.refresh()
            time.sleep(_POLL)
            for handle in [handle for handle in active if handle.ended(results)]:
                active.remove(handle)
                launcher.release(handle)
                state[handle.job.name] = _outcome(handle, results)
                if state[handle.job.name] == "failed":
                    tqdm.write(f"failed: {handle.job.name}: {read_record(results, handle.job.name).error}")
                bar.update()
    launcher.close()


def _ready(job: Job, state: Mapping[str, str]) -> bool:
    # A need that was not asked for in this call has been looked up as everything else: plan() brings it along.
    return all(state[name] == "finished" for name in job.needs)


def _state_now(job: Job, results: SuiteFolder, *, retry: bool) -> str:
    record = read_record(results, job.name)
    if record.state == "finished" and job.complete(results):
        return "finished"
    return "failed" if record.state == "failed" and not retry else "waiting"


def _outcome(handle: Handle, results: SuiteFolder) -> str:
    """Read how a job ended; a worker that was killed could not say it."""
    record = read_record(results, handle.job.name)
    if record.state in ("finished", "failed"):
        return record.state
    why = ""
    if handle.submitted is not None:
        error = handle.submitted.exception()
        why = f" ({str(error).strip().splitlines()[-1]})" if error is not None and str(error).strip() else ""
    error = f"its process ended without a word: killed, perhaps for want of memory or time{why}"
    write_record(results, handle.job.name, replace(record, state="failed", arguments=handle.job.arguments, error=error))
    return "failed"


def _close(results: SuiteFolder, jobs: Sequence[Job]) -> int:
    """Say how it went; returns how many jobs have no results."""
    asked = set(names_of(jobs))
    entries = [entry for entry in read_results(results.path).entries if entry.job.name in asked]
    broken = [entry for entry in entries if entry.broken]
    seconds = sum(entry.record.seconds for entry in entries)
    print(f"\n{len(entries) - len(broken)} of {len(entries)} jobs finished, {_duration(seconds)} of work in all")
    for entry in broken:
        print(f"  {describe_problem(entry, results)}")
    if broken:
        print(f"Their output is in {results.path / results.JOBS}; --retry runs those that failed again")
    print(
        f"Next: python -m analysis.tables {results.path}; python -m figures {results.path}; "
        f"python -m analysis.report {results.path}"
    )
    return len(broken)


def _show_plan(suite: Suite, jobs: Sequence[Job], results: SuiteFolder, parallel: int, *, retry: bool) -> None:
    """List the jobs, and how long they may take."""
    seconds = _estimates(suite, jobs, results)
    rows = []
    for job in jobs:
        state = _state_now(job, results, retry=retry)
        rows.append({"job": job.name, "state": state, "estimate": seconds[job.name]})
        print(f"{job.name:60} {state:9} {_duration(seconds[job.name]):>9}  {' '.join(job.given(results))}")
    table = pd.DataFrame(rows)
    table["kind"] = [job.kind for job in jobs]
    left = table[table["state"] == "waiting"]
    print(f"\nSuite {suite.name}: {suite.says}")
    for kind, group in left.groupby("kind", sort=False):
        print(f"  {len(group):4} × {kind} ({KINDS[str(kind)].says}): about {_duration(group['estimate'].sum())}")
    total = left["estimate"].sum()
    print(
        f"{len(left)} of {len(jobs)} jobs to run: about {_duration(total)} of work, "
        f"{_duration(total / parallel)} with {parallel} at a time"
    )
    print(f"The estimate is for {suite.machine}, from operations counted, and from finished jobs of the same kind.")


def _estimates(suite: Suite, jobs: Sequence[Job], results: SuiteFolder) -> dict[str, float]:
    """Seconds of each job: from those of its kind, data set and method that have finished, else from its operations."""
    done: dict[tuple[str, str, str], list[float]] = {}
    for job in plan(suite):
        record = read_record(results, job.name)
        if record.state == "finished":
            done.setdefault((job.kind, job.dataset, job.method), []).append(record.seconds)
    start = 8.0  # seconds to import everything and read model and data
    estimates = {}
    for job in jobs:
        seen = done.get((job.kind, job.dataset, job.method))
        estimates[job.name] = sum(seen) / len(seen) if seen else start + job.flops / suite.flops_per_second
    return estimates


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
