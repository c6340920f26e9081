"""Claims, on folders of runs made by hand: values, verdicts, intervals, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from analysis.claims import Claim, Evidence, Undefined, Verdict, check
from analysis.claims.__main__ import main
from analysis.claims.claim import Range
from analysis.claims.runs import check_runs
from ntk_lpft.runs import FinetuneRun


def save_run(place: Path, method: str, seed: int, *, norm: float, difference: float, ratio: float | None) -> Path:
    folder = place / f"{method}-{seed}"
    folder.mkdir(parents=True)
    head = {"norm_before": 0.4, "norm_after": norm} | ({"norm_after_lp": norm} if method == "lp-ft" else {})
    splits = {"train": {"feature_difference": 77.0}, "test": {"feature_difference": difference, "accuracy": 0.5}}
    metrics = {"method": method, "seed": seed, "model": "m", "dataset": "d", "head": head, "splits": splits}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if ratio is not None:
        rows = ["step,epoch,split,measure,value", f"0,0.0,train,kernel.ft_ratio,{ratio}",
                "0,0.0,validation,residual_norm,9.0", f"0,0.0,train,residual_norm,{1 - ratio}",
                "9,1.0,train,kernel.ft_ratio,0.123", "9,1.0,train,residual_norm,0.123"]  # fmt: skip
        (folder / "tracking.csv").write_text("\n".join(rows) + "\n")
    return folder


def verdicts_of(folders: list[Path]) -> dict[str, Verdict]:
    return {found.claim.name: found for found in check_runs([FinetuneRun(folder) for folder in folders])}


NAMES = ("lp-norm", "difference", "ft-ratio-lp-ft", "ft-ratio-ft", "residual")


def test_each_claim_has_its_value_and_its_verdict(tmp_path: Path) -> None:
    folders = [
        save_run(tmp_path, "ft", 1, norm=2.0, difference=4.0, ratio=0.1),
        save_run(tmp_path, "lp-ft", 1, norm=20.0, difference=1.0, ratio=0.99),
        save_run(tmp_path, "ft", 2, norm=5.0, difference=1.0, ratio=0.7),
        save_run(tmp_path, "lp-ft", 2, norm=20.0, difference=3.0, ratio=0.95),
        save_run(tmp_path, "ft", 3, norm=5.0, difference=1.0, ratio=0.6),  # without its partner
    ]
    found = verdicts_of(folders)
    assert [dict(found[name].values) for name in NAMES[:4]] == [
        {1: 10.0, 2: 4.0}, {1: 0.25, 2: 3.0}, {1: 0.99, 2: 0.95}, {1: 0.1, 2: 0.7, 3: 0.6}]  # fmt: skip
    assert dict(found["residual"].values) == {1: pytest.approx(0.01 / 0.9), 2: pytest.approx(0.05 / 0.3)}
    assert [found[name].verdict for name in NAMES] == ["holds", "mixed (1 of 2)", "holds", "mixed (1 of 3)", "holds"]
    assert found["lp-norm"].estimate == pytest.approx(math.sqrt(40))  # a ratio: the geometric mean
    assert found["ft-ratio-ft"].estimate == pytest.approx(1.4 / 3)


def test_false_claims_do_not_hold(tmp_path: Path) -> None:
    folders = [save_run(tmp_path, "ft", 1, norm=9.0, difference=1.0, ratio=0.8),
               save_run(tmp_path, "lp-ft", 1, norm=10.0, difference=2.0, ratio=0.3)]  # fmt: skip
    found = verdicts_of(folders)
    assert {found[name].verdict for name in NAMES} == {"does not hold"}


def test_claims_without_runs_are_not_tested_and_say_why(tmp_path: Path) -> None:
    found = verdicts_of([save_run(tmp_path, "ft", 1, norm=2.0, difference=4.0, ratio=None)])
    assert {each.verdict for each in found.values()} == {"not tested"}
    assert found["lp-norm"].reason == "no run of lp-ft"
    assert found["ft-ratio-ft"].reason == "no kernel where ft starts"


def claim(**changed: object) -> Claim:
    """Make a claim whose statistic is what the run says."""

    def value(facts: dict) -> float:
        if facts["run", "a"] is None:
            raise Undefined("there is nothing")
        return facts["run", "a"]

    given = {"name": "n", "says": "s", "statistic": "t", "needs": (("run", "a"),), "value": value,
             "true": Range(low=1)}  # fmt: skip
    return Claim(**{**given, **changed})  # type: ignore[arg-type]


def evidence(*values: float | None) -> Evidence:
    return Evidence("d", {("run", "a"): dict(enumerate(values))})


def test_intervals_are_students() -> None:
    """2, 4, 6: mean 4, standard deviation 2, t(0.975, 2) = 4.30265, half width 4.30265 · 2 / √3."""
    low, high = check(claim(), evidence(2.0, 4.0, 6.0)).interval
    assert (low, high) == (pytest.approx(4 - 4.96827, abs=1e-4), pytest.approx(4 + 4.96827, abs=1e-4))
    ratio = check(claim(scale="ratio"), evidence(math.exp(2), math.exp(4), math.exp(6)))
    assert ratio.estimate == pytest.approx(math.exp(4))
    assert ratio.interval == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert check(claim(bounds=(0, 5)), evidence(2.0, 4.0, 6.0)).interval == (0, 5)
    assert all(map(math.isnan, check(claim(), evidence(2.0, 6.0)).interval))


def test_an_interval_across_the_threshold_is_no_decision() -> None:
    wide, narrow = check(claim(), evidence(2.0, 4.0, 6.0)), check(claim(), evidence(4.0, 4.1, 4.2))
    assert (wide.verdict, wide.undecided) == ("holds", True)
    assert (narrow.verdict, narrow.undecided) == ("holds", False)
    assert not check(claim(), evidence(2.0, 6.0)).undecided  # two seeds have no interval


@pytest.mark.parametrize(
    ("closed", "low", "high", "decided"),
    [
        (False, 0.2, 0.9, True), (False, 0.5, 1.5, False), (False, -1.0, 0.5, False), (False, 1.1, 1.5, True),
        (False, -1.0, 2.0, False), (False, 1.0, 2.0, True), (False, -1.0, 0.0, True), (False, 0.0, 0.5, False),
        (True, 0.0, 1.0, True), (True, 1.0, 2.0, False), (True, 1.1, 2.0, True), (True, -2.0, 0.0, False),
    ],
)  # fmt: skip
def test_an_interval_is_judged_inside_and_not_by_its_ends(closed: bool, low: float, high: float, decided: bool) -> None:
    """A two-sided claim is false at both ends of an interval that holds all for which it is true."""
    assert Range(0.0, 1.0, closed).decides(low, high) == decided
    # By enumeration: the claim says the same of all values, or it does not.
    steps = {value in Range(0.0, 1.0, closed) for value in [low, high, *(k / 20 for k in range(-50, 60))]
             if low <= value <= high}  # fmt: skip
    assert (len(steps) == 1) == decided


def test_a_two_sided_claim_is_undecided_where_its_interval_holds_its_range() -> None:
    two_sided = claim(true=Range(3.9, 4.1))
    found = check(two_sided, evidence(2.0, 4.0, 6.0))
    assert found.interval[0] < 3.9
    assert found.interval[1] > 4.1
    assert (found.verdict, found.undecided) == ("mixed (1 of 3)", True)
    assert not check(claim(true=Range(30.0, 31.0)), evidence(2.0, 4.0, 6.0)).undecided


def test_seeds_without_a_statistic_are_left_out_and_named() -> None:
    found = check(claim(), evidence(2.0, None, math.nan, 0.5))
    assert dict(found.values) == {0: 2.0, 3: 0.5}
    assert (found.verdict, found.asked) == ("mixed (1 of 2)", {0, 1, 2, 3})
    assert found.reason == "there is nothing; its statistic is undefined"
    zero = check(claim(scale="ratio"), evidence(0.0, 1.0, 2.0))
    assert zero.estimate == 0.0
    assert all(map(math.isnan, zero.interval))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [save_run(tmp_path, method, seed, norm=norm * seed, difference=1.0, ratio=0.2)
               for method, norm in (("ft", 1.0), ("lp-ft", 8.0)) for seed in (1, 2, 3)]  # fmt: skip
    assert main([str(folder) for folder in folders]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("m on d, 6 runs\n")
    assert ("Linear probing makes the head norm far larger than fine-tuning does\n"
            "    ‖V‖ after LP / ‖V‖ after FT > 3: 8, 95 % interval 8 to 8; 8 to 8 in 3 seeds\n"
            "    holds\n") in printed  # fmt: skip
    assert "\n    FT ratio > 0.9: 0.2" in printed
    assert main([]) == 2


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = save_run(tmp_path / "a", "ft", 1, norm=2.0, difference=4.0, ratio=None)
    twin = save_run(tmp_path / "b", "ft", 1, norm=2.0, difference=4.0, ratio=None)
    (tmp_path / "empty").mkdir()
    damaged = save_run(tmp_path / "c", "ft", 1, norm=2.0, difference=4.0, ratio=None)
    (damaged / "metrics.json").write_text('{"method": "ft"')
    foreign = save_run(tmp_path / "e", "ft", 1, norm=2.0, difference=4.0, ratio=None)
    (foreign / "metrics.json").write_text('{"method": "ft"}')
    other = save_run(tmp_path / "d", "ft", 2, norm=2.0, difference=4.0, ratio=None)
    text = (other / "metrics.json").read_text()
    (other / "metrics.json").write_text(text.replace('"dataset": "d"', '"dataset": "e"'))
    for folders, part in (
        ([one, twin], "same method and seed"),
        ([tmp_path / "empty"], "no finished run"),
        ([damaged], "metrics.json cannot be read as JSON"),
        ([foreign], "is damaged, or was not written by `python -m ntk_lpft.finetune`"),
        ([one, other], "2 models or data sets"),
    ):
        assert main([str(folder) for folder in folders]) == 2
        printed = capsys.readouterr()
        assert part in printed.err
        assert printed.err.count("\n") == 1
        assert printed.out == ""
    assert main([str(one)]) == 0
    assert "not tested" in capsys.readouterr().out
