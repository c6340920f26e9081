"""``python -m ntk_lpft.finetune``: LP, FT, LP-FT, LoRA or LP-LoRA, with head, features and kernels tracked."""

from collections.abc import Sequence

from ntk_lpft.interrupts import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from ntk_lpft.commands.finetune import main  # only now, as it takes a moment

    return main(arguments)


if __name__ == "__main__":
    run_program(main)
