"""``python -m figures RESULTS``: draw the paper's figures from a results folder, as png and pdf."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from figures.options import DESCRIPTION, PROG, FigureOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(FigureOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS"))
        options.check()
        from figures.command import draw_figures  # only now, as it takes seconds

        return lambda: draw_figures(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
