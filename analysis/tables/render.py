"""Tables as text: Markdown, LaTeX with booktabs, and HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler
from pylatexenc import latexencode
from tabulate import tabulate

_LONG = 34  # characters, from which a column holds sentences and is broken into lines
_TALL = 40  # rows, from which a table does not fit on a page
_WIDE = 7  # columns, from which it does not fit into a line

# Signs that pylatexenc has no command for, or one that older LaTeX has only in a package.
_MATHS = {"|": "|", "√": r"\surd", "ᵀ": r"^\top", "′": "'", "×": r"\times", "½": r"\frac12", "→": r"\rightarrow",
          "¹": "^1", "²": "^2", "³": "^3"}  # fmt: skip
# pylatexenc's commands come from many packages and font encodings; these signs and letters need none of them.
_SIGNS = "±·–—‖‘’“”…ΓΔΘΛΞΠΣΥΦΨΩαβγδεζηθικλμνξπρςστυφχψω∂∇∈∏∑−∘∝∞∫≈≠≡≤≥⊗⊙⟨⟩⁰⁴⁵⁶⁷⁸⁹⁺⁻₀₁₂₃₄₅₆₇₈₉"
_LETTER = re.compile(r"""\\(['`^"~=.]\{?\\?\w\}?|[cvuHr]\{\w\}|AE|ae|OE|oe|O|o|L|l|ss|i)""")


def plain_headers(layout: pd.DataFrame) -> list[str]:
    """Write the two levels of a layout's columns in one."""
    names = zip(layout.columns.get_level_values(0), layout.columns.get_level_values(1), strict=True)
    return [f"{upper}, {lower}" if lower not in ("", "here") else str(upper) for upper, lower in names]


def markdown(title: str, layout: pd.DataFrame, keys: int, note: str, problems: Sequence[str]) -> str:
    """Write a table as GitHub's Markdown."""
    texts = _text_columns(layout, keys)
    table = tabulate(
        [[_markdown_text(cell) for cell in row] for row in layout.itertuples(index=False, name=None)],
        headers=[_markdown_text(header) for header in plain_headers(layout)],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left" if place in texts else "right" for place in range(layout.shape[1])],
    )
    parts = [f"### {_markdown_text(title)}", table, _markdown_text(note)]
    if problems:
        parts += ["Missing or broken:", "\n".join(f"- {_markdown_text(problem)}" for problem in problems)]
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: object) -> str:
    return re.sub(r"[\\|*_<`]", r"\\\g<0>", str(text)).replace("\n", " ")


def latex_text(text: object) -> str:
    """Write a text so that LaTeX prints it as it stands; letters that it has no sign for lose their accents."""
    return _encoder.unicode_to_latex(text)


def _without_accent(letter: str) -> str:
    bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return latex_text(bare) or "?"


_encoder = latexencode.UnicodeToLatexEncoder(
    conversion_rules=[
        latexencode.UnicodeToLatexConversionRule(
            latexencode.RULE_REGEX,
            [
                (re.compile(r"[\x00-\x20\x7f]+"), " "),
                (re.compile(r"^[\[*]"), r"{\g<0>}"),  # LaTeX would read it as an option of the line before
                (re.compile(r"-(?=-)"), "-{}"),  # LaTeX would join the two
            ],
        ),
        latexencode.UnicodeToLatexConversionRule(
            latexencode.RULE_DICT,
            {
                code: command
                for code, command in latexencode.get_builtin_uni2latex_dict().items()
                if code < 128 or chr(code) in _SIGNS or _LETTER.fullmatch(command)
            }
            | {ord(sign): f"\\ensuremath{{{command}}}" for sign, command in _MATHS.items()},
        ),
    ],
    unknown_char_policy=_without_accent,
    unknown_char_warning=False,
)


def latex(name: str, title: str, layout: pd.DataFrame, keys: int, note: str, problems: Sequence[str]) -> str:
    """Write a table as a LaTeX ``table``, or, where it is long or holds sentences, a ``longtable``."""
    sentences, texts = _sentence_columns(layout), _text_columns(layout, keys)
    width = 0.6 / max(1, len(sentences))
    kinds = "".join(
        f"p{{{width:.2f}\\textwidth}}" if place in sentences else "l" if place in texts else "r"
        for place in range(layout.shape[1])
    )
    notes = [latex_text(line) + r"\par" for line in (note, *(f"Missing or broken: {line}." for line in problems))]
    long = bool(sentences) or len(layout) > _TALL
    caption, label = latex_text(title), f"tab:{name}"
    table = _latex_styler(layout).to_latex(
        column_format=kinds,
        hrules=True,
        multicol_align="c",
        environment="longtable" if long else None,
        caption=caption if long else None,
        label=label if long else None,
    )
    if long:
        lines = [
            r"% needs \usepackage{booktabs} and \usepackage{longtable}; if it is too wide, the landscape of pdflscape",
            r"{\scriptsize\setlength{\tabcolsep}{3pt}",
            table.rstrip(),
            r"\noindent",
            *notes,
            "}",
        ]
    else:
        wide = layout.shape[1] > _WIDE
        lines = [
            r"% needs \usepackage{booktabs}" + (r" and \usepackage{graphicx}" if wide else ""),
            r"\begin{table}",
            r"\centering\small",
            f"\\caption{{{caption}}}",
            f"\\label{{{label}}}",
            f"\\resizebox{{\\textwidth}}{{!}}{{%\n{table.rstrip()}}}" if wide else table.rstrip(),
            r"\par\smallskip\begin{minipage}{\textwidth}\footnotesize",
            *notes,
            r"\end{minipage}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _latex_styler(layout: pd.DataFrame) -> Styler:
    """Give rules under names that span columns, and a little space where the first cell changes."""
    styler = _styler(layout, Styler).format(_latex_cell).format_index(latex_text, axis="columns")
    rules = "".join(f"cmidrule:(lr){{{first + 1}-{last + 1}}} --nowrap;" for first, last in _spans(layout))
    if rules:
        styler.apply_index(lambda names: [rules] + [""] * (len(names) - 1), axis="columns", level=1)
    return styler.apply(
        lambda cells: [
            "addlinespace: --nowrap;" if now != before else ""
            for now, before in zip(cells, [*cells[:1], *cells[:-1]], strict=True)
        ],
        subset=[styler.columns[0]],
    )


def _latex_cell(text: object) -> str:
    """Write a cell, with powers of ten as such: 5.10e4."""
    return re.sub(r"(?<=[\d)])e(-?\d+)\b", r"\\ensuremath{\\times10^{\1}}", latex_text(text))


def html_table(name: str, title: str, layout: pd.DataFrame, keys: int) -> str:
    """Write a table as an HTML ``<table>`` element, with header cells for columns and for what a row is of."""
    styler = _styler(layout, Styler.from_custom_template(str(Path(__file__).parent), html_table="table.tpl"))
    styler.format(escape="html").format_index(escape="html", axis="columns")
    text = styler.to_html(exclude_styles=True, name=name, title=title, keys=keys, texts=_text_columns(layout, keys))
    return text.strip() + "\n"


def _styler(layout: pd.DataFrame, kind: type[Styler]) -> Styler:
    """Style a layout, with one line of headers where no name spans columns."""
    frame = layout.astype(str).reset_index(drop=True)
    if not _spans(layout):
        frame.columns = pd.Index(plain_headers(layout))
    return kind(frame).hide(axis="index")


def _spans(layout: pd.DataFrame) -> list[tuple[int, int]]:
    """First and last of neighbouring columns of one name."""
    runs = groupby(range(layout.shape[1]), key=lambda place: layout.columns[place][0])
    places = [list(run) for _, run in runs]
    return [(run[0], run[-1]) for run in places if len(run) > 1]


def _sentence_columns(layout: pd.DataFrame) -> set[int]:
    return {place for place in range(layout.shape[1]) if any(len(str(cell)) > _LONG for cell in layout.iloc[:, place])}


def _text_columns(layout: pd.DataFrame, keys: int) -> set[int]:
    """Columns that are read from the left: what a row is of, and sentences."""
    return set(range(keys)) | _sentence_columns(layout)
