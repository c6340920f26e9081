"""``python -m figures RESULTS``: draw the paper's figures from a results folder, as png and pdf."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from figures.options import DESCRIPTION, PROG, FigureOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> None:
        options = parse_options(FigureOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS"))
        options.check()
        from figures.command import draw_figures  # only now, as it takes seconds

        draw_figures(options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
