"""``python -m ntk_lpft.finetune``: options, one run or a grid of them, and what is said of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ntk_lpft.commands.finetune.options import DESCRIPTION, PROG, FinetuneOptions
from ntk_lpft.commands.finetune.training_flags import training_flags
from ntk_lpft.commands.parsing import check_numbers, given_flags, make_parser, parse_given, read_config, unrecognized
from ntk_lpft.commands.running import run_command
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
    names = ", ".join(flag_of(name) for name in known)
    parser = make_parser(FinetuneOptions, PROG, DESCRIPTION, epilog=f"Options of TrainingArguments: {names}.")
    given, rest = parse_given(parser, arguments)
    for name, word in given_flags(rest).items():
        if known and name not in known and name.removeprefix("no_") not in known:
            raise unrecognized(word)
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
    folders: list[Path] = []

    def command() -> Callable[[], object]:
        options, rest, stored = parse(arguments)
        # Only now, as these take seconds.
        from ntk_lpft.commands.finetune.run import finetune
        from ntk_lpft.commands.finetune.training import parse_training, resolve

        def work() -> None:
            settings, task = resolve(options, parse_training(rest), stored)
            folders.append(settings.path)
            finetune(settings, task)

        return work

    def to_go_on() -> str:
        for folder in folders:
            from ntk_lpft.runs import FinetuneRun, HeadScaleGrid  # imported by then

            if FinetuneRun(folder).begun or HeadScaleGrid(folder).begun:
                return "give --resume to go on"
        return "the same command begins again"

    less_memory = "give a smaller --per-device-train-batch-size, --kernel-size, --predict-size or --max-length"
    return run_command(command, to_go_on, less_memory)
