"""Each command owns one section of RESULTS.md and leaves every other line alone."""

from __future__ import annotations

from pathlib import Path

from benchmarks.document import table, write_section

BEFORE = """# Benchmarks

An introduction.

## Engine

old | numbers

### A part of it

## By hand

| kept | as it is |

## Engine room

Not the engine's.
"""


def test_a_section_replaces_its_own_alone(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text(BEFORE, encoding="utf-8")
    write_section("Engine", ["new"], file)
    assert file.read_text(encoding="utf-8") == BEFORE.replace("old | numbers\n\n### A part of it", "new")


def test_a_new_section_goes_to_the_end(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text(BEFORE, encoding="utf-8")
    write_section("Peers", ["theirs"], file)
    assert file.read_text(encoding="utf-8") == BEFORE + "\n## Peers\n\ntheirs\n"


def test_the_last_section_is_replaced_too(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text(BEFORE, encoding="utf-8")
    write_section("Engine room", ["other"], file)
    assert file.read_text(encoding="utf-8") == BEFORE.replace("Not the engine's.", "other")


def test_a_document_is_begun(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    write_section("Peers", ["theirs"], file)
    assert file.read_text(encoding="utf-8") == "# Benchmarks\n\n## Peers\n\ntheirs\n"


def test_cells_do_not_break_a_table() -> None:
    assert table(("a", "b"), [("max |Θ|", "two\nlines")]) == [
        "| a | b |", "|---|---|", "| max \\|Θ\\| | two lines |",
    ]  # fmt: skip
