"""``python -m analysis.run``: run a suite, or go on with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 1 where a job has no results, 2 for bad input."""
    from analysis.suite.options import DESCRIPTION, PROG, SuiteOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    broken = 0

    def command() -> Callable[[], object]:
        options = parse_options(SuiteOptions, DESCRIPTION, arguments, PROG)
        options.check()
        from analysis.suite.schedule import run_suite  # only now, as it takes seconds

        def work() -> None:
            nonlocal broken
            broken = run_suite(options)

        return work

    return run_command(command, "the same command goes on where it was", "give a smaller --parallel") or int(broken > 0)


if __name__ == "__main__":
    run_program(main)
