"""``python -m analysis.tables RESULTS``: the paper's tables from a results folder, as csv, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from analysis.tables.options import DESCRIPTION, PROG, TableOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(TableOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS"))
        options.check()
        from analysis.tables.command import make_tables  # only now, as it takes seconds

        return lambda: make_tables(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
