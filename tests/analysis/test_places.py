"""Tables, figures, the report and a suite replace nothing that is not their own, wherever they are sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.drawn_results import everything
from helpers.folders import contents, fill
from helpers.handmade_results import Handmade
from helpers.messages import matches
from helpers.tiny_suite import run, tiny_suite

from analysis.report.__main__ import main as report
from analysis.tables.__main__ import main as tables
from figures.__main__ import main as figures

Refused = Callable[..., str]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = Handmade(tmp_path / "results")
    made.run("cb", "ft", 1)
    return made.folder


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    def call(main: Callable[[Sequence[str]], int], *words: object) -> str:
        before = contents(tmp_path)
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert contents(tmp_path) == before
        return line.removeprefix("error: ")

    return call


def test_tables_and_figures_share_a_folder_with_others(results: Path, tmp_path: Path, refused: Refused) -> None:
    paper = tmp_path / "paper"
    fill(paper, "paper.tex", "table13.tex", "figure2.png")
    words = [str(results), "--output-dir", str(paper), "--only", "table13"]
    matches(refused(tables, *words), r"holds table13\.tex, which no run of `python -m analysis\.tables` wrote")
    (paper / "table13.tex").unlink()
    for _ in range(2):
        assert tables(words) == 0
    drawn = everything(tmp_path / "drawn").path
    words = [str(drawn), "--output-dir", str(paper), "--only", "figure2"]
    matches(refused(figures, *words), r"holds figure2\.png, which no run of `python -m figures` wrote")
    (paper / "figure2.png").unlink()
    for _ in range(2):
        assert figures(words) == 0
    assert tables([str(results), "--output-dir", str(paper), "--only", "table13"]) == 0
    assert (paper / "paper.tex").read_text() == "paper.tex"
    (paper / "table13.md").unlink()
    (paper / "table13.md").symlink_to(paper / "paper.tex")
    said = refused(tables, results, "--output-dir", paper, "--only", "table13")
    matches(said, r"holds table13\.md, a symbolic link")


def test_tables_in_a_suites_own_place_are_made_anew_whoever_lists_them(results: Path) -> None:
    assert tables([str(results)]) == 0
    made = contents(results / "tables")
    (results / "tables" / ".ntk_lpft.json").unlink()  # as of an earlier version, or in a copy without hidden files
    assert tables([str(results), "--only", "table13"]) == 0
    assert tables([str(results)]) == 0
    assert contents(results / "tables") == made


def test_the_report_replaces_reports_alone(results: Path, tmp_path: Path, refused: Refused) -> None:
    page, mine, link = tmp_path / "page.html", tmp_path / "mine.html", tmp_path / "link.html"
    for _ in range(2):
        assert report([str(results), "--output", str(page)]) == 0
    mine.write_text("<title>mine</title>")
    link.symlink_to(page)
    os.mkfifo(tmp_path / "pipe")
    for path in (mine, link, results / "suite.json", tmp_path / "pipe", Path("/dev/null")):
        said = refused(report, results, "--output", path)
        matches(said, f"--output {path} is there, and is no page of this command; move it away, or give another file")
    assert Path("/dev/null").is_char_device()


def test_a_suite_begins_in_a_folder_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = tiny_suite(tmp_path / "place")
    for name in ("jobs/mine.json", "models/mine", "finetune/mine"):
        out = tmp_path / name.replace("/", "-")
        fill(out, name)
        assert run(suite, "--output-dir", out) == 2
        matches(capfd.readouterr().err, f"holds {name.split('/')[0]}, which no run of `python -m analysis.run` wrote")
        assert contents(out) == {name: name.encode()}
