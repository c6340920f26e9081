"""Tables as texts: how numbers are written, csv, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis.tables import Table
from analysis.tables.cells import Cell, Measure, Paper, Row, Style, lay_out, tidy, write_difference, write_number
from analysis.tables.render import latex_text


@pytest.mark.parametrize(
    ("value", "style", "spread", "text"),
    [
        (24.81, "number", 0.3, "24.8 ± 0.3"),
        (0.123456, "number", math.nan, "0.123"),
        (999.6, "number", math.nan, "1000"),
        (5.1e4, "number", math.nan, "5.10e4"),
        (5.1e4, "number", 300.0, "(5.10 ± 0.03)e4"),
        (2.26e-4, "number", math.nan, "2.26e-4"),
        (-7.17e6, "number", math.nan, "−7.17e6"),
        (0.0, "number", 0.0, "0 ± 0"),
        (12.345, "percent", 1.0, "12.35 ± 1.00"),
        (0.99749, "similarity", 0.001, "0.997 ± 0.001"),
        (0.1987, "ratio", math.nan, "0.1987"),
        (1.2e-5, "ratio", math.nan, "1.20e-5"),
        (18.0, "count", 0.0, "18 ± 0"),
        (18.5, "count", 0.707, "18.5 ± 0.7"),
        (math.inf, "number", math.nan, "∞"),
        (math.nan, "percent", math.nan, "–"),
        (-0.001, "percent", math.nan, "0.00"),
    ],
)
def test_numbers_are_written(value: float, style: Style, spread: float, text: str) -> None:
    assert write_number(value, style, spread) == text


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [(0.26, "percent", "+0.26"), (-1.5, "percent", "−1.50"), (0.0, "percent", "0.00"), (-7.39e8, "number", "−7.39e8"),
     (2.0, "count", "+2"), (-0.001, "percent", "0.00")],
)  # fmt: skip
def test_differences_have_a_sign(value: float, style: Style, text: str) -> None:
    assert write_difference(value, style) == text


def test_one_seed_has_no_standard_deviation_and_missing_seeds_are_counted() -> None:
    asked = frozenset({1, 2, 3})
    assert Cell({1: 2.0}, frozenset({1})).text("number") == "2.00"
    assert Cell({1: 2.0, 3: 4.0}, asked).text("number") == "3.00 ± 1.41 (2 of 3)"
    assert Cell({1: 2.0}, asked).text("number") == "2.00 (1 of 3)"
    assert Cell({}, asked).text("number") == "– (0 of 3)"
    assert Cell({}).text("number") == "–"
    infinite = Cell({1: math.inf, 2: 1.0}, frozenset({1, 2}))
    assert infinite.text("number") == "∞"
    assert Cell({1: 5.0}, frozenset({1}), Paper(4.0, 0.5)).paper_text("percent") == "4.00 ± 0.50 (+1.00)"
    assert Cell({}, asked, Paper(4.0)).paper_text("percent") == "4.00"


SHORT = "a_b & 50% {x} | #1 <tag> é"
ODD = "a_b & 50% {x} | #1 $2 ~ ^ \\ <tag> ‖V‖ ΦΦᵀ é ★"


@pytest.fixture
def table() -> Table:
    keys = ("dataset", "method")
    measures = (Measure("norm", "‖V‖"), Measure("score_pct", "score, %", "percent"))
    rows = [
        Row(("cb", "lp-ft"), {"norm": Cell({1: 1.0, 2: 3.0}, frozenset({1, 2, 3}), Paper(5e4)),
                              "score_pct": Cell({1: 1 / 3}, frozenset({1}))}),
        Row((SHORT, "ft"), {"norm": Cell({1: -2.0}, frozenset({1}))}),
    ]  # fmt: skip
    return Table("table0", "Title & more, 10%", tidy(keys, measures, rows), lay_out(keys, measures, rows), 2,
                 "Set-up: tiny_model; ± over seeds.", ["kernel/cb/ft, seed 3: failed (50% | {boom})"])  # fmt: skip


def test_csv_is_tidy_and_in_full_precision(table: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(lines) == 3
    assert lines[0] == {
        "dataset": "cb", "method": "lp-ft", "measure": "norm", "mean": "2.0", "std": str(math.sqrt(2)), "seeds": "2",
        "asked": "3", "paper": "50000.0", "paper_std": "", "difference": "-49998.0"}  # fmt: skip
    assert float(lines[1]["mean"]) == 1 / 3
    assert lines[1]["std"] == ""
    assert lines[2]["dataset"] == SHORT


def markdown_cells(line: str) -> list[str]:
    before, *cells, after = re.split(r"(?<!\\)\|", line)
    assert (before, after) == ("", "")
    return [cell.strip() for cell in cells]


def test_markdown(table: Table) -> None:
    lines = table.to_markdown().splitlines()
    assert lines[0] == "### Title & more, 10%"
    assert markdown_cells(lines[2]) == ["data set", "method", "‖V‖", "‖V‖, paper (Δ)", "score, %"]
    assert re.fullmatch(r"(\|:-{3,}){2}(\|-{3,}:){3}\|", lines[3])
    assert markdown_cells(lines[4]) == ["cb", "LP-FT", "2.00 ± 1.41 (2 of 3)", "5.00e4 (−5.00e4)", "0.33"]
    assert markdown_cells(lines[5]) == ["a\\_b & 50% {x} \\| #1 \\<tag> é", "FT", "−2.00", "–", "–"]
    assert lines[7] == "Set-up: tiny\\_model; ± over seeds."
    assert lines[-1] == "- kernel/cb/ft, seed 3: failed (50% \\| {boom})"


def test_latex_is_ascii_balanced_and_escaped(table: Table) -> None:
    text = table.to_latex()
    assert text.isascii()
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    for line in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{table}", r"\end{table}", r"\label{tab:table0}",
                 r"\caption{Title \& more, 10\%}"):  # fmt: skip
        assert line in text.splitlines(), line
    lines = plain_maths(text)
    assert r"data set & method & \multicolumn{2}{c}{$\Vert$V$\Vert$} & score, \% \\" in lines
    assert r"\cmidrule(lr){3-4}  &  & here & paper ($\Delta$) &  \\" in lines
    assert r"cb & LP-FT & 2.00 $\pm$ 1.41 (2 of 3) & 5.00$\times10^{4}$ ($-$5.00$\times10^{4}$) & 0.33 \\" in lines
    last = r"\addlinespace a\_b \& 50\% \{x\} $|$ \#1 $<$tag$>$ \'e & FT & $-$2.00 & {\textendash} & {\textendash} \\"
    assert last in lines
    assert r"Missing or broken: kernel/cb/ft, seed 3: failed (50\% $|$ \{boom\}).\par" in lines
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {4}
    for line in text.splitlines()[1:]:  # no comment begins in the middle of a line
        assert not re.search(r"(?<!\\)%.", line), line


def plain_maths(text: str) -> list[str]:
    """Split into lines, with dollars in place of the safer command for mathematics."""
    return re.sub(r"\\ensuremath\{((?:[^{}]|\{[^{}]*\})*)\}", r"$\1$", text).splitlines()


def test_each_odd_sign_is_escaped() -> None:
    assert plain_maths(latex_text(ODD)) == [
        r"a\_b \& 50\% \{x\} $|$ \#1 \$2 {\textasciitilde} {\textasciicircum} {\textbackslash} $<$tag$>$ "
        r"$\Vert$V$\Vert$ $\Phi$$\Phi$$^\top$ \'e ?"
    ]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("[0, 1] [x]", "{[}0, 1] [x]"),
        ("*", "{*}"),
        ("--flag", "-{}-flag"),
        ("a\nb\x07c", "a b c"),
        ("‘Ōé’ ł", r"{\textquoteleft}\={O}\'e{\textquoteright} {\l}"),
        ("％ ﬁ 🙂", r"\% fi ?"),
    ],
)
def test_texts_print_as_they_stand(text: str, latex: str) -> None:
    assert latex_text(text) == latex


# Commands that LaTeX itself has, in every font encoding.
OWN = r"""
\_ \# \$ \% \& \{ \} \' \` \^ \" \~ \= \. \c \u \v \H \r \i \AE \ae \OE \oe \O \o \L \l \ss \ensuremath
\textasciicircum \textasciitilde \textbackslash \textellipsis \textendash \textemdash \textperiodcentered
\textquoteleft \textquoteright \textquotedblleft \textquotedblright \alpha \beta \gamma \delta \varepsilon
\zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \pi \rho \sigma \varsigma \tau \upsilon \varphi \chi \psi
\omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi \Omega \pm \times \Vert \approx \neq
\equiv \leq \geq \in \infty \int \sum \prod \partial \nabla \propto \circ \odot \otimes \langle \rangle \surd
\top \frac \rightarrow
"""


def test_signs_need_no_package() -> None:
    text = latex_text("".join(map(chr, range(0x20, 0x3000))))
    assert text.isascii()
    assert set(re.findall(r"\\(?:[A-Za-z]+|.)", text)) <= set(OWN.split())


def test_long_tables_and_sentences_run_over_pages() -> None:
    rows = [Row((f"d{i}",), {"n": Cell({1: 1.0})}) for i in range(50)]
    measures = (Measure("n", "n"),)
    long = Table("t", "T", tidy(("dataset",), measures, rows), lay_out(("dataset",), measures, rows), 1, "N", [])
    text = long.to_latex()
    assert r"\begin{longtable}{lr}" in text
    head, body = text.split(r"\endlastfoot")
    assert body.count(r" \\") == 50
    assert head.count(r"data set & n \\") == 2  # on the first page and on each further one
    assert r"\caption{T} \label{tab:t} \\" in head
    layout = pd.DataFrame([["a claim that goes on for more than a few words", "holds"]])
    layout.columns = pd.MultiIndex.from_tuples([("claim", ""), ("verdict", "")])
    claims = Table("claims", "T", pd.DataFrame(), layout, 1, "N", [])
    assert r"\begin{longtable}{p{0.60\textwidth}r}" in claims.to_latex()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive-latex-recommended)")
def test_latex_compiles(table: Table, tmp_path: Path) -> None:
    layout = pd.concat([table.layout] * 30)
    long = Table("table00", ODD, table.frame, layout, 2, ODD, [ODD])
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,longtable,graphicx}\n\\begin{document}\n"
        f"{table.to_latex()}{long.to_latex()}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "all.pdf").is_file()


class Cells(HTMLParser):
    """Collects the cells of a table, row by row, and checks that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, dict[str, str | None], str]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            tag, attrs, text = self.rows[-1][-1]
            self.rows[-1][-1] = (tag, attrs, text + data)


def test_html_has_header_cells_and_nothing_unescaped(table: Table) -> None:
    text = table.to_html()
    assert text.startswith('<table class="results" id="table0">\n<caption>Title &amp; more, 10%</caption>')
    rows = Cells(text).rows
    upper, lower, first, second = rows
    assert [(cell[2], cell[1].get("colspan"), cell[1].get("rowspan")) for cell in upper] == [
        ("data set", None, "2"), ("method", None, "2"), ("‖V‖", "2", None), ("score, %", None, "2")]  # fmt: skip
    assert [cell[2] for cell in lower] == ["here", "paper (Δ)"]
    assert {cell[1]["scope"] for cell in upper} == {"col", "colgroup"}
    assert [cell[0] for cell in first] == ["th", "th", "td", "td", "td"]
    assert [cell[2] for cell in first] == ["cb", "LP-FT", "2.00 ± 1.41 (2 of 3)", "5.00e4 (−5.00e4)", "0.33"]
    assert second[0][2] == SHORT
    assert "<tag>" not in text
