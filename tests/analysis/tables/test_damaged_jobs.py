"""Jobs whose files are damaged, or are another job's: what can be shown is shown, what cannot is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.handmade_results import Handmade, metrics_of

from analysis.suite.results import read_results
from analysis.tables import make_table
from analysis.tables.claims import make_claims
from figures.data import Request
from figures.kernels import read_spectra
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.kernel.decomposition import save_parts
from ntk_lpft.runs import FinetuneRun, KernelRun

P = {"rank": 4, "frobenius_norm": 5.0, "train_pair_accuracy": 0.5, "eval_pair_accuracy": 0.5}


@pytest.fixture
def made(tmp_path: Path) -> Handmade:
    results = Handmade(tmp_path / "results")
    for seed in (1, 2):
        results.run("cb", "ft", seed, norm=float(seed), start=f"0,0.0,train,kernel.ft_ratio,0.{seed}\n")
    return results


def real_kernel(made: Handmade, method: str, seed: int, scale: float) -> KernelRun:
    """Add a kernel as `compute` leaves it, with settings and checksums."""
    head = "lp" if method.startswith("lp") else "random"
    words = ["--model", "tiny", "--dataset", "cb", "--seed", str(seed), "--head-init", head]
    run = KernelRun(made.add("kernel", "cb", method, seed, arguments=words))
    run.write_config({"options": {"model": "tiny", "dataset": "cb", "seed": seed, "head_init": head}})
    ntk = NTKDecomposition(
        scale * torch.eye(2), {"all": torch.ones(2, 2, 2, 2)}, torch.zeros(2, 2), torch.zeros(2, 2), symmetric=True,
        metadata={"weights": f"{method}-{seed}", "seed": seed},
    )  # fmt: skip
    save_parts(run.path, {"train": ntk})
    rows = [{"kernel": name, **P, "frobenius_norm": scale, "rank_tolerance": 0.5, "ft_ratio": 0.5}
            for name in ("P", "F", "P+F")]  # fmt: skip
    run.file(run.SUMMARY).write_text(json.dumps({"statistics": rows, "num_labels": 2, "kernel": ntk.metadata}))
    run.seal()
    return run


def said(made: Handmade, name: str) -> tuple[str, list[str]]:
    """Return a table's text, and what it says is missing or broken."""
    table = make_table(read_results(made.folder), name)
    return table.to_markdown(), list(table.problems)


METRICS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "splits of numbers": (lambda metrics: metrics.update(splits=[1, 2]), "splits is [1, 2]"),
    "splits null": (lambda metrics: metrics.update(splits=None), "splits is None"),
    "splits number": (lambda metrics: metrics.update(splits=5), "splits is 5"),
    "accuracy": (lambda metrics: metrics["splits"]["test"].update(accuracy=-5.0), "accuracy is -5.0"),
    "huge accuracy": (lambda metrics: metrics["splits"]["test"].update(accuracy=10**30), "metrics.json is damaged"),
    "norm": (lambda metrics: metrics["head"].update(norm_after=-1.0), "norm_after is -1.0"),
    "another seed": (lambda metrics: metrics.update(seed=7), "is of seed 7"),
    "another method": (lambda metrics: metrics.update(method="lp-ft"), "is of method lp-ft"),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_cannot_be(made: Handmade, name: str) -> None:
    change, message = METRICS[name]
    metrics = metrics_of("cb", "ft", 2)
    change(metrics)
    (made.folder / "finetune/cb/ft/seed-2/metrics.json").write_text(json.dumps(metrics))
    text, problems = said(made, "table13")
    assert "1.00 (1 of 2)" in text
    assert any("finetune/cb/ft, seed 2" in line and message in line for line in problems), problems


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + "]" * 100_000, "step,epoch,split,measure,value\n99999999999999999999,0,train,loss,1\n"]
)
def test_files_that_are_no_results(made: Handmade, text: str) -> None:
    name = "tracking.csv" if text.startswith("step") else "metrics.json"
    (made.folder / "finetune/cb/ft/seed-2" / name).write_text(text)
    problems = list(make_claims(read_results(made.folder)).problems)
    assert any("seed 2" in line and name in line for line in problems), problems


