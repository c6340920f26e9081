"""``python -m analysis.claims RUN…``: the paper's claims, measured on the folders of fine-tuning runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from analysis.claims.claim import Verdict
from analysis.claims.runs import check_runs
from ntk_lpft.errors import InputError
from ntk_lpft.runs import FinetuneRun

HELP = """python -m analysis.claims RUN…: the paper's qualitative claims, each with its measured value and a verdict.

RUN are folders that `python -m ntk_lpft.finetune` wrote: runs of one model and data set, of methods that are to be
compared, with as many seeds as there are. FT ratios need --track-kernel 1 or more, the growth of the norm in a linear
probe a run of method lp with --lp-solver adam. Claims about kernels and calibration: python -m analysis.tables."""


def describe(verdict: Verdict) -> str:
    """Lay a verdict out in three lines: the claim, its statistic, the verdict."""
    low, high = verdict.interval
    interval = "" if math.isnan(low) else f", 95 % interval {low:.3g} to {high:.3g}"
    values = list(verdict.values.values())
    spread = f"; {min(values):.3g} to {max(values):.3g} in {len(values)} seeds" if len(values) > 1 else "; one seed"
    words = verdict.verdict + (f" ({verdict.remark})" if verdict.remark else "")
    return f"{verdict.claim.says}\n    {verdict.claim.statistic}: {verdict.estimate:.3g}{interval}{spread}\n    {words}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the claims; returns the exit status."""
    folders = sys.argv[1:] if arguments is None else list(arguments)
    if not folders or folders[0] in ("-h", "--help"):
        print(HELP)
        return 0 if folders else 2
    runs = [FinetuneRun(folder) for folder in folders]
    try:
        verdicts = check_runs(runs)
        metrics = runs[0].metrics()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{metrics['model']} on {metrics['dataset']}, {len(runs)} runs\n")
    for verdict in verdicts:
        if verdict.values:
            print(describe(verdict))
    untested = [verdict for verdict in verdicts if not verdict.values]
    if untested:
        print("\nnot tested:")
    for verdict in untested:
        print(f"    {verdict.claim.says} ({verdict.reason})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
