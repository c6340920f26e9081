"""``python -m analysis.report RESULTS``: one page of a results folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.report.options import DESCRIPTION, PROG, ReportOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> None:
        options = parse_options(ReportOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS"))
        options.check()
        from analysis.report.command import write_report  # only now, as it takes seconds

        write_report(options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
