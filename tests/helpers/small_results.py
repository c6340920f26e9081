"""Results of a whole suite, with every kind of job, made in seconds: a tiny BERT on made-up reviews with OOD tests."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

from analysis.suite.definitions import DataSettings, Suite
from analysis.suite.folder import SuiteFolder
from analysis.suite.plan import plan
from analysis.suite.preparation import machine_versions
from analysis.suite.worker import run_job
from helpers.small import WORDS, save_model

CLASSES = 3
TESTS = ("amazon", "dynasent", "semeval", "sst5")


def small_results(factory: pytest.TempPathFactory) -> Path:
    """Return the results folder; the first test that asks, of all processes, has it made."""
    shared = factory.getbasetemp()
    # Processes of pytest-xdist have folders of their own within a common one.
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder = shared / "small-results"
    with FileLock(shared / "small-results.lock"):
        if not (folder / "done").is_file():
            make_results(folder, make_data(shared / "small-data"))
            (folder / "done").touch()
    return folder


def make_data(folder: Path) -> Path:
    """Write reviews in the BOSS files' form, in which a word tells the label; OOD tests are worded otherwise."""
    for place, name in enumerate(TESTS):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, count in (("train", 40), ("test", 12)):
            with (folder / name / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t")
                writer.writerow(("Text", "Label"))
                for i in range(count):
                    label = i % CLASSES
                    others = [WORDS[3 + (place * 5 + i * step) % 20] for step in (1, 3, 7)[: 1 + i % 3]]
                    writer.writerow((" ".join([WORDS[label], *others]), label))
    return folder


def make_results(folder: Path, data: Path) -> None:
    """Run every job of a small suite in this process."""
    model = save_model(folder / "models" / "bert", config={"hidden_dropout_prob": 0.1})
    settings = DataSettings(epochs=1, kernel_rows=(6, 6), scale_rows=(12, 6), scale_epochs=1, scale_seeds=1)
    suite = Suite(
        name="small",
        says="a tiny model on made-up reviews",
        model=str(model),
        datasets={"amazon": settings},
        methods=("lp", "ft", "lp-ft"),
        seeds=(1,),
        kernel_seeds=1,
        head_scales=(1.0, 10.0),
        probe_iterations=30,
        probe_size=6,
        max_length=16,
        resamples=0,
        experiments=(),
    )
    jobs = plan(suite)
    content = {
        "name": suite.name,
        "says": suite.says,
        "settings": json.loads(json.dumps(asdict(suite))),
        "versions": machine_versions(),
        "jobs": [job.to_json() for job in jobs],
    }
    results = SuiteFolder(folder)
    results.write(content)
    with mock.patch.dict(os.environ, {"NTK_LPFT_DATA": str(data)}):
        states = {job.name: run_job(job, results) for job in jobs}
    assert set(states.values()) == {"finished"}, states
