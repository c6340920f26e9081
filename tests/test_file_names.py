"""Whatever users call things, files get names that file systems take, and no two get the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ntk_lpft.file_names import file_name, short_name

NAMES = ["a b", "a-b", "a/b", "a\\b", "a\nb", "a\0b", "a?b", "é" * 300, "é" * 301, "x" * 300, "x" * 299 + "y", "..",
         "", "\ud800", "\ud801", "$20_$50", "日本語" * 90]  # fmt: skip


def test_plain_names_stay() -> None:
    assert file_name(["reliability", "cb", "lp-ft", "ood.sst5"], ".png") == "reliability_cb_lp-ft_ood.sst5.png"
    assert short_name("minilm my data-lp-ft") == "minilm my data-lp-ft"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_a_file(tmp_path: Path, name: str) -> None:
    made = tmp_path / file_name(["reliability", name], ".png")
    assert made.parent == tmp_path
    made.write_text("there")
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    assert len(made.name.encode()) <= 200
    assert made.name.startswith("reliability_")
    assert made.suffix == ".png"


def test_two_names_never_meet() -> None:
    made = [file_name(["r", name], ".png") for name in NAMES]
    assert len(set(made)) == len(NAMES)
    # Where the parts join is part of the name as soon as another file has it.
    first = file_name(["a_b", "c"], ".png")
    second = file_name(["a", "b_c"], ".png", {first})
    assert first != second
    assert short_name("x" * 300) != short_name("x" * 299 + "y")
    assert len(short_name("é" * 300).encode()) <= 200
