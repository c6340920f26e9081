"""``python -m analysis.experiments.features``: features before and after a fine-tuning run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from analysis.experiments.options import FEATURES_DESCRIPTION, FEATURES_PROG, FeatureOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(FeatureOptions, FEATURES_DESCRIPTION, arguments, FEATURES_PROG)
        options.check()
        from analysis.experiments.recorded_features import write_features  # only now, as it takes seconds

        return lambda: write_features(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
