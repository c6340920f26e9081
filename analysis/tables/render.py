"""Tables as text: Markdown, LaTeX with booktabs, and HTML."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

_LONG = 34  # characters, from which a column holds sentences and is broken into lines
_TALL = 40  # rows, from which a table does not fit on a page
_WIDE = 7  # columns, from which it does not fit into a line

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "%": r"\%",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "‖": r"$\Vert$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "Δ": r"$\Delta$",
    "Φ": r"$\Phi$",
    "φ": r"$\varphi$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "²": "$^2$",
    "½": r"$\frac12$",
    "∝": r"$\propto$",
    "·": r"$\cdot$",
    "√": r"$\surd$",
    "ᵀ": r"$^\top$",
    "′": r"$'$",
    "’": "'",
    "“": "``",
    "”": "''",
    "₀": "$_0$",
    "∞": r"$\infty$",
}


def plain_headers(layout: pd.DataFrame) -> list[str]:
    """Write the two levels of a layout's columns in one."""
    return [f"{upper}, {lower}" if lower not in ("", "here") else upper for upper, lower in _columns(layout)]


def markdown(title: str, layout: pd.DataFrame, keys: int, note: str, problems: Sequence[str]) -> str:
    """Write a table as GitHub's Markdown."""
    lines = [f"### {_markdown_text(title)}", ""]
    lines.append(_markdown_row(plain_headers(layout)))
    texts = _text_columns(layout, keys)
    lines.append("|" + "|".join(":---" if place in texts else "---:" for place in range(layout.shape[1])) + "|")
    lines += [_markdown_row(row) for row in layout.itertuples(index=False, name=None)]
    lines += ["", _markdown_text(note)]
    if problems:
        lines += ["", "Missing or broken:", "", *(f"- {_markdown_text(problem)}" for problem in problems)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_markdown_text(str(cell)) for cell in cells) + " |"


def _markdown_text(text: str) -> str:
    for mark in ("\\", "|", "*", "_", "<", "`"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def latex_text(text: str) -> str:
    """Write a text so that LaTeX prints it as it stands; letters that it has no sign for lose their accents."""
    found = []
    for mark in text.replace("\n", " "):
        if mark in _LATEX:
            found.append(_LATEX[mark])
        elif mark.isascii():
            found.append(mark)
        else:
            bare = unicodedata.normalize("NFKD", mark).encode("ascii", "ignore").decode()
            found.append(bare or "?")
    return "".join(found)


def latex(name: str, title: str, layout: pd.DataFrame, keys: int, note: str, problems: Sequence[str]) -> str:
    """Write a table as a LaTeX ``table``, or, where it is long or holds sentences, a ``longtable``."""
    sentences, texts = _sentence_columns(layout), _text_columns(layout, keys)
    width = 0.6 / max(1, len(sentences))
    kinds = "".join(
        f"p{{{width:.2f}\\textwidth}}" if place in sentences else "l" if place in texts else "r"
        for place in range(layout.shape[1])
    )
    notes = [latex_text(line) + r"\par" for line in (note, *(f"Missing or broken: {line}." for line in problems))]
    title_lines = [f"\\caption{{{latex_text(title)}}}", f"\\label{{tab:{name}}}"]
    head, rows = [r"\toprule", *_latex_header(layout), r"\midrule"], _latex_rows(layout)
    if sentences or len(layout) > _TALL:
        return _lines(
            r"% needs \usepackage{booktabs} and \usepackage{longtable}; if it is too wide, the landscape of pdflscape",
            r"{\scriptsize\setlength{\tabcolsep}{3pt}",
            f"\\begin{{longtable}}{{{kinds}}}",
            *title_lines[:1],
            title_lines[1] + r"\\",
            *head,
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}",
            r"\noindent",
            *notes,
            "}",
        )
    wide = layout.shape[1] > _WIDE
    return _lines(
        r"% needs \usepackage{booktabs}" + (r" and \usepackage{graphicx}" if wide else ""),
        r"\begin{table}",
        r"\centering\small",
        *title_lines,
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        f"\\begin{{tabular}}{{{kinds}}}",
        *head,
        *rows,
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
        r"\par\smallskip\begin{minipage}{\textwidth}\footnotesize",
        *notes,
        r"\end{minipage}",
        r"\end{table}",
    )


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _latex_rows(layout: pd.DataFrame) -> list[str]:
    """Write the rows, with a little space where the first cell changes."""
    rows: list[str] = []
    before = None
    for row in layout.itertuples(index=False, name=None):
        if before not in (None, row[0]):
            rows.append(r"\addlinespace")
        before = row[0]
        rows.append(" & ".join(_latex_cell(str(cell)) for cell in row) + r" \\")
    return rows


