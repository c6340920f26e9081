"""The paper's claims on results folders written by hand, true and false, missing and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.handmade_results import Handmade

from analysis.claims import CLAIMS
from analysis.claims.claim import CROSSES
from analysis.suite.results import read_results
from analysis.tables import Table, make_claims
from ntk_lpft.errors import InputError

SEEDS = (1, 2, 3)


def row(rank: int, norm: float, ratio: float | None = None) -> dict[str, Any]:
    return {"rank": rank, "frobenius_norm": norm, "train_pair_accuracy": 1.0, "eval_pair_accuracy": 1.0,
            "ft_ratio": ratio}  # fmt: skip


def build(folder: Path, *, true: bool) -> Path:
    """Results of which every claim is true, or every claim false, in all seeds alike."""
    made = Handmade(folder)
    ood = {"far": {"accuracy": 0.5, "feature_difference": 4.0}}
    for seed in SEEDS:
        made.run("cb", "lp", seed, norm=20.0, cs=0.9, accuracy=0.6 if true else 0.9, ood=ood)
        for method, norm, cs, diff, accuracy, residual in (
            ("ft", 1.0 if true else 10.0, 0.5, 8.0, 0.7, 0.8),
            ("lp-ft", 20.0, 0.8 if true else 0.2, 2.0 if true else 9.0, 0.8 if true else 0.6, 0.2 if true else 0.9),
            ("lora", 1.0, 0.6, 6.0, 0.7, 0.8),
            ("lp-lora", 20.0, 0.85 if true else 0.3, 3.0 if true else 7.0, 0.7, 0.3),
        ):
            far = 0.2 if method == "lp-ft" and not true else accuracy
            changed = {"far": {"accuracy": 0.3 if method == "ft" and not true else far, "feature_difference": diff}}
            made.run("cb", method, seed, norm=norm, cs=cs, diff=diff, accuracy=accuracy, ood=changed,
                     start=f"0,0.0,train,residual_norm,{residual}\n0,0.0,train,kernel.ft_ratio,0.77\n")  # fmt: skip
            drop = {"lp-ft": 0.10, "ft": 0.05}.get(method, 0.02) if true else -0.05 if method == "lp-ft" else -0.01
            made.calibration("cb", method, seed, (0.2, 0.5), (0.2 - drop, 0.5))
        # Head norms 18 after LP and 0.5 before: the ratio squared is 1296.
        for method, ratio in (("ft", 0.2 if true else 0.6), ("lora", 0.01 if true else 0.3)):
            made.kernel("cb", method, seed, P=row(6, 5.0), F=row(9, 2.0, ratio), PF=row(9, 7.0))
        norm = 2.0 * 1296 * (0.5 if true else 20)
        made.kernel("cb", "lp-ft", seed, P=row(6, 5.0), F=row(9, norm, 0.99 if true else 0.5), PF=row(9, 7.0))
        norms = [1.0, 3.0, 2.0, 4.0, 8.0, 9.0] if true else [9.0, 8.0, 7.0, 8.5, 8.0, 7.0]
        made.probe("cb", seed, norms, [0.3, 0.5, 0.95, 0.8, 1.0, 1.0])
        made.grid("cb", "lp-ft", seed, [0.1, 1.0, 10.0, 100.0], [5.0, 4.0, 3.0, 2.0] if true else [1.0, 2.0, 3.0, 4.0])
        errors = (1.0, 0.5, 0.25) if true else (1.0, 1.0, 1.0)
        ranks = [{"rank": 4**i, "relative_error": {"mean": error}} for i, error in enumerate(errors)]
        made.add("lora_scaling", "cb", "lp-lora", seed, {"summary.json": json.dumps({"ranks": ranks})})
    return made.folder


# Of the results that make every claim true, and false.
EXPECTED = {
    "lp-norm": (18.0, 1.8),
    "probe-growth": (9.0, 7 / 9),
    "probe-rising": (1.0, 1 / 3),
    "growth-over-ft": (9.0 / 2.0, (7 / 9) / 20.0),
    "difference": (2 / 8, 9 / 8),
    "difference-lora": (3 / 6, 7 / 6),
    "difference-ood": (2 / 8, 9 / 8),
    "similarity": (0.1 / 0.4, 0.7 / 0.4),
    "similarity-lora": (0.05 / 0.3, 0.6 / 0.3),
    "norm-against-difference": (-1.0, 1.0),
    "ft-ratio-lp-ft": (0.99, 0.5),
    "ft-ratio-ft": (0.2, 0.6),
    "ft-ratio-lora": (0.01, 0.3),
    "residual": (0.25, 1.125),
    "scaling-of-f": (0.5, 20.0),
    "lora-scaling": (-0.5, 0.0),
    "temperature": ((5 + 10 + 2 + 2) / 4, -(1 + 5 + 1 + 1) / 4),
    "temperature-lp-ft": (10.0, -5.0),
    "temperature-most": (5.0, -4.0),
    "accuracy-lp-ft": (10.0, -10.0),
    "accuracy-ft": (10.0, -20.0),
    "ood-accuracy-lp-ft": (10.0, -10.0),
    "ood-accuracy-ft": (20.0, -20.0),
}


def test_the_list_of_expectations_is_that_of_the_claims() -> None:
    assert list(EXPECTED) == [claim.name for claim in CLAIMS]


@pytest.mark.parametrize("true", [True, False])
def test_every_claim_can_hold_and_fail(tmp_path: Path, true: bool) -> None:
    table = make_claims(read_results(build(tmp_path / "results", true=true)))
    assert table.problems == []
    found = table.frame.set_index("claim")
    assert list(found.index) == list(EXPECTED)
    for name, (right, wrong) in EXPECTED.items():
        expected = right if true else wrong
        line = found.loc[name]
        assert line["mean"] == pytest.approx(expected), name
        assert line["verdict"] == ("holds" if true else "does not hold"), name
        assert (line["seeds"], line["asked"], line["true"]) == (3, 3, 3 if true else 0), name
        assert not line["undecided"], name


def layout_line(table: Table, dataset: str, says: str) -> list[str]:
    shown = table.layout[(table.layout["data set", ""] == dataset) & (table.layout["claim", ""] == says)]
    assert len(shown) == 1
    return [str(cell) for cell in shown.iloc[0]]


def test_missing_runs_make_fewer_seeds_and_say_so(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    for seed, lp, ft in ((1, 2.0, 4.0), (2, 5.0, 4.0), (3, 1.0, 4.0)):
        made.run("cb", "lp-ft", seed, diff=lp)
        made.run("cb", "ft", seed, diff=ft)
    made.run("cb", "ft", 4)
    made.add("finetune", "cb", "lp-ft", 4, state="failed", error="boom")
    table = make_claims(read_results(made.folder))
    line = table.frame.set_index("claim").loc["difference"]
    assert (line["verdict"], line["seeds"], line["asked"], line["true"]) == ("mixed (2 of 3)", 3, 4, 2)
    assert line["mean"] == pytest.approx((0.5 * 1.25 * 0.25) ** (1 / 3))
    shown = layout_line(table, "cb", "LP-FT changes the features less than FT")
    assert shown[4] == "3 of 4"
    assert shown[5] == f"mixed (2 of 3): {CROSSES}; no run of lp-ft"
    assert any("finetune/cb/lp-ft, seed 4: failed (boom)" in problem for problem in table.problems)
    kernels = table.frame.set_index("claim").loc["ft-ratio-ft"]
    assert (kernels["verdict"], kernels["reason"]) == ("not tested", "no kernel where ft starts")


@pytest.mark.parametrize("flag", ["--n-train", "--n_train"])
def test_head_norms_of_drawn_rows_are_not_taken_for_those_of_kernels(tmp_path: Path, flag: str) -> None:
    """Kernels fit their LP head on all training rows; a run on drawn rows has another head."""
    made = Handmade(tmp_path / "results")
    for method in ("ft", "lp-ft"):
        made.run("cb", method, 1, norm=20.0, arguments=[flag, "40"])
        made.kernel("cb", method, 1, P=row(6, 5.0), F=row(9, 2.0, 0.5), PF=row(9, 7.0))
    line = make_claims(read_results(made.folder)).frame.set_index("claim").loc["scaling-of-f"]
    assert (line["verdict"], line["reason"]) == ("not tested", "the head norm of its kernels is not known")
    # A kernel that says what its head's norm is needs no run.
    for method, norm in (("ft", 0.5), ("lp-ft", 1.0)):
        path = made.folder / f"kernel/cb/{method}/seed-1/summary.json"
        path.write_text(path.read_text().replace('"num_labels": 3', f'"num_labels": 3, "head_norm": {norm}'))
    line = make_claims(read_results(made.folder)).frame.set_index("claim").loc["scaling-of-f"]
    assert line["mean"] == pytest.approx(1 / 4)


def test_tracked_ft_ratios_stand_in_for_kernels(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.run("cb", "lp-ft", 1, start="0,0.0,train,kernel.ft_ratio,0.95\n5,1.0,train,kernel.ft_ratio,0.1\n")
    line = make_claims(read_results(made.folder)).frame.set_index("claim").loc["ft-ratio-lp-ft"]
    assert (line["mean"], line["verdict"]) == (0.95, "holds")


def test_a_probe_that_never_gets_good_says_nothing_about_rising_norms(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.probe("cb", 1, [1.0, 2.0, 3.0], [0.3, 0.5, 0.7])
    found = make_claims(read_results(made.folder)).frame.set_index("claim")
    assert found.loc["probe-rising", "verdict"] == "not tested"
    assert "stays below 90" in found.loc["probe-rising", "reason"]
    assert found.loc["probe-growth", "verdict"] == "holds"


def test_one_line_for_each_data_set(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    for dataset, change in (("cb", 1.0), ("rte", 3.0)):
        made.run(dataset, "lp-ft", 1, diff=change)
        made.run(dataset, "ft", 1, diff=2.0)
    table = make_claims(read_results(made.folder))
    assert len(table.frame) == 2 * len(CLAIMS)
    verdicts = table.frame[table.frame["claim"] == "difference"].set_index("dataset")["verdict"]
    assert dict(verdicts) == {"cb": "holds", "rte": "does not hold"}


def test_results_without_any_job_are_refused(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.add("finetune", "cb", "ft", 1, state="waiting")
    with pytest.raises(InputError, match="no claim can be tested"):
        make_claims(read_results(made.folder))
