"""``python -m analysis.claims RUN…``: the paper's claims, measured on the folders of fine-tuning runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from analysis.claims.options import DESCRIPTION, PROG, ClaimsOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(ClaimsOptions, DESCRIPTION, arguments, PROG, ("runs", "RUN"))
        options.check()
        from analysis.claims.command import print_claims  # only now, as it takes seconds

        return lambda: print_claims(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
