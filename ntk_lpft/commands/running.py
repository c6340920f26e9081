"""Runs a command: what the user gave wrong becomes one line, and nothing else is caught."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ntk_lpft.errors import InputError


def run_command(main: Callable[[], object], to_go_on: str = "the same command goes on where it was") -> int:
    """Run a command; bad input becomes one line on standard error and exit status 2.

    Args:
        main: The command.
        to_go_on: What to say when it is stopped from the keyboard.

    Returns:
        The exit status.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {to_go_on}", file=sys.stderr)
        return 130
    return 0


def quiet_libraries() -> None:
    """Keep transformers from printing notices and bars of its own."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
