"""``python -m ntk_lpft.compute``: options, the classifier and samples of a kernel, and what is said of it."""

from collections.abc import Callable, Sequence

from ntk_lpft.commands.compute.options import DESCRIPTION, PROG, ComputeOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> Callable[[], object]:
        options = parse_options(ComputeOptions, DESCRIPTION, arguments, PROG).resolved()
        from ntk_lpft.commands.compute.run import compute  # only now, as it takes seconds

        return lambda: compute(options)

    less_memory = "give a smaller --memory-budget, --n-train, --n-eval or --max-length"
    return run_command(command, "the same command goes on from what it has stored", less_memory)
