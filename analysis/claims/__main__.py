"""``python -m analysis.claims RUN…``: the paper's claims, measured on the folders of fine-tuning runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.claims.claim import Verdict
from analysis.claims.runs import check_runs, read_run
from ntk_lpft.errors import InputError

HELP = """python -m analysis.claims RUN…: the paper's qualitative claims, each with its measured value and a verdict.

RUN are folders that `python -m ntk_lpft.finetune` wrote: runs of one model and data set, of methods that are to be
compared, with as many seeds as there are. FT ratios need --track_kernel 1 or more, the growth of the norm in a linear
probe a run of method lp with --lp_solver adam. Claims about kernels and calibration: python -m analysis.tables."""


def describe(found: Verdict) -> str:
    """Lay a verdict out in three lines: the claim, its statistic, the verdict."""
    low, high = found.interval
    interval = "" if math.isnan(low) else f", 95 % interval {low:.3g} to {high:.3g}"
    values = list(found.values.values())
    spread = f"; {min(values):.3g} to {max(values):.3g} in {len(values)} seeds" if len(values) > 1 else "; one seed"
    verdict = found.verdict + (f" ({found.remark})" if found.remark else "")
    return f"{found.claim.says}\n    {found.claim.statistic}: {found.estimate:.3g}{interval}{spread}\n    {verdict}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the claims; returns the exit status."""
    folders = sys.argv[1:] if arguments is None else list(arguments)
    if not folders or folders[0] in ("-h", "--help"):
        print(HELP)
        return 0 if folders else 2
    try:
        runs = [read_run(Path(folder)) for folder in folders]
        verdicts = check_runs(runs)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"{runs[0].metrics['model']} on {runs[0].metrics['dataset']}, {len(runs)} runs\n")
    for found in verdicts:
        if found.values:
            print(describe(found))
    untested = [found for found in verdicts if not found.values]
    if untested:
        print("\nnot tested:")
    for found in untested:
        print(f"    {found.claim.says} ({found.reason})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
