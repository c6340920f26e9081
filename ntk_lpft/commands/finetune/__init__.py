"""``python -m ntk_lpft.finetune``: options, one run or a grid of them, and what is said of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ntk_lpft.commands.finetune.options import DESCRIPTION, PROG, FinetuneOptions
from ntk_lpft.commands.finetune.training_flags import REFUSED, describe_training, training_flags
from ntk_lpft.commands.parsing import check_numbers, given_flags, make_parser, parse_given, read_config, unrecognized
from ntk_lpft.commands.running import run_command
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.defaults import training_defaults
from ntk_lpft.options import flag_of


def parse(arguments: Sequence[str] | None) -> tuple[FinetuneOptions, list[str], dict[str, Any]]:
    """Read the command's own options, and set apart what is transformers'.

    Args:
        arguments: The command line; None takes the process's.

    Returns:
        The options, words of the command line for ``TrainingArguments``, and its settings in the ``--config`` file.

    Raises:
        InputError: An unknown option, a value of the wrong kind, or options that make no sense.
    """
    known = training_flags()
    plain = FinetuneOptions()
    epilog = describe_training(training_defaults(plain.method, plain.dataset))
    given, rest = parse_given(make_parser(FinetuneOptions, PROG, DESCRIPTION, epilog=epilog), arguments)
    for name, word in given_flags(rest).items():
        if known and name not in known and name.removeprefix("no_") not in known:
            raise unrecognized(word)
        if name in REFUSED:
            raise InputError(f"{flag_of(name)} {REFUSED[name]}; leave it out")
    config = given.get("config")
    stored = {} if config is None else read_config(Path(config), FinetuneOptions, known)
    own = {name: stored.pop(name) for name in list(stored) if name in FinetuneOptions.__dataclass_fields__}
    check_numbers(given)
    options = FinetuneOptions(**{**own, **given})
    options.check()
    options.check_given(set(given))
    if stored:
        from ntk_lpft.commands.finetune.training import check_stored  # only now, as it takes seconds

        check_stored(Path(str(config)), stored)
    return options, rest, stored


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> Callable[[], object]:
        options, rest, stored = parse(arguments)
        # Only now, as these take seconds.
        from ntk_lpft.commands.finetune.run import finetune
        from ntk_lpft.commands.finetune.training import parse_training, resolve

        return lambda: finetune(*resolve(options, parse_training(rest), stored))

    less_memory = "give a smaller --per-device-train-batch-size, --kernel-size, --predict-size or --max-length"
    return run_command(command, "give --resume to go on", less_memory)
