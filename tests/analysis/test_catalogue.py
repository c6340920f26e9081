"""The list of the paper's tables and figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import catalogue
from analysis.suite.job import KINDS
from ntk_lpft.errors import InputError


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


def test_the_readme_lists_every_table_and_figure() -> None:
    text = (Path(catalogue.__file__).parent / "README.md").read_text(encoding="utf-8")
    for item in catalogue.ITEMS.values():
        assert f"| `{item.name}` | {item.title} |" in text
