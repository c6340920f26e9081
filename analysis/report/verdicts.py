"""The claims as the page shows them: the rows of one claim together, verdicts coloured and worded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

# What a verdict begins with, the class that colours it, and the sign beside its words.
VERDICTS = (
    ("holds", "holds", "✓"),
    ("mixed", "mixed", "◐"),
    ("does not hold", "fails", "✗"),
    ("not tested", "untested", "–"),
)


@dataclass(frozen=True)
class VerdictWords:
    """A verdict as it is shown.

    Attributes:
        words: The verdict itself.
        remark: What was said of it; may be empty.
        kind: Class that colours it.
        sign: Beside the words.
    """

    words: str
    remark: str
    kind: str
    sign: str


@dataclass(frozen=True)
class ClaimRow:
    """What was found of a claim on one data set.

    Attributes:
        dataset: The data set.
        verdict: The verdict.
        measured: The other cells.
    """

    dataset: str
    verdict: VerdictWords
    measured: Sequence[str]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        text: The claim.
        rows: What was found of it, once for each data set.
    """

    text: str
    rows: Sequence[ClaimRow]


@dataclass(frozen=True)
class ClaimsView:
    """All claims.

    Attributes:
        headers: Of the columns: the claim, the data set, the verdict, and what was measured.
        groups: The claims.
    """

    headers: Sequence[str]
    groups: Sequence[Claim]

    @property
    def counts(self) -> list[tuple[int, VerdictWords]]:
        """How often each verdict occurs, without those that do not."""
        kinds = [row.verdict.kind for claim in self.groups for row in claim.rows]
        return [
            (kinds.count(kind), VerdictWords(words, "", kind, sign)) for words, kind, sign in VERDICTS if kind in kinds
        ]


def view_claims(layout: pd.DataFrame) -> ClaimsView:
    """Put the rows of one claim together, and the verdict where it is seen first.

    Args:
        layout: That of the table of claims: columns ``claim``, ``data set``, …, ``verdict``.
    """
    columns = {str(name): place for place, name in enumerate(layout.columns.get_level_values(0))}
    claim, dataset, verdict = (columns.pop(name) for name in ("claim", "data set", "verdict"))
    rows = [[str(cell) for cell in row] for row in layout.itertuples(index=False, name=None)]
    groups = [
        Claim(
            text,
            [ClaimRow(row[dataset], verdict_of(row[verdict]), [row[i] for i in columns.values()]) for row in group],
        )
        for text, group in itertools.groupby(rows, key=lambda row: row[claim])
    ]
    return ClaimsView(["claim", "data set", "verdict", *columns], groups)


def verdict_of(text: str) -> VerdictWords:
    """Tell a verdict from the remark behind its colon.

    Raises:
        ValueError: It is none of those that there are.
    """
    words, _, remark = text.partition(": ")
    for start, kind, sign in VERDICTS:
        if words.startswith(start):
            return VerdictWords(words, remark, kind, sign)
    raise ValueError(f"{text!r} is no verdict")
