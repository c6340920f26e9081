"""Tables as the commands print them."""

from __future__ import annotations

from ntk_lpft.commands.text import text_table


def test_names_are_aligned_to_the_left_and_numbers_to_the_right() -> None:
    text = text_table(["split", "rows", "loss"], [["train", "1000", "0.250"], ["ood.x", "7", "12.5"]])
    assert text.splitlines() == [
        "split  rows   loss",
        "------------------",
        "train  1000  0.250",
        "ood.x     7   12.5",
    ]


def test_all_columns_can_be_aligned_to_the_right() -> None:
    assert text_table(["kernel"], [["P"], ["P+F"]], left=0).splitlines() == ["kernel", "------", "     P", "   P+F"]


def test_columns_without_content_are_left_out() -> None:
    text = text_table(["name", "empty", "last"], [["a", "", "–"], ["b", "", ""]])
    assert text.splitlines() == ["name  last", "----------", "a        –", "b"]


def test_cells_are_shown_as_they_are() -> None:
    """Nothing that looks like a number is written anew."""
    text = text_table(["name", "value"], [["1e3", "007"], ["nan", "1_000"]])
    assert [line.split() for line in text.splitlines()[2:]] == [["1e3", "007"], ["nan", "1_000"]]


def test_no_rows_make_no_table() -> None:
    assert text_table(["name", "rank"], []) == text_table(["name"], [[""]]) == ""
