"""Intervals of claims: what seeds share is counted, so that equal methods are rarely told apart."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.equal_methods import GAP, Population, judge, share_told_apart
from helpers.handmade_results import Handmade
from scipy import stats

from analysis.claims import Evidence, check
from analysis.claims.resampling import RESAMPLES, resampled_errors, resampled_metrics
from analysis.claims.runs import check_runs
from analysis.suite.results import read_results
from analysis.tables import make_claims
from ntk_lpft.errors import InputError
from ntk_lpft.runs import FinetuneRun
from ntk_lpft.statistics import sample_cosine_similarity

DRAWS = 300
# The level's 5 %, and four standard deviations of a share of so many draws.
MOST = 0.05 + 4 * np.sqrt(0.05 * 0.95 / DRAWS)


@pytest.mark.parametrize(("seeds", "rows"), [(3, 56), (3, 300), (5, 56)])
def test_equal_methods_are_told_apart_as_often_as_the_level_says(seeds: int, rows: int) -> None:
    assert share_told_apart(DRAWS, seeds, rows, resample=True) <= MOST
    # The fault: seeds share their test rows, and their spread knows nothing of it.
    assert share_told_apart(DRAWS, seeds, rows, resample=False) > 0.2


def test_rows_that_every_seed_draws_anew_add_nothing_on_average() -> None:
    rng = np.random.default_rng(0)
    population = Population(seed=0.1)
    draws = [judge(population, rng, 3, 100, resample=True, redraw=True) for _ in range(60)]
    own = np.mean([np.var(list(each.values.values()), ddof=1) / 3 for each in draws])
    assert np.mean([each.row_variance for each in draws]) < own / 3
    assert share_told_apart(DRAWS, 3, 100, resample=True, redraw=True, population=population) <= MOST


def test_the_half_width_adds_what_seeds_and_rows_bring() -> None:
    """Values 1, 2, 3; over resamples they all move together with variance 4: rows bring 1.96 · 2."""
    move = np.array([2.0, -2.0] * 100) * np.sqrt(199 / 200)  # variance 4 with N − 1
    facts = {("run", name): {seed: (seed + 1.0) * (name == "a") for seed in range(3)} for name in "ab"}
    resampled = {("run", "a"): {seed: list(seed + 1.0 + move) for seed in range(3)}}
    found = check(GAP, Evidence("d", facts, resampled=resampled))
    assert found.row_variance == pytest.approx(4.0)
    half = np.hypot(stats.t.ppf(0.975, 2) / np.sqrt(3), stats.norm.ppf(0.975) * 2)
    assert found.interval == (pytest.approx(2 - half), pytest.approx(2 + half))
    apart = check(GAP, Evidence("d", facts))
    assert (apart.row_variance, dict(apart.draws)) == (0.0, {})


def save_run(folder: Path, method: str, seed: int, *, n: int = 40, fingerprint: str = "x") -> FinetuneRun:
    """Save a run with logits, features' measures and metrics that fit each other."""
    rng = torch.Generator().manual_seed(seed + (method == "ft") * 100)
    run = FinetuneRun(folder / f"{method}-{seed}")
    run.path.mkdir(parents=True)
    labels = torch.arange(n) % 2
    logits = torch.randn(n, 2, generator=rng) + 1.0 * torch.nn.functional.one_hot(labels)
    unit = torch.nn.functional.normalize(1 + torch.randn(n, 5, generator=rng, dtype=torch.float64))
    cosines = (unit @ unit.sum(0) - 1) / (n - 1)
    differences = torch.rand(n, generator=rng, dtype=torch.float64) + (method == "ft")
    measures = {"feature_difference": differences, "cosine_similarity": cosines}
    run.write_predictions({"test": logits}, {"test": labels}, {}, {"test": measures})
    accuracy = float((logits.argmax(1) == labels).double().mean())
    test = {"accuracy": accuracy, "feature_difference": float(differences.mean()),
            "cosine_similarity": sample_cosine_similarity(unit), "loss": 0.3}  # fmt: skip
    content = {"method": method, "seed": seed, "model": "m", "dataset": "d", "metric": "accuracy",
               "head": {"norm_before": 1.0, "norm_after": 2.0}, "splits": {"test": test}}  # fmt: skip
    (run.path / "config.json").write_text(json.dumps({"data": {"test": {"fingerprint": fingerprint}}}))
    (run.path / "metrics.json").write_text(json.dumps(content))
    return run


def drawn(run: FinetuneRun, fingerprint: str = "x") -> np.ndarray:
    labels = run.predictions()["test"][1].tolist()
    seed = hashlib.sha256(json.dumps(["test", fingerprint, labels]).encode()).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    return rng.integers(0, len(labels), (RESAMPLES, len(labels)))


def test_metrics_of_a_resample_are_those_of_its_rows(tmp_path: Path) -> None:
    run = save_run(tmp_path, "lp-ft", 1)
    found = resampled_metrics(run, run.metrics())
    rows = run.tested_rows()["test"]
    assert len(found) == RESAMPLES
    assert rows.feature_difference is not None
    for each, metrics in zip(drawn(run), found, strict=True):
        test = metrics["splits"]["test"]
        right = rows.logits[each].argmax(1) == rows.labels[each]
        assert test["accuracy"] == pytest.approx(float(right.double().mean()))
        assert test["feature_difference"] == pytest.approx(float(rows.feature_difference[each].mean()))
        assert test["loss"] == 0.3
    spread = np.std([metrics["splits"]["test"]["cosine_similarity"] for metrics in found])
    assert spread > 0
    assert found[0]["head"] == run.metrics()["head"]


