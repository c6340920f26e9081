"""The report: one page, complete in itself, that says what is missing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.handmade_results import Handmade
from helpers.small_results import small_results
from matplotlib.figure import Figure

from analysis import catalogue
from analysis.report.__main__ import main
from analysis.report.page import build_page, label_of
from analysis.report.pictures import describe, picture_of
from analysis.report.verdicts import view_claims
from analysis.suite.results import read_results

pytestmark = pytest.mark.slow

VOID = {"meta", "link", "img", "br"}
ERROR = "exit status 1: <script>alert('no')</script> & gone"


class Page(HTMLParser):
    """Every element with its attributes and the text in it; refuses tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.path: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(html)
        self.close()
        assert not self.path

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs}, list[str]())
        self.elements.append(element)
        if tag not in VOID:
            self.path.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.path[-1][0] == tag, f"</{tag}> closes <{self.path[-1][0]}>, line {self.getpos()[0]}"
        self.path.pop()

    def handle_data(self, data: str) -> None:
        for _, _, texts in self.path:
            texts.append(data)

    def all(self, tag: str, of: str | None = None) -> list[dict[str, str]]:
        """Return the attributes of each element of a kind, and of a class."""
        return [found for name, found, _ in self.elements if name == tag and (of is None or of in _classes(found))]

    def texts(self, tag: str, of: str | None = None) -> list[str]:
        """Return the text of each element of a kind, and of a class."""
        return [
            " ".join("".join(texts).split())
            for name, found, texts in self.elements
            if name == tag and (of is None or of in _classes(found))
        ]


