"""From a suite to its jobs, and the list of the paper's tables and figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from transformers import TrainingArguments

from analysis import catalogue
from analysis.jobs import KINDS, Job
from analysis.plan import plan
from analysis.suites import SUITES, suite_of
from ntk_lpft.command import parse_given, parse_options
from ntk_lpft.compute import ComputeOptions
from ntk_lpft.errors import InputError
from ntk_lpft.finetune_options import FinetuneOptions, resolve
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
        if KINDS[job.kind].module == "ntk_lpft.finetune":
            given, _ = parse_given((FinetuneOptions, TrainingArguments), "", job.given(tmp_path), "x")
            settings, task = resolve(given, {})
            assert (task.name, settings.options.method, settings.training["seed"]) == (
                job.dataset,
                job.method,
                job.seed,
            )
            if job.kind == "finetune" and job.method != "lp":
                assert settings.training["num_train_epochs"] == suite.datasets[job.dataset].epochs
        elif job.kind == "kernel":
            options = parse_options(ComputeOptions, "", job.given(tmp_path), "x")
            assert (options.dataset, options.seed) == (job.dataset, job.seed)
            assert options.lora == (job.method in ("lora", "lp-lora"))
            assert options.head_init == ("lp" if job.method.startswith("lp-") else "random")


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


def test_the_list_holds_every_table_and_figure_of_the_paper() -> None:
    tables = {number for item in catalogue.TABLES for number in item.numbers}
    figures = {number for item in catalogue.FIGURES for number in item.numbers}
    assert tables == {1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16}
    assert figures == set(range(1, 12))
    assert {kind for item in catalogue.ITEMS.values() for kind in item.kinds} == set(KINDS)


def test_second_numbers_lead_to_the_same_table() -> None:
    assert catalogue.item_of("table9") is catalogue.item_of("table2")
    assert catalogue.item_of("table15").name == "table3"
    with pytest.raises(InputError, match="unknown table or figure 'table7'"):
        catalogue.item_of("table7")
    with pytest.raises(InputError, match="unknown --suite 'big'; choose one of smoke, laptop, paper"):
        suite_of("big")


def test_a_job_is_the_same_after_writing_and_reading() -> None:
    for job in plan(SUITES["smoke"]):
        assert Job.from_json(job.to_json()) == job


def test_the_readme_lists_every_table_and_figure() -> None:
    text = (Path(catalogue.__file__).parent / "README.md").read_text(encoding="utf-8")
    for item in catalogue.ITEMS.values():
        assert f"| `{item.name}` | {item.title} |" in text