def test_the_spread_of_cs_is_that_of_resampled_features(tmp_path: Path) -> None:
    """CS's leading term against CS of resamples without pairs of a row with itself; the remainder is of order 1/N."""
    n = 300
    rng = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(1 + torch.randn(n, 5, generator=rng, dtype=torch.float64))
    cosines = (unit @ unit.sum(0) - 1) / (n - 1)
    linear, exact = [], []
    for _ in range(400):
        each = torch.randint(n, (n,), generator=rng)
        counts = torch.bincount(each, minlength=n).double()
        linear.append(2 * float(cosines[each].mean() - cosines.mean()))
        pairs = (counts @ unit).square().sum() - counts.square().sum()
        exact.append(float(pairs / (n * n - counts.square().sum())))
    assert np.std(linear) == pytest.approx(np.std(exact), rel=0.05)


def test_equal_rows_are_resampled_alike_and_others_are_not(tmp_path: Path) -> None:
    one, two = save_run(tmp_path / "a", "ft", 1), save_run(tmp_path / "a", "lp-ft", 1)
    same = [np.array([m["splits"]["test"]["accuracy"] for m in resampled_metrics(run, run.metrics())])
            for run in (one, save_run(tmp_path / "b", "ft", 1))]  # fmt: skip
    assert (same[0] == same[1]).all()
    other = save_run(tmp_path / "c", "ft", 1, fingerprint="y")
    values = np.array([m["splits"]["test"]["accuracy"] for m in resampled_metrics(other, other.metrics())])
    assert abs(np.corrcoef(values, same[0])[0, 1]) < 0.3
    assert len(resampled_metrics(two, two.metrics())) == RESAMPLES


def test_calibration_errors_of_a_resample_are_those_of_its_rows(tmp_path: Path) -> None:
    run = save_run(tmp_path, "ft", 2)
    logits, labels = run.predictions()["test"]
    found = resampled_errors(run, "test", 2.5)
    for each, errors in zip(drawn(run)[:20], found, strict=False):
        for name, scale in (("ece_pct", 1.0), ("ece_scaled_pct", 2.5)):
            confidence, predicted = torch.softmax(logits[each].double() / scale, dim=1).max(1)
            right = (predicted == labels[each]).double()
            edges = torch.ceil(confidence * 15)
            gaps = [float((right - confidence)[edges == k].sum().abs()) for k in range(16)]
            assert errors[name] == pytest.approx(100 * sum(gaps) / len(each))


def test_claims_on_runs_resample_their_rows(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, method, seed) for method in ("ft", "lp-ft") for seed in (1, 2, 3)]
    found = {each.claim.name: each for each in check_runs(runs)}
    for name in ("accuracy-lp-ft", "difference"):
        assert set(found[name].draws) == {1, 2, 3}
        assert all(len(draws) == RESAMPLES for draws in found[name].draws.values())
    assert found["difference"].values[1] == pytest.approx(float(np.median(found["difference"].draws[1])), rel=0.1)
    (runs[0].path / runs[0].PREDICTIONS).unlink()
    assert set({each.claim.name: each for each in check_runs(runs)}["accuracy-lp-ft"].draws) == {1, 2, 3}
    for run in runs[1:]:
        (run.path / run.PREDICTIONS).unlink()
    assert dict({each.claim.name: each for each in check_runs(runs)}["accuracy-lp-ft"].draws) == {}


def test_measures_that_do_not_fit_their_rows_are_refused(tmp_path: Path) -> None:
    run = save_run(tmp_path, "ft", 1)
    logits, labels = run.predictions()["test"]
    run.write_predictions({"test": logits}, {"test": labels}, {}, {"test": {"feature_difference": torch.zeros(3)}})
    with pytest.raises(InputError, match="has measures of test that do not fit its rows"):
        run.tested_rows()


@pytest.mark.parametrize("splits", [None, [], {"test": None}])
def test_measures_that_are_none_are_refused(tmp_path: Path, splits: object) -> None:
    run = save_run(tmp_path, "ft", 1)
    (run.path / "metrics.json").write_text(json.dumps({**run.metrics(), "splits": splits}))
    with pytest.raises(InputError, match=r"metrics\.json is damaged: splits"):
        run.metrics()


@pytest.mark.parametrize("splits", [{"test": {"accuracy": None, "cosine_similarity": None}}])
def test_runs_without_measures_have_none_on_resamples(tmp_path: Path, splits: object) -> None:
    run = save_run(tmp_path, "ft", 1)
    content = {**run.metrics(), "splits": splits}
    (run.path / "metrics.json").write_text(json.dumps(content))
    assert all(each["splits"] == splits for each in resampled_metrics(run, run.metrics()))
    assert {each.verdict for each in check_runs([run])} == {"not tested"}


def test_tables_resample_rows_and_name_logits_that_are_damaged(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    for seed in (1, 2, 3):
        for method in ("ft", "lp-ft"):
            run = save_run(tmp_path / "runs", method, seed)
            place = made.run("d", method, seed)
            for name in (run.METRICS, run.PREDICTIONS, run.CONFIG):
                (place / name).write_bytes((run.path / name).read_bytes())
    line = make_claims(read_results(made.folder)).frame.set_index("claim").loc["accuracy-lp-ft"]
    assert not math.isnan(line["row_error"])
    expected = check_runs([FinetuneRun(tmp_path / "runs" / f"{m}-{s}") for m in ("ft", "lp-ft") for s in (1, 2, 3)])
    same = next(each for each in expected if each.claim.name == "accuracy-lp-ft")
    assert (line["low"], line["high"]) == same.interval
    damaged = made.folder / "finetune/d/ft/seed-2/predictions.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    table = make_claims(read_results(made.folder))
    assert any("finetune/d/ft, seed 2" in problem and "predictions" in problem for problem in table.problems)
    assert math.isnan(table.frame.set_index("claim").loc["lp-norm", "row_error"])
