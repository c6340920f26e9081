"""``python -m analysis.experiments.embedding_sampling``: sampled word embeddings beside their exact F."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from analysis.experiments.options import SAMPLING_DESCRIPTION, SAMPLING_PROG, SamplingOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(SamplingOptions, SAMPLING_DESCRIPTION, arguments, SAMPLING_PROG)
        options.check()
        from analysis.experiments.sampling import run_sampling  # only now, as it takes seconds

        return lambda: run_sampling(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
