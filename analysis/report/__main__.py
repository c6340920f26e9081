"""``python -m analysis.report RESULTS``: one page of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from analysis.report.options import DESCRIPTION, PROG, ReportOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(ReportOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS"))
        options.check()
        from analysis.report.command import write_report  # only now, as it takes seconds

        return lambda: write_report(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
