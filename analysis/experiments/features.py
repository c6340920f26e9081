"""``python -m analysis.experiments.features``: features before and after a fine-tuning run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.experiments.options import FEATURES_DESCRIPTION, FEATURES_PROG, FeatureOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> None:
        options = parse_options(FeatureOptions, FEATURES_DESCRIPTION, arguments, FEATURES_PROG)
        options.check()
        from analysis.experiments.recorded_features import write_features  # only now, as it takes seconds

        write_features(options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
