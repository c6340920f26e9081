"""``python -m analysis.experiments.embedding_sampling``: sampled word embeddings beside their exact F."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.experiments.options import SAMPLING_DESCRIPTION, SAMPLING_PROG, SamplingOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> None:
        options = parse_options(SamplingOptions, SAMPLING_DESCRIPTION, arguments, SAMPLING_PROG)
        options.check()
        from analysis.experiments.sampling import run_sampling  # only now, as it takes seconds

        run_sampling(options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
