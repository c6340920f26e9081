"""``python -m ntk_lpft.calibrate``: options, the predictions that are read, and what is said of them."""

from collections.abc import Callable, Sequence

from ntk_lpft.commands.calibrate.options import DESCRIPTION, PROG, CalibrateOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> Callable[[], object]:
        options = parse_options(CalibrateOptions, DESCRIPTION, arguments, PROG, ("runs", "RUN_FOLDER"))
        options.check()
        from ntk_lpft.commands.calibrate.run import calibrate  # only now, as it takes seconds

        return lambda: calibrate(options)

    return run_command(command, less_memory="give fewer --resamples or --bins, or smaller files")
