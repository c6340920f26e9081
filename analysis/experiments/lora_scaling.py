"""``python -m analysis.experiments.lora_scaling``: how fast F of LoRA nears F of fine-tuning with the rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from analysis.experiments.options import SCALING_DESCRIPTION, SCALING_PROG, ScalingOptions
    from ntk_lpft.commands.parsing import parse_options
    from ntk_lpft.commands.running import run_command

    def command() -> Callable[[], object]:
        options = parse_options(ScalingOptions, SCALING_DESCRIPTION, arguments, SCALING_PROG)
        options.check()
        from analysis.experiments.scaling import run_scaling  # only now, as it takes seconds

        return lambda: run_scaling(options)

    return run_command(command)


if __name__ == "__main__":
    run_program(main)