def _latex_cell(text: str) -> str:
    """Write a cell, with powers of ten as such: 5.10e4."""
    return re.sub(r"(?<=[\d)])e(-?\d+)\b", r"$\\times10^{\1}$", latex_text(text))


def _latex_header(layout: pd.DataFrame) -> list[str]:
    """Write one line of names, or two with rules under those that span columns."""
    groups = _groups(layout)
    if all(count == 1 for _, _, count in groups):
        return [" & ".join(latex_text(name) for name in plain_headers(layout)) + r" \\"]
    upper = [
        f"\\multicolumn{{{count}}}{{c}}{{{latex_text(name)}}}" if count > 1 else latex_text(name)
        for name, _, count in groups
    ]
    rules = [f"\\cmidrule(lr){{{start + 1}-{start + count}}}" for _, start, count in groups if count > 1]
    lower = [latex_text(second) for _, second in _columns(layout)]
    return [" & ".join(upper) + r" \\", "".join(rules), " & ".join(lower) + r" \\"]


def html_table(name: str, title: str, layout: pd.DataFrame, keys: int) -> str:
    """Write a table as an HTML ``<table>`` element, with header cells for columns and for what a row is of."""
    groups, texts = _groups(layout), _text_columns(layout, keys)
    two = any(count > 1 for _, _, count in groups)
    head = ["<tr>"]
    for upper, start, count in groups:
        span = f' colspan="{count}" scope="colgroup"' if count > 1 else ' scope="col"'
        rows = ' rowspan="2"' if two and count == 1 else ""
        kind = ' class="text"' if start in texts else ""
        head.append(f"<th{span}{rows}{kind}>{_html_text(upper)}</th>")
    head.append("</tr>")
    if two:
        under = [lower for _, start, count in groups if count > 1
                 for _, lower in _columns(layout)[start : start + count]]  # fmt: skip
        head += ["<tr>", *(f'<th scope="col">{_html_text(lower)}</th>' for lower in under), "</tr>"]
    lines = [f'<table class="results" id="{html.escape(name)}">', f"<caption>{_html_text(title)}</caption>"]
    lines += ["<thead>", *head, "</thead>", "<tbody>"]
    for row in layout.itertuples(index=False, name=None):
        cells = []
        for place, cell in enumerate(row):
            kind = ' class="text"' if place in texts else ""
            tag = f'th scope="row"{kind}' if place < keys else f"td{kind}"
            cells.append(f"<{tag}>{_html_text(str(cell))}</{tag.split()[0]}>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</tbody>", "</table>", ""])


def _html_text(text: object) -> str:
    return html.escape(str(text))


def _columns(layout: pd.DataFrame) -> list[tuple[str, str]]:
    return [(str(column[0]), str(column[1])) for column in layout.columns]


def _groups(layout: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Find neighbouring columns of one name: the name, the first column, how many."""
    groups: list[tuple[str, int, int]] = []
    for place, (upper, lower) in enumerate(_columns(layout)):
        if groups and groups[-1][0] == upper and lower != "":
            name, start, count = groups[-1]
            groups[-1] = (name, start, count + 1)
        else:
            groups.append((upper, place, 1))
    return groups


def _sentence_columns(layout: pd.DataFrame) -> set[int]:
    return {place for place in range(layout.shape[1]) if any(len(str(cell)) > _LONG for cell in layout.iloc[:, place])}


def _text_columns(layout: pd.DataFrame, keys: int) -> set[int]:
    """Columns that are read from the left: what a row is of, and sentences."""
    return set(range(keys)) | _sentence_columns(layout)
