"""Names in csv files: none is a formula, and all are read back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.tables.table import Table
from ntk_lpft.runs import CalibrationRun
from ntk_lpft.storage import read_table, write_table

FORMULAS = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", '=HYPERLINK("http://x","y")', "＝1", "-1-1", "'=1"]


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    table = pd.DataFrame({"method": [name, "ft"], name: [1.5, -2.5], "n": [1, -1]})
    write_table(path, table)
    written = cells(path)
    assert written[0] == ["method", f"'{name}", "n"]
    assert [row[0] for row in written[1:]] == [f"'{name}", "ft"]
    assert [row[1:] for row in written[1:]] == [["1.5", "1"], ["-2.5", "-1"]]
    pd.testing.assert_frame_equal(read_table(path, ["method", name], ["n"]), table)
    assert f"'{name}"[:2] in Table("t", "t", table, table, 1, "").to_csv()


names = st.text(st.sampled_from("'=+-@\t1aeé "), max_size=6).filter(lambda name: name.strip() == name and name)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(names, min_size=1, max_size=4))
def test_names_are_read_as_they_were(tmp_path: Path, chosen: list[str]) -> None:
    path = tmp_path / "t.csv"
    write_table(path, pd.DataFrame({"name": ["words", *chosen]}))
    assert read_table(path, ["name"])["name"].tolist() == ["words", *chosen]


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "N/A"])
def test_names_that_look_missing_are_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    write_table(path, pd.DataFrame({"name": ["cb", name], "value": [float("nan"), 1.0]}))
    table = read_table(path, ["name"], ["value"])
    assert table["name"].tolist() == ["cb", name]
    assert table["value"].isna().tolist() == [True, False]


def test_a_run_of_calibrate_with_such_a_name(tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["=1+1"], "split": ["ood.x"], "value": [1.0]})
    run = CalibrationRun(tmp_path)
    run.write_tables(table, table, table)
    written = list(tmp_path.glob("*.csv"))
    assert len(written) == 3
    assert all(cells(path)[1][0] == "'=1+1" for path in written)
