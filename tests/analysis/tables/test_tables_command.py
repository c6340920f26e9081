"""``python -m analysis.tables``, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.handmade_results import Handmade

from analysis.tables.__main__ import main


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = Handmade(tmp_path / "results")
    for seed in (1, 2):
        made.run("cb", "ft", seed, norm=float(seed), accuracy=0.5 + seed / 10)
    made.add("finetune", "cb", "ft", 3, state="failed", error="boom")
    made.calibration("cb", "ft", 1, (0.10, 0.50), (0.05, 0.25))
    return made.folder


def test_all_tables_that_can_be_made_are_written(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(results)]) == 0
    names = {"table1", "table3", "table8", "table12", "table13", "claims"}
    written = {path.name for path in (results / "tables").glob("[!.]*")}
    assert written == {f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")}
    printed = capsys.readouterr().out
    for name in ("table2", "table10", "table11", "sampling", "lora"):
        assert sum(line.startswith(f"left out: {name}") for line in printed.splitlines()) == 1
    assert "missing or broken: finetune/cb/ft, seed 3: failed (boom)" in printed
    assert "6 tables in" in printed.splitlines()[-1]
    assert "not tested" in printed
    assert "1.50 ± 0.71 (2 of 3)" in (results / "tables" / "table13.md").read_text()


def test_chosen_tables_are_printed_whole(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "elsewhere"
    assert main([str(results), "--only", "table16", "claims", "--output-dir", str(place)]) == 0
    assert {path.name for path in place.glob("[!.]*")} == {
        f"{name}.{ending}" for name in ("table8", "claims") for ending in ("csv", "md", "tex")
    }
    assert not (results / "tables").exists()
    printed = re.sub(" +", " ", capsys.readouterr().out)
    assert "| cb | accuracy | FT | 65.00 ± 7.07 (2 of 3) | 81.43 ± 3.91 (−16.43) |" in printed


def test_tables_are_made_anew(results: Path) -> None:
    assert main([str(results), "--only", "table13"]) == 0
    (results / "finetune/cb/ft/seed-2/metrics.json").unlink()
    assert main([str(results), "--only", "table13"]) == 0
    text = (results / "tables/table13.md").read_text()
    assert "1.00 (1 of 3)" in text
    assert "seed 2: finished, but metrics.json is gone" in text


def test_bad_input_is_one_line_and_writes_nothing(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for words, part in (
        ([str(results), "--only", "table5"], "unknown table 'table5'"),
        ([str(results), "--only", "figure1"], "unknown table 'figure1'"),
        ([str(results), "--only", "table2"], "analysis.run --suite smoke --only table2"),
        ([str(tmp_path / "empty")], "holds no results of a suite"),
        ([str(tmp_path / "none")], "does not exist; make it by python -m analysis.run"),
        ([], "give one results folder, not 0"),
        ([str(results), str(results)], "give one results folder, not 2"),
        ([str(results), "--onyl", "table1"], "unrecognized arguments: --onyl"),
    ):
        assert main(words) == 2, words
        printed = capsys.readouterr()
        assert part in printed.err
        assert printed.err.count("\n") == 1
        assert printed.out == ""
    assert not (results / "tables").exists()


def test_as_a_user_runs_it(results: Path) -> None:
    command = [sys.executable, "-m", "analysis.tables", str(results), "--only", "table13"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.50 ± 0.71 (2 of 3)" in done.stdout
    assert (results / "tables" / "table13.tex").is_file()
