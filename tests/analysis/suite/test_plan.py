"""From a suite to its jobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from analysis import catalogue
from analysis.suite.definitions import SUITES, suite_of
from analysis.suite.folder import SuiteFolder
from analysis.suite.job import KINDS, Job
from analysis.suite.plan import plan
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.finetune import parse
from ntk_lpft.commands.finetune.training import parse_training, resolve
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.errors import InputError
from ntk_lpft.tasks.registry import PAPER_TASKS


@pytest.mark.parametrize("name", SUITES)
def test_every_job_comes_after_what_it_needs_and_has_a_folder_of_its_own(name: str) -> None:
    jobs = plan(SUITES[name])
    seen: set[str] = set()
    for job in jobs:
        assert job.kind in KINDS
        assert set(job.needs) <= seen
        assert job.name not in seen
        seen.add(job.name)


def test_the_paper_suite_is_the_papers_experiment() -> None:
    suite = SUITES["paper"]
    runs = {(job.dataset, job.method, job.seed) for job in plan(suite) if job.kind == "finetune"}
    assert suite.model == "roberta-base"
    assert {seed for *_, seed in runs} == {1001, 2002, 3003, 4004, 5005}
    assert {method for _, method, _ in runs} == {"lp", "ft", "lp-ft", "lora", "lp-lora"}
    assert len(runs) == 10 * 5 * 5
    ood = {name for dataset in suite.datasets for name in PAPER_TASKS[dataset].ood}
    assert len(suite.datasets) + len(ood) == 13  # ten to train on, three OOD


def test_commands_take_what_the_plan_gives_them(tmp_path: Path) -> None:
    """Each job's words, read by the command's own parser, say what the suite says."""
    suite = dataclasses.replace(SUITES["laptop"], model="minilm")
    for job in plan(suite):
        words = job.given(SuiteFolder(tmp_path))
        assert not any("_" in word for word in words if word.startswith("--"))
        if KINDS[job.kind].module == "ntk_lpft.finetune":
            options, rest, stored = parse(words)
            settings, task = resolve(options, parse_training(rest), stored)
            assert (task.name, settings.options.method, settings.training["seed"]) == (
                job.dataset,
                job.method,
                job.seed,
            )
            if job.kind == "finetune" and job.method != "lp":
                assert settings.training["num_train_epochs"] == suite.datasets[job.dataset].epochs
        elif job.kind == "kernel":
            kernel = parse_options(ComputeOptions, "", words, "x").resolved()
            assert (kernel.dataset, kernel.seed) == (job.dataset, job.seed)
            assert kernel.lora == (job.method in ("lora", "lp-lora"))
            assert kernel.head_init == ("lp" if job.method.startswith("lp-") else "random")


def test_a_selection_holds_the_same_jobs_as_the_whole() -> None:
    suite = SUITES["laptop"]
    whole = {job.name: job for job in plan(suite)}
    part = plan(suite, datasets=["cb"], methods=["lp-ft"], seeds=[2002])
    assert part
    for job in part:
        assert (job.dataset, job.method, job.seed) == ("cb", "lp-ft", 2002)
        assert whole[job.name].arguments == job.arguments


def test_only_brings_along_what_is_needed() -> None:
    suite = SUITES["smoke"]
    assert {job.kind for job in plan(suite, kinds=catalogue.kinds_for(["table2"]))} == {"kernel"}
    assert {job.kind for job in plan(suite, kinds={"calibration"})} == {"finetune", "calibration"}
    assert {job.kind for job in plan(suite, kinds=catalogue.kinds_for(["figure3", "figure11"]))} == {"head_scale"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ["cbx"]}, "--datasets: the suite has no cbx; choose from cb, amazon-snippets"),
        ({"methods": ["adapter"]}, "--methods: the suite has no adapter"),
        ({"seeds": [7]}, "--seeds: the suite has no 7; choose from 1001"),
        ({"kinds": {"lora_scaling"}, "methods": ["ft"]}, "has no job"),
    ],
)
def test_selections_that_hold_nothing_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(SUITES["laptop"], **changes)


def test_unknown_suites_are_refused() -> None:
    with pytest.raises(InputError, match="unknown --suite 'big'; choose one of smoke, laptop, paper"):
        suite_of("big")


def test_a_job_is_the_same_after_writing_and_reading() -> None:
    for job in plan(SUITES["smoke"]):
        assert Job.from_json(job.to_json()) == job
