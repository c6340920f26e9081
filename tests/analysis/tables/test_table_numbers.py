"""Tables from results written by hand: every number against one worked out on paper."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from helpers.handmade_results import Handmade

from analysis.suite.results import read_results
from analysis.tables import Table, make_claims, make_table
from analysis.tables.reference import paper_number, paper_test
from ntk_lpft.errors import InputError


def line_of(table: Table, **of: str) -> pd.Series:
    """Find the one line of the tidy frame that is of something."""
    found = table.frame
    for column, value in of.items():
        found = found[found[column] == value]
    assert len(found) == 1, of
    return found.iloc[0]


def text_of(table: Table, header: str, below: str, **of: str) -> str:
    """Find a cell of the layout."""
    found = table.layout
    for column, value in of.items():
        found = found[found[column.replace("_", " "), ""] == value]
    assert len(found) == 1, of
    return str(found[header, below].iloc[0])


@pytest.fixture
def features(tmp_path: Path) -> Path:
    made = Handmade(tmp_path / "results")
    for seed, norm, diff, cs in ((1, 0.8, 10.0, 0.3), (2, 1.2, 14.0, 0.5)):
        made.run("cb", "ft", seed, norm=norm, diff=diff, cs=cs, fdr=100.0, before=seed / 10)
        made.run("cb", "lp", seed, norm=20.0 + seed, cs=0.99, fdr=7.0 + seed, before=seed / 10)
    return made.folder


def test_table1_by_hand(features: Path) -> None:
    table = make_table(read_results(features), "table1")
    norm = line_of(table, dataset="cb", method="ft", measure="head_norm")
    assert (norm["mean"], norm["seeds"], norm["asked"]) == (pytest.approx(1.0), 2, 2)
    assert norm["std"] == pytest.approx(0.4 / math.sqrt(2))  # of 0.8 and 1.2, ddof 1
    assert norm["paper"] == 0.960
    assert norm["difference"] == pytest.approx(0.04)
    diff = line_of(table, dataset="cb", method="ft", measure="feature_difference")
    assert (diff["mean"], diff["paper"], diff["difference"]) == (12.0, 22.1, pytest.approx(-10.1))
    assert diff["std"] == pytest.approx(4 / math.sqrt(2))
    # The pretrained row: CS and FDR are LP's, the norm that of the new head, the same in every method.
    assert line_of(table, method="pretrained", measure="cosine_similarity")["mean"] == pytest.approx(0.99)
    assert line_of(table, method="pretrained", measure="fisher_discriminant_ratio")["mean"] == 8.5
    assert line_of(table, method="pretrained", measure="head_norm")["mean"] == pytest.approx(0.15)
    assert line_of(table, method="pretrained", measure="head_norm")["paper"] == 0.951
    # LP has no Diff, and methods that were not asked for are not there at all.
    assert table.frame[(table.frame["method"] == "lp") & (table.frame["measure"] == "feature_difference")].empty
    assert set(table.frame["method"]) == {"pretrained", "lp", "ft"}
    assert text_of(table, "‖V‖", "here", method="FT") == "1.00 ± 0.28"
    assert text_of(table, "‖V‖", "paper (Δ)", method="FT") == "0.960 (+0.0400)"
    assert text_of(table, "FDR", "paper (Δ)", method="FT") == "7.39e8 (−7.39e8)"
    assert text_of(table, "CS", "here", method="LP") == "0.990 ± 0.000"
    assert table.problems == []


def test_table13_and_table12_have_their_own_numbers_of_the_paper(features: Path) -> None:
    results = read_results(features)
    assert line_of(make_table(results, "table13"), method="lp")["paper"] == 33.5  # 24.8 in table 1
    assert line_of(make_table(results, "table13"), method="pretrained")["paper"] == 0.947
    diff = line_of(make_table(results, "table12"), method="ft")
    assert (diff["test"], diff["mean"], diff["paper"]) == ("test", 12.0, 21.1)


def test_ood_tests_have_the_papers_numbers_for_the_papers_amazon_alone(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    for dataset, name in (("amazon", "sst5"), ("amazon-snippets", "movie-snippets"), ("cb", None)):
        other = (
            {} if name is None else {name: {"accuracy": 0.7252, "cosine_similarity": 0.7, "feature_difference": 9.0}}
        )
        made.run(dataset, "ft", 1, accuracy=0.9, ood=other)
    results = read_results(made.folder)
    table = make_table(results, "table10")
    assert set(table.frame["dataset"]) == {"amazon", "amazon-snippets"}  # CB has no OOD tests
    assert line_of(table, dataset="amazon", test="test")["paper"] == 88.66
    ood = line_of(table, dataset="amazon", test="ood.sst5")
    assert (ood["mean"], ood["paper"], ood["difference"]) == (pytest.approx(72.52), 72.52, pytest.approx(0))
    assert math.isnan(ood["std"])
    assert text_of(table, "accuracy, %", "paper (Δ)", data_set="amazon", test="sst5 (OOD)") == "72.52 (0.00)"
    assert table.frame[table.frame["dataset"] == "amazon-snippets"]["paper"].isna().all()
    assert text_of(table, "accuracy, %", "paper (Δ)", data_set="amazon-snippets", test="test (ID)") == "–"
    similarity = line_of(make_table(results, "table11"), test="ood.sst5", measure="cosine_similarity", method="ft")
    assert (similarity["paper"], similarity["difference"]) == (0.604, pytest.approx(0.096))
    assert line_of(make_table(results, "table12"), test="ood.sst5", method="ft")["paper"] == 20.3
    assert line_of(make_table(results, "table12"), test="test", dataset="amazon", method="ft")["paper"] == 19.8


def test_table8_uses_each_data_sets_own_score(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    for seed, score in ((1, 0.55), (2, 0.65), (3, 0.6)):
        made.run("cola", "ft", seed, accuracy=0.8, matthews=score)
        made.run("cb", "ft", seed, accuracy=score)
    table = make_table(read_results(made.folder), "table8")
    cola = line_of(table, dataset="cola")
    assert (cola["metric"], cola["mean"], cola["std"]) == ("matthews", pytest.approx(60), pytest.approx(5))
    assert (cola["paper"], cola["paper_std"], cola["difference"]) == (58.75, 1.70, pytest.approx(1.25))
    cb = line_of(table, dataset="cb")
    assert (cb["metric"], cb["paper"], cb["difference"]) == ("accuracy", 81.43, pytest.approx(-21.43))
    shown = text_of(table, "test score, %", "here", data_set="cola")
    assert shown == "60.00 ± 5.00"
    assert text_of(table, "test score, %", "paper (Δ)", data_set="cola") == "58.75 ± 1.70 (+1.25)"


def row(rank: int, norm: float, train: float = 0.5, test: float = 0.25, **more: float) -> dict[str, float]:
    return {"rank": rank, "frobenius_norm": norm, "train_pair_accuracy": train, "eval_pair_accuracy": test, **more}


def test_table2_by_hand(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    for seed in (1, 2):
        made.kernel("cb", "ft", seed, P=row(17 + seed, 5e4), F=row(600, 1e4 * seed, ft_ratio=0.1 * seed),
                    PF=row(200, 6e4, 0.84, 0.8))  # fmt: skip
        made.kernel("cb", "lp-ft", seed, P=row(17 + seed, 5e4 + 1), PF=row(300, 7e6),
                    F=row(300, 7e6, ft_ratio=1.0, median_ft_ratio=0.9 + seed / 100))  # fmt: skip
    table = make_table(read_results(made.folder), "table2")
    of_p = line_of(table, kernel="P", measure="rank")
    assert (of_p["method"], of_p["mean"], of_p["seeds"], of_p["asked"], of_p["paper"]) == ("", 18.5, 2, 2, 18)
    assert line_of(table, kernel="P", measure="frobenius_norm")["mean"] == 5e4  # of one method; the other agrees
    of_f = line_of(table, kernel="F", method="ft", measure="frobenius_norm")
    assert (of_f["mean"], of_f["paper"], of_f["difference"]) == (1.5e4, 1.39e4, pytest.approx(1.1e3))
    assert of_f["std"] == pytest.approx(1e4 / math.sqrt(2))
    assert text_of(table, "Frobenius norm", "here", kernel="F", method="FT") == "(1.50 ± 0.71)e4"
    assert text_of(table, "Frobenius norm", "paper (Δ)", kernel="F", method="FT") == "1.39e4 (+1100)"
    assert text_of(table, "rank", "here", kernel="P") == "18.5 ± 0.7"
    ratio = line_of(table, kernel="F", method="lp-ft", measure="ft_ratio")
    assert (ratio["mean"], ratio["paper"]) == (1.0, 1.0)
    median = line_of(table, kernel="F", method="lp-ft", measure="median_ft_ratio")
    assert median["mean"] == pytest.approx(0.915)
    assert math.isnan(median["paper"])  # the paper has means only
    both = line_of(table, kernel="P+F", method="ft", measure="test_accuracy_pct")
    assert (both["mean"], both["paper"], both["difference"]) == (80.0, 79.76, pytest.approx(0.24))
    assert table.frame[(table.frame["kernel"] != "F") & (table.frame["measure"] == "ft_ratio")].empty
    assert "base rate 66.7 % on cb" in table.note
    assert "kernels of 8 training and 4 test rows (paper: at most 250 and 250)" in table.note
    assert table.problems == []


def test_kernels_that_do_not_agree_on_p_or_did_not_converge_are_named(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.kernel("cb", "ft", 1, P=row(18, 5e4), F=row(6, 1e4, ft_ratio=0.1), PF=row(6, 1e4, unconverged_fits=2))
    made.kernel("cb", "lp-ft", 1, P=row(18, 6e4), F=row(6, 1e4, ft_ratio=1.0), PF=row(6, 1e4))
    problems = make_table(read_results(made.folder), "table2").problems
    assert len(problems) == 2
    assert any("kernel/cb/ft, seed 1: the kernel classifier did not converge in every fit (P+F)" in p for p in problems)
    assert any("kernel/cb/lp-ft, seed 1: its P differs" in p for p in problems)


def test_table3_by_hand(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.calibration("cb", "lora", 1, (0.10, 0.50), (0.05, 0.25))
    made.calibration("cb", "lora", 2, (0.14, 0.54), (0.07, 0.35))
    table = make_table(read_results(made.folder), "table3")
    means = {line["measure"]: (line["mean"], line["paper"]) for _, line in table.frame.iterrows()}
    assert means == {
        "ece_pct": (pytest.approx(12), 12.89),
        "ece_scaled_pct": (pytest.approx(6), 16.22),
        "mce_pct": (pytest.approx(52), 52.58),
        "mce_scaled_pct": (pytest.approx(30), 66.75),
    }
    assert line_of(table, measure="ece_pct")["std"] == pytest.approx(4 / math.sqrt(2))


def test_sampling_and_lora_show_means_over_draws(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    drawn = {"mean": 4.0, "std": 0.5}
    names = ("relative_error", "relative_error_f", "f_rank", "f_frobenius_norm", "f_ft_ratio", "pf_rank",
             "pf_frobenius_norm")  # fmt: skip
    exact = {name: 3.0 for name in names if name.startswith(("f_", "pf_"))}
    summary = {
        "samples": 9,
        "parameters": 1000,
        "sampled_parameters": 100,
        "exact": {"block_share_of_trace": 0.02, **exact},
        "measured": {"scaled": {"draws": 50, "bias": 0.125, **dict.fromkeys(names, drawn)}},
    }
    made.add("embedding_sampling", "cb", "lp-ft", 1, {"summary.json": json.dumps(summary)})
    shared = {"error_times_sqrt_rank": 1.0, "norm_ratio": {"mean": 1.0, "std": 0.2}, "bound": {"0.5": 0.25},
              "share_within_0.5": {"mean": 0.75, "std": 0.0}}  # fmt: skip
    ranks = [{"rank": rank, "relative_error": {"mean": 1 / rank, "std": 0.1}, **shared} for rank in (1, 2)]
    made.add("lora_scaling", "cb", "lp-lora", 1, {"summary.json": json.dumps({"ranks": ranks})})
    results = read_results(made.folder)
    table = make_table(results, "sampling")
    found = line_of(table, estimate="scaled", measure="f_rank")
    assert (found["head"], found["mean"], found["std"]) == ("lp", 4.0, 0.5)
    assert line_of(table, estimate="exact", measure="f_rank")["mean"] == 3.0
    assert text_of(table, "its bias", "", estimate="scaled") == "0.125"
    assert "9 samples, 100 of 1000 parameters, draws: 50 scaled; the block is 2 % of F's trace" in table.note
    table = make_table(results, "lora")
    assert line_of(table, rank="2", measure="relative_error")["mean"] == 0.5
    assert text_of(table, "relative error", "", rank="1") == "1.00 ± 0.10"
    assert line_of(table, rank="1", measure="bound_0.5")["mean"] == 0.25


def test_the_papers_numbers() -> None:
    """As printed in the paper, read there and not from the files."""
    expected = [
        ("table1", "fisher_discriminant_ratio", ("rte", "lp-ft"), 157),
        ("table1", "head_norm", ("cb", "lp-lora"), 24.9),
        ("table2", "rank", ("cb", "", "P"), 18),
        ("table2", "ft_ratio", ("cb", "lp-lora", "F"), 1.0137),
        ("table2", "frobenius_norm", ("wic", "lp-ft", "NTK"), 7.77e7),
        ("table2", "test_accuracy_pct", ("boolq", "lp-lora", "F"), 63.6),
        ("table3", "ece_scaled_pct", ("cb", "lora"), 16.22),
        ("table3", "mce_pct", ("wsc", "lora"), 13.27),
        ("table10", "accuracy_pct", ("dynasent", "lora"), 46.70),
        ("table11", "feature_difference", ("semeval", "lp-lora"), 2.08),
        ("table12", "feature_difference", ("wsc", "lora"), 0.244),
        ("table13", "head_norm", ("wsc", "lp"), 2.26e-4),
        ("table13", "head_norm", ("sst2", "lp"), 132),
    ]
    for table, measure, key, number in expected:
        paper = paper_number(table, measure, *key)
        assert paper is not None
        assert (paper.mean, paper.std) == (number, None), (table, key)
    score = paper_number("table8", "score_pct", "sst2", "lora", "accuracy")
    assert score is not None
    assert (score.mean, score.std) == (50.92, 0)
    assert paper_number("table8", "score_pct", "cola", "ft", "accuracy") is None  # printed as Matthews correlation
    assert paper_number("table1", "head_norm", "amazon-snippets", "ft") is None
    assert paper_number("table1", "feature_difference", "cb", "lp") is None
    assert paper_test("amazon-snippets", "ood.sst5") is None


def test_a_missing_or_broken_run_is_reported_and_not_averaged(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.run("cb", "ft", 1, norm=1.0)
    made.run("cb", "ft", 2, norm=3.0)
    made.add("finetune", "cb", "ft", 3, state="failed", error="Traceback\nerror: out of memory")
    made.add("finetune", "cb", "ft", 4, {"metrics.json": '{"head":'})
    made.add("finetune", "cb", "ft", 5, state="waiting")
    made.run("cb", "ft", 6, norm=float("nan"))
    (made.folder / "finetune/cb/ft/seed-6/metrics.json").rename(made.folder / "kept.json")
    made.run("cb", "ft", 7, norm=float("nan"))
    made.add(
        "finetune", "cb", "ft", 8, {"metrics.json": (made.folder / "finetune/cb/ft/seed-1/metrics.json").read_text()}
    )
    made.add("finetune", "cb", "lp", 1, state="blocked")
    table = make_table(read_results(made.folder), "table13")
    norm = line_of(table, method="ft")
    assert (norm["mean"], norm["std"], norm["seeds"], norm["asked"]) == (2.0, pytest.approx(math.sqrt(2)), 2, 8)
    assert text_of(table, "‖V‖", "here", method="FT") == "2.00 ± 1.41 (2 of 8)"
    assert text_of(table, "‖V‖", "here", method="LP") == "– (0 of 1)"
    assert math.isnan(line_of(table, method="lp")["mean"])
    expected = ["seed 3: failed (error: out of memory)", "seed 4: metrics.json is damaged", "seed 5: not run",
                "seed 6: finished, but metrics.json is gone", "seed 7: its head norm is undefined",
                "seed 8: its metrics.json is of seed 1", "lp, seed 1: needs a job that failed"]  # fmt: skip
    for part in expected:
        assert sum(part in line for line in table.problems) == 1, part
    assert len(table.problems) == len(expected)


def test_damaged_csv_and_missing_numbers_are_reported(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "results")
    made.calibration("cb", "ft", 1, (0.1, 0.5), (0.05, 0.25))
    place = made.calibration("cb", "ft", 2, (0.3, 0.5), (0.05, 0.25))
    lines = (place / "calibration.csv").read_text().splitlines()
    (place / "calibration.csv").write_text("\n".join(line for line in lines if ",test,after,ece" not in line))
    made.add("calibration", "cb", "ft", 3, {"calibration.csv": ""})
    made.add("calibration", "cb", "ft", 4, {"calibration.csv": "a,b\n1,2\n"})
    table = make_table(read_results(made.folder), "table3")
    assert text_of(table, "ECE, %", "here", method="FT") == "20.00 ± 14.14 (2 of 4)"
    assert text_of(table, "ECE scaled, %", "here", method="FT") == "5.00 (1 of 4)"
    assert sorted(line.split(", ", 1)[1] for line in table.problems) == [
        "seed 2: has no ECE scaled",
        "seed 3: calibration.csv is missing or damaged (No columns to parse from file)",
        "seed 4: calibration.csv is damaged: it needs the columns split, stage, measure, value",
    ]


def test_a_table_without_results_names_the_command_that_makes_them(features: Path) -> None:
    results = read_results(features)
    for name in ("table2", "table3", "sampling", "lora"):
        with pytest.raises(InputError, match=rf"{name} has no results.*analysis\.run --suite smoke --only {name}"):
            make_table(results, name)
    for name in ("table10", "table11"):
        with pytest.raises(InputError, match="has OOD tests"):
            make_table(results, name)
    with pytest.raises(InputError, match="unknown table 'table5'"):
        make_table(results, "table5")


def test_the_note_tells_what_differs_from_the_papers_set_up(features: Path, tmp_path: Path) -> None:
    note = make_table(read_results(features), "table1").note
    assert note.startswith("Set-up: model tiny (paper: roberta-base); cb: 3 epochs (paper: 10); "
                           "seeds 1, 2 (paper: 5 seeds).")  # fmt: skip
    same = {"model": "roberta-base", "datasets": {"cb": {"rows": None, "epochs": 10, "kernel_rows": [250, 250]}}}
    made = Handmade(tmp_path / "same", same)
    for seed in range(5):
        made.run("cb", "ft", seed)
    assert make_table(read_results(made.folder), "table13").note.startswith("Set-up as in the paper.")
    drawn = {"model": "roberta-base", "datasets": {"mine": {"rows": [40, 20], "epochs": 10}}}
    made = Handmade(tmp_path / "drawn", drawn)
    for seed in range(5):
        made.run("mine", "ft", seed)
    note = make_table(read_results(made.folder), "table13").note
    assert note.startswith("Set-up: mine: not in the paper, 40 training and 20 other rows drawn. Mean ")


@pytest.mark.parametrize(
    ("dataset", "method", "parts"),
    [
        ("cb", "lora", []),
        ("rte", "lp-ft", ["LP heads of two classes are half their optimum (--lp-solver logistic-published)"]),
        ("mrpc", "lora", ["LoRA script of MRPC has learning rate 1e-5, where table 6 has 5e-4, as here", "half"]),
        ("cola", "ft", ["the best epoch of cola is that of accuracy, here of Matthews correlation", "half"]),
    ],
)
def test_the_note_tells_where_the_published_code_is_another(
    tmp_path: Path, dataset: str, method: str, parts: list[str]
) -> None:
    made = Handmade(tmp_path, {"model": "roberta-base", "datasets": {}})
    made.run(dataset, method, 1)
    note = make_table(read_results(made.folder), "table13").note
    assert ("The published code: " in note) == bool(parts)
    assert all(part in note for part in parts)
    assert "α of LoRA" not in note  # which tables of kernels alone depend on


def test_the_note_of_kernels_tells_the_published_alpha(tmp_path: Path) -> None:
    made = Handmade(tmp_path, {"model": "roberta-base", "datasets": {}})
    row = {"rank": 3, "frobenius_norm": 1.0, "train_pair_accuracy": 1.0, "eval_pair_accuracy": 1.0}
    made.kernel("cb", "lora", 1, P=row, F=row, PF=row)
    note = make_table(read_results(made.folder), "table2").note
    assert "its kernel script leaves α of LoRA at 16, a scaling of 2 and F four times as large" in note
    assert "two classes" not in note


def test_the_note_tells_how_far_lp_heads_depend_on_their_folds(tmp_path: Path) -> None:
    made = Handmade(tmp_path)
    for seed, norms in ((1, (0.5, 2.0)), (2, (2.0, 0.5))):
        probe = {"fold_draws": [{"fold_seed": seed + k, "head_norm": norm} for k, norm in enumerate(norms)]}
        for method in ("lp", "lp-ft"):
            place = made.run("cb", method, seed)
            metrics = json.loads((place / "metrics.json").read_text())
            (place / "metrics.json").write_text(json.dumps({**metrics, "probe": probe}))
    made.run("rte", "ft", 1)
    told = "folds, made by the seed: ‖V‖ 0.5 or 2 over 3 shuffles (cb)."
    for name in ("table1", "table8", "table13"):
        assert told in make_table(read_results(made.folder), name).note
    assert told in make_claims(read_results(made.folder)).note
    alone = Handmade(tmp_path / "alone")
    alone.run("cb", "ft", 1)
    assert "LP heads depend" not in make_table(read_results(alone.folder), "table13").note