@pytest.mark.parametrize(
    "changes",
    [{"pair_base_rate": "x"}, {"pair_base_rate": [1]}, {"frobenius_norm": 10**30}, {"rank": -1}, {"ft_ratio": "x"}],
)
def test_statistics_that_cannot_be(made: Handmade, changes: dict[str, Any]) -> None:
    made.kernel("cb", "ft", 1, P=P, F=P, PF=P)
    made.kernel("cb", "ft", 2, P={**P, **changes}, F=P, PF=P)
    text, problems = said(made, "table2")
    assert "5.00 (1 of 2)" in text
    assert any("kernel/cb/ft, seed 2" in line and "summary.json" in line for line in problems), problems


def test_one_truncated_kernel_stops_no_table(made: Handmade) -> None:
    for seed in (1, 2):
        real_kernel(made, "ft", seed, float(seed))
    path = made.folder / "kernel/cb/ft/seed-2/kernel.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    for name in ("table2", "claims"):
        _, problems = said(made, name)
        assert [line for line in problems if "kernel/cb/ft, seed 2: kernel.safetensors was altered" in line], problems
    assert "1.00 (1 of 2)" in said(made, "table2")[0]


def exchange(one: Path, other: Path, names: Sequence[str]) -> None:
    for name in names:
        kept = one.with_name("kept")
        shutil.move(one / name, kept)
        shutil.move(other / name, one / name)
        shutil.move(kept, other / name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kernel.safetensors"], "kernel.safetensors was altered"),
        (["summary.json"], "summary.json was altered"),
        (["kernel.safetensors", "summary.json", "config.json", "checksums.json"], "its results have seed 2 instead"),
    ],
)
def test_kernels_exchanged_between_jobs_are_refused(made: Handmade, names: Sequence[str], message: str) -> None:
    one, other = (real_kernel(made, "ft", seed, float(seed)).path for seed in (1, 2))
    real_kernel(made, "lp-ft", 1, 3.0)
    exchange(one, other, names)
    results = read_results(made.folder)
    problems = said(made, "table2")[1]
    assert any(line.startswith("kernel/cb/ft") and message in line for line in problems), problems
    assert any(message in line for line in make_claims(results).problems)
    request = Request(results, results_item("figure2"), every=False)
    request.collect("kernel", read_spectra)
    assert any(line.startswith("kernel/cb/ft") for line in request.problems.lines())
    assert not any(line.startswith("kernel/cb/lp-ft") for line in request.problems.lines())


def results_item(name: str) -> Any:
    from analysis.catalogue import ITEMS

    return ITEMS[name]


def test_kernels_of_earlier_versions_are_held_to_their_summaries(made: Handmade) -> None:
    """Where there are no checksums, a kernel still tells which computation it is of."""
    one, other = (real_kernel(made, "ft", seed, float(seed)) for seed in (1, 2))
    for run in (one, other):
        run.file("checksums.json").unlink()
        run.file("config.json").unlink()
    exchange(one.path, other.path, ["kernel.safetensors"])
    text = "\n".join(said(made, "table13")[1] + list(make_claims(read_results(made.folder)).problems))
    assert "holds files of two runs: kernel.safetensors is not of the computation that summary.json tells of" in text


def test_runs_of_other_settings_are_refused(made: Handmade) -> None:
    """Of another model, say, than the suite asks for: metrics alone would not tell."""
    words = ["--model", "tiny", "--dataset", "cb", "--seed", "3", "--method", "ft", "--n-train", "10", "--no-track",
             "--learning-rate", "5e-05", "--head-scale", "0.1", "1"]  # fmt: skip
    options = {"model": "tiny", "dataset": "cb", "seed": 3, "method": "ft", "n_train": 10, "track": False,
               "learning_rate": 5e-5, "head_scale": [0.1, 1.0], "n_eval": None}  # fmt: skip
    for changes, message in (
        ({}, ""),
        ({"model": "other"}, "its results have model other instead of tiny"),
        ({"n_train": None}, "its results have n_train None instead of 10"),
        ({"learning_rate": 5e-4}, "its results have learning_rate 0.0005 instead of 5e-05"),
        ({"track": True}, "its results have track False"),
        ({"head_scale": [0.1]}, "its results have head_scale [0.1] instead of 0.1 1"),
    ):
        run = FinetuneRun(made.add("finetune", "cb", "ft", 3, arguments=words))
        made.jobs = made.jobs[:2] + made.jobs[-1:]
        run.write_config({"options": {**options, **changes}})
        run.write_metrics({**metrics_of("cb", "ft", 3), "model": {**options, **changes}["model"]})
        found = read_results(made.folder).entries[-1].broken
        assert found.startswith(message) if message != "its results have track False" else "track" in found
        assert bool(found) == bool(message)
