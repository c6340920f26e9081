"""``python -m ntk_lpft.compute``: the NTK of a classifier on a data set, split into P and F."""

from collections.abc import Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from ntk_lpft.commands.compute import main  # only now, as it takes a moment

    return main(arguments)


if __name__ == "__main__":
    run_program(main)
