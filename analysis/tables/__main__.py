"""``python -m analysis.tables RESULTS``: the paper's tables from a results folder, as csv, Markdown and LaTeX."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.tables.options import DESCRIPTION, PROG, TableOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> None:
        options = parse_options(TableOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS"))
        options.check()
        from analysis.tables.command import make_tables  # only now, as it takes seconds

        make_tables(options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
