"""The paper's claims, tested on a results folder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.claims import CLAIMS, Verdict, check
from analysis.suite.results import Results
from analysis.tables import claim_facts
from analysis.tables.cells import NOTHING, write_number
from analysis.tables.collect import Problems, how_to_run
from analysis.tables.folds import describe_folds
from analysis.tables.setting import describe_setting
from analysis.tables.table import Table
from ntk_lpft.errors import InputError

NAME = "claims"
TITLE = "The paper's claims, tested on these results"
SAYS = (
    "A claim is tested on each seed by itself; runs that are compared share their seed. It holds where it is true of "
    "every seed, is mixed where it is true of some, and does not hold where it is true of none. Values are means over "
    "seeds, of ratios geometric ones, from three seeds on with Student's 95 % interval, which counts what seeds differ "
    "by and what they share, their test rows, resampled (scores, ECE, Diff, CS; not Diff against head norms, nor what "
    "is measured on training rows). A verdict whose interval reaches both into and out of where the claim is true says "
    "so; one from fewer seeds tells little. LP heads of two seeds differ by the folds of their cross-validation alone."
)
_COLUMNS = ("claim", "data set", "measured", "value", "seeds", "verdict")


def make_claims(results: Results) -> Table:
    """Test every claim on every data set.

    Args:
        results: The results.

    Returns:
        A table of one row for each claim and data set. The columns of its ``frame`` are ``claim``, ``says``,
        ``dataset``, ``statistic``, ``mean`` (of ratios the geometric mean), ``low``, ``high``, ``minimum``,
        ``maximum``, ``row_error`` (what the choice of test rows adds to the standard error, on the scale of the
        statistic, of ratios of its logarithm; none where no rows were resampled), ``seeds``, ``asked``, ``true`` (seeds
        of which the claim is true), ``undecided`` (whether the interval crosses the threshold), ``verdict`` and
        ``reason``.

    Raises:
        InputError: None of the jobs that claims are tested on has results.
    """
    problems = Problems()
    evidence = claim_facts.gather(results, problems)
    if not any(seeds for each in evidence for seeds in each.facts.values()):
        raise InputError(f"no claim can be tested: no job has results; {how_to_run(results, 'table1 …')} makes some")
    verdicts = [check(claim, each) for claim in CLAIMS for each in evidence]
    datasets = [each.dataset for each in evidence]
    return Table(
        NAME,
        TITLE,
        _tidy(verdicts),
        _lay_out(verdicts),
        2,
        " ".join(
            part
            for part in (
                describe_setting(results, claim_facts.KINDS, datasets),
                SAYS,
                describe_folds(results, claim_facts.KINDS, datasets),
            )
            if part
        ),
        problems.lines(),
    )


def _tidy(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    lines = []
    for verdict in verdicts:
        values = list(verdict.values.values())
        low, high = verdict.interval
        lines.append(
            {
                "claim": verdict.claim.name,
                "says": verdict.claim.says,
                "dataset": verdict.dataset,
                "statistic": verdict.claim.statistic,
                "mean": verdict.estimate,
                "low": low,
                "high": high,
                "minimum": min(values, default=math.nan),
                "maximum": max(values, default=math.nan),
                "row_error": math.sqrt(verdict.row_variance) if verdict.draws else math.nan,
                "seeds": len(values),
                "asked": len(verdict.asked),
                "true": sum(verdict.holds.values()),
                "undecided": verdict.undecided,
                "verdict": verdict.verdict,
                "reason": verdict.reason,
            }
        )
    return pd.DataFrame(lines)


def _lay_out(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = [
        (
            verdict.claim.says,
            verdict.dataset,
            verdict.claim.statistic,
            _value(verdict),
            f"{len(verdict.values)}" if len(verdict.values) == len(verdict.asked) else
            f"{len(verdict.values)} of {len(verdict.asked)}",
            verdict.verdict + (f": {verdict.remark}" if verdict.remark else ""),
        )
        for verdict in verdicts
    ]  # fmt: skip
    layout = pd.DataFrame(rows, dtype=object)
    layout.columns = pd.MultiIndex.from_tuples([(name, "") for name in _COLUMNS])
    return layout


def _value(verdict: Verdict) -> str:
    if not verdict.values:
        return NOTHING
    low, high = verdict.interval
    text = write_number(verdict.estimate, "number")
    return text if math.isnan(low) else f"{text} [{write_number(low, 'number')}, {write_number(high, 'number')}]"
