"""What ``python -m analysis.claims`` does."""

from __future__ import annotations

import math

from analysis.claims.claim import Verdict
from analysis.claims.options import ClaimsOptions
from analysis.claims.runs import check_runs
from ntk_lpft.runs import FinetuneRun


def print_claims(options: ClaimsOptions) -> None:
    """Measure the claims and print them.

    Raises:
        InputError: Runs that are damaged, not finished, or not to be compared.
    """
    runs = [FinetuneRun(folder) for folder in options.runs]
    verdicts = check_runs(runs)
    metrics = runs[0].metrics()
    print(f"{metrics['model']} on {metrics['dataset']}, {len(runs)} runs\n")
    for verdict in verdicts:
        if verdict.values:
            print(describe(verdict))
    untested = [verdict for verdict in verdicts if not verdict.values]
    if untested:
        print("\nnot tested:")
    for verdict in untested:
        print(f"    {verdict.claim.says} ({verdict.reason})")


def describe(verdict: Verdict) -> str:
    """Lay a verdict out in three lines: the claim, its statistic, the verdict."""
    low, high = verdict.interval
    interval = "" if math.isnan(low) else f", 95 % interval {low:.3g} to {high:.3g}"
    values = list(verdict.values.values())
    spread = f"; {min(values):.3g} to {max(values):.3g} in {len(values)} seeds" if len(values) > 1 else "; one seed"
    words = verdict.verdict + (f" ({verdict.remark})" if verdict.remark else "")
    return f"{verdict.claim.says}\n    {verdict.claim.statistic}: {verdict.estimate:.3g}{interval}{spread}\n    {words}"
