"""``python -m analysis.report``: write the page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.report.page import build_page
from analysis.results import read_results
from ntk_lpft.command import parse_options, run_command
from ntk_lpft.errors import InputError

PROG = "python -m analysis.report"
DESCRIPTION = (
    "Write one HTML page with the claims, tables and figures of a suite's results, its settings and how its jobs went. "
    "The page is one file: it needs no network, no other file and no JavaScript."
)


@dataclass
class ReportOptions:
    """Options of ``python -m analysis.report``."""

    results: list[str] = field(
        default_factory=list,
        metadata={"help": "results folder of `python -m analysis.run`; the same as the word without a flag"},
    )
    output: str | None = field(default=None, metadata={"help": "the page's file (default: report.html in the results)"})


def write_report(options: ReportOptions) -> Path:
    """Write the page, whole or not at all.

    Returns:
        Its file.

    Raises:
        InputError: No results, or a file that cannot be written.
    """
    if len(options.results) != 1:
        raise InputError(f"{len(options.results)} results folders were given; give one: {PROG} RESULTS")
    results = read_results(options.results[0])
    path = Path(options.output).expanduser() if options.output else results.folder / "report.html"
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--output {path} is no file in a folder that exists")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()  # before the work: what cannot be written is said at once
        partial.write_text(build_page(results, progress=True), encoding="utf-8")
        os.replace(partial, path)
    except OSError as problem:
        raise InputError(f"{path} cannot be written ({problem.strerror})") from problem
    finally:
        partial.unlink(missing_ok=True)
    missing = f"; {len(results.problems)} of {len(results.entries)} jobs have no results" if results.problems else ""
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB){missing}")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 2 for bad input."""
    return run_command(
        lambda: write_report(
            parse_options(ReportOptions, DESCRIPTION, arguments, PROG, positional=("results", "results_folder"))
        )
    )


if __name__ == "__main__":
    sys.exit(main())