def _classes(attributes: dict[str, str]) -> list[str]:
    return attributes.get("class", "").split()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in which the runs are there but for one, and all other jobs are missing."""
    made = Handmade(tmp_path_factory.mktemp("report") / "results")
    for method, norm, diff in (("lp", 9.0, 0.0), ("ft", 1.0, 4.0), ("lp-ft", 9.1, 1.0)):
        made.run("cb", method, 1, norm=norm, diff=diff)
    made.add("finetune", "cb", "lora", 1, state="failed", error=f"Traceback\n{ERROR}")
    made.add("kernel", "cb", "ft", 1, state="waiting")
    return made.folder


@pytest.fixture(scope="module")
def broken_page(broken: Path) -> Page:
    return Page(build_page(read_results(broken)))


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(build_page(read_results(small_results(tmp_path_factory))))


def test_missing_jobs_are_named_at_the_top(broken_page: Page) -> None:
    assert "2 of 5 jobs have no results" in broken_page.texts("h2")[0]
    lines = broken_page.texts("li")
    assert f"finetune/cb/lora/seed-1: failed ({ERROR})" in lines
    assert "kernel/cb/ft/seed-1: not run" in lines
    assert not broken_page.all("script")


def test_a_table_or_figure_without_jobs_says_which_command_makes_it(broken: Path, broken_page: Page) -> None:
    missing = dict(zip([item.name for item in catalogue.FIGURES], broken_page.texts("p", "missing")[-11:], strict=True))
    assert "kernel/cb/ft" in missing["figure2"]
    codes = broken_page.texts("code")
    for name in ("table2", "table3", "figure2", "figure11"):
        assert codes.count(f"python -m analysis.run --suite smoke --only {name} --output-dir {broken}") == 1
    assert not any(text.count("python -m") > 1 for text in missing.values())


def test_tables_that_have_jobs_stand_with_their_numbers_and_problems(broken_page: Page) -> None:
    cells = broken_page.texts("td")
    assert "9.10" in cells  # ‖V‖ after LP-FT
    assert any("finetune/cb/lora" in line and ERROR in line for line in broken_page.texts("details", "troubles"))


def test_claims_come_first_with_verdicts_coloured_and_worded(broken_page: Page) -> None:
    headings = [text for text in broken_page.texts("h2") if "jobs have no" not in text]
    assert headings == ["Claims", "Tables", "Figures", "Settings", "Jobs"]
    kinds = [tuple(_classes(found)) for found in broken_page.all("span", "verdict")]
    found = set(zip(kinds, broken_page.texts("span", "verdict"), strict=True))
    assert {(("verdict", "holds"), "✓ holds"), (("verdict", "untested"), "– not tested")} <= found
    words = {
        "holds": r"✓ (\d+ × )?holds",
        "fails": r"✗ (\d+ × )?does not hold",
        "mixed": r"◐ (\d+ × )?mixed( \(\d+ of \d+\))?",
        "untested": r"– (\d+ × )?not tested",
    }
    for (_, kind), text in found:
        assert re.fullmatch(words[kind], text), text


def test_the_rows_of_one_claim_are_put_together() -> None:
    rows = [("A", "one", "x > 1", "2", "3", "holds"), ("A", "two", "x > 1", "1", "3", "mixed (1 of 3): why: so"),
            ("B", "one", "y", "–", "0", "not tested")]  # fmt: skip
    layout = pd.DataFrame(rows)
    names = ("claim", "data set", "measured", "value", "seeds", "verdict")
    layout.columns = pd.MultiIndex.from_tuples([(name, "") for name in names])
    view = view_claims(layout)
    assert view.headers == ["claim", "data set", "verdict", "measured", "value", "seeds"]
    assert [(claim.text, [row.dataset for row in claim.rows]) for claim in view.groups] == [
        ("A", ["one", "two"]),
        ("B", ["one"]),
    ]
    second = view.groups[0].rows[1]
    assert (second.verdict.words, second.verdict.remark, second.verdict.kind) == ("mixed (1 of 3)", "why: so", "mixed")
    assert second.measured == ["x > 1", "1", "3"]
    assert [(number, verdict.kind) for number, verdict in view.counts] == [
        (1, "holds"),
        (1, "mixed"),
        (1, "untested"),
    ]


@pytest.mark.parametrize("which", ["broken_page", "whole_page"])
def test_the_page_needs_no_other_file_and_is_semantic(which: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(which)
    links = [found["href"] for tag in ("a", "link") for found in page.all(tag)]
    ids = [found["id"] for _, found, _ in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert all(link == "data:," or link.removeprefix("#") in ids for link in links)
    assert all(image["src"].startswith("data:image/") and len(image["alt"]) > 40 for image in page.all("img"))
    assert not re.search(r"url\(|@import|https?:", "".join(page.texts("style")))
    assert not any(name.startswith("on") or name == "style" for _, found, _ in page.elements for name in found)
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in header for header in page.all("th"))
    assert all(box.get("tabindex") == "0" and ({"aria-label", "aria-labelledby"} & box.keys())
               for box in page.all("div", "scroll"))  # fmt: skip
    described = [found["aria-labelledby"] for _, found, _ in page.elements if "aria-labelledby" in found]
    assert set(described) <= set(ids)
    levels = [int(name[1]) for name, _, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_whole_suite_has_every_figure_with_its_caption_and_every_table_of_its_jobs(whole_page: Page) -> None:
    assert "All 13 jobs have finished." in whole_page.texts("p", "fine")
    assert len(whole_page.all("img")) == len(whole_page.texts("figcaption")) == len(catalogue.FIGURES)
    assert all(len(text) > 40 for text in whole_page.texts("figcaption"))
    made = {found.get("id") for found in whole_page.all("table", "results")}
    asked = {item.name for item in catalogue.TABLES} - {"sampling", "lora"}  # the suite leaves these experiments out
    assert asked <= made
    assert len(whole_page.all("p", "missing")) == 2
    text = " ".join(whole_page.texts("main"))
    for part in ("13 jobs", "torch", "finetune/amazon/lp-ft/seed-1", "Iterations of the probe by Adam"):
        assert part in text


def test_the_command_writes_one_file_and_the_same_results_make_the_same_page(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(broken)]) == 0
    assert "2 of 5 jobs have no results" in capsys.readouterr().out
    assert main([str(broken), "--output", str(tmp_path / "page.html")]) == 0
    assert (broken / "report.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_bad_input_is_one_line_and_writes_nothing(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for words, part in (
        ([], "give one results folder, not 0"),
        ([broken, broken], "give one results folder, not 2"),
        ([tmp_path / "none"], "does not exist; make it by python -m analysis.run"),
        ([tmp_path / "empty"], "holds no results of a suite"),
        ([broken, "--output", tmp_path / "empty"], "is no file in a folder that exists"),
        ([broken, "--output", tmp_path / "none" / "page.html"], "is no file in a folder that exists"),
        ([broken, "--output", tmp_path / "file" / "page.html"], "is no file in a folder that exists"),
    ):
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert part in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def figure_of(points: int) -> Figure:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot(np.linspace(1, 2, points), np.linspace(3, 0.5, points), label="FT")
    left.axvline(1.5)
    left.set(title="Norm", xlabel="epoch", ylabel="‖V‖")
    right.imshow(np.arange(6).reshape(2, 3))
    right.set_title("F")
    figure.colorbar(right.images[0])
    return figure


def test_alternative_texts_say_what_is_drawn() -> None:
    assert describe(figure_of(5), "Figure 0: two things") == (
        "Figure 0: two things. 2 panels. Chart “Norm”: ‖V‖ against epoch. FT: from 3 to 0.5. Heat map “F”."
    )
    scattered = Figure()
    scattered.subplots().scatter([1, 2], [3, 4])
    assert describe(scattered, "Points.") == "Points. Scatter plot."


def test_pictures_are_vectors_or_pixels_where_those_are_smaller_and_always_the_same() -> None:
    small, again = (picture_of(figure_of(5), "t") for _ in range(2))
    assert small == again
    assert small.uri.startswith("data:image/svg+xml;base64,")
    assert small.width / small.height == pytest.approx(6.4 / 4.8, rel=0.01)
    crowded = Figure()
    rng = np.random.default_rng(0)
    crowded.subplots().scatter(rng.random(9000), rng.random(9000), s=rng.random(9000))
    head, _, body = picture_of(crowded, "t").uri.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body).startswith(b"\x89PNG")


def test_labels_number_tables_and_figures_as_the_paper_does() -> None:
    labels = {item.name: label_of(item) for item in catalogue.ITEMS.values()}
    assert labels["table1"] == "Table 1"
    assert labels["table2"] == "Tables 2 and 9"
    assert labels["table3"] == "Tables 3, 14 and 15"
    assert labels["figure11"] == "Figure 11"
    assert labels["sampling"] == "Word-embedding block"
    assert len(set(labels.values())) == len(labels)
