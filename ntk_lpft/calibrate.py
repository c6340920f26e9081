"""``python -m ntk_lpft.calibrate``: temperature scaling of trained classifiers, and what it does to calibration."""

from collections.abc import Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from ntk_lpft.commands.calibrate import main  # only now, as it takes a moment

    return main(arguments)


if __name__ == "__main__":
    run_program(main)
