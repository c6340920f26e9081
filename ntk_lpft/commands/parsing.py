"""Options of a command from the command line, on top of those of a config file that an earlier run wrote.

Dataclasses become options by transformers' ``HfArgumentParser``, which is taken from its file alone: importing all of
transformers takes seconds, and ``--help`` shall not.
"""

import argparse
import copy
import dataclasses
import importlib
import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn, Protocol, TypeVar, get_args, get_origin, get_type_hints, runtime_checkable

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import check_text, read_json
from ntk_lpft.options import OutputOptions, check_idle, flag_of

Options = TypeVar("Options")


@cache
def _hf_argparser() -> ModuleType:
    """Return the module ``transformers.hf_argparser``, which imports nothing of transformers itself."""
    package = importlib.util.find_spec("transformers")
    file = None if package is None or package.origin is None else Path(package.origin).with_name("hf_argparser.py")
    if "transformers" in sys.modules or file is None or not file.is_file():
        return importlib.import_module("transformers.hf_argparser")
    spec = importlib.util.spec_from_file_location("_hf_argparser", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _OneSpelling(argparse.ArgumentDefaultsHelpFormatter):
    """Shows of each option the spelling with dashes, though underscores and earlier names are taken as well."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=118)

    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, [_advertised(action) for action in actions], groups, prefix)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return super()._format_action_invocation(_advertised(action))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Names of options have hyphens, and are to be found by them.
        return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # What stands for None, the help itself says.
        return action.help if action.default in (None, []) else super()._get_help_string(action)


def _advertised(action: argparse.Action) -> argparse.Action:
    """Return a copy of an option with the one spelling that help shows."""
    shown = copy.copy(action)
    long = [word for word in action.option_strings if word.startswith("--") and "_" not in word]
    shown.option_strings = [word for word in action.option_strings if not word.startswith("--")] + long[:1]
    return shown


@cache
def _parser_class() -> Any:
    base: Any = _hf_argparser().HfArgumentParser

    class Parser(base):
        """Options of dataclasses, in groups by the class that declares them; refuses by an ``InputError``."""

        def error(self, message: str) -> NoReturn:
            """Raise what argparse would print below its usage."""
            raise refusal(message)

        def _add_dataclass_arguments(self, kind: type) -> None:
            hints, groups = get_type_hints(kind), {}
            for field, title in _titled(kind):
                if not field.init:
                    continue
                if title not in groups:
                    groups[title] = self.add_argument_group(title)
                typed = copy.copy(field)
                typed.type = hints[field.name]
                self._parse_dataclass_field(groups[title], typed)

    return Parser


def refusal(message: str) -> InputError:
    """Put what argparse says of a command line as a user is to read it, with the spelling with dashes alone."""
    names, colon, rest = message.rstrip(".").partition(":")
    dashed = re.sub(r"--[a-z0-9]+_[a-z0-9_]+/", "", names)
    return InputError(f"{dashed}{colon}{rest}; --help lists the options")


def unrecognized(word: str) -> InputError:
    """Say that a word of a command line is none of the command's options."""
    return refusal(f"unrecognized arguments: {word}")


def _titled(kind: type) -> Iterator[tuple[Any, str]]:
    """Fields of a dataclass with the title of the group that declares them first."""
    for field in dataclasses.fields(kind):
        owners = [base for base in reversed(kind.__mro__) if field.name in vars(base).get("__annotations__", {})]
        yield field, getattr(owners[0], "TITLE", "options")


def make_parser(kind: type, prog: str, description: str, **more: Any) -> argparse.ArgumentParser:
    """Make the parser of a command's options.

    Args:
        kind: Dataclass of the options, see `ntk_lpft.options.option`.
        prog: How the command is called.
        description: What it does.
        **more: Further arguments of ``argparse.ArgumentParser``.

    Returns:
        The parser, which has ``--config`` besides and refuses by ``InputError``.
    """
    parser = _parser_class()(
        kind, prog=prog, description=description, allow_abbrev=False, formatter_class=_OneSpelling, **more
    )
    if "config" not in {field.name for field in dataclasses.fields(kind)}:
        parser.add_argument("--config", help="config.json of an earlier run; other options override what it says")
    return parser


def parse_options(
    kind: type[Options],
    description: str,
    arguments: Sequence[str] | None,
    prog: str,
    positional: tuple[str, str] | None = None,
) -> Options:
    """Read options from the command line, on top of those of ``--config FILE`` where one is given.

    Args:
        kind: Dataclass of the options.
        description: What the command does.
        arguments: The command line; None takes the process's.
        prog: How the command is called.
        positional: The option, a list, that words without a flag belong to, and what --help calls them.

    Returns:
        The options.

    Raises:
        InputError: An unknown option or a value of the wrong kind; or the config file is missing, no JSON, or holds
            either of these.
    """
    parser: Any = make_parser(kind, prog, description)
    if positional is not None:
        parser.add_argument(positional[1], nargs="*", help=f"the same as --{positional[0]}")
    given, unknown = parse_given(parser, arguments)
    config = given.get("config")
    if "config" not in {field.name for field in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        given.pop("config", None)
    if positional is not None:
        # argparse takes one group of such words; those behind a later flag are left over.
        loose = [*given.pop(positional[1], []), *(word for word in unknown if not word.startswith("-"))]
        unknown = [word for word in unknown if word.startswith("-")]
        if loose:
            given[positional[0]] = loose
    if unknown:
        raise unrecognized(unknown[0])
    check_numbers(given)
    options = kind(**{**({} if config is None else read_config(Path(config), kind)), **given})
    if isinstance(options, Idle):
        check_idle(given, options.idle())
    return options


@runtime_checkable
class Idle(Protocol):
    """Options of a command of which some do nothing as the others are."""

    def idle(self) -> dict[str, str]:
        """Return their names, each with the reason, as it follows “does nothing”."""


def check_numbers(given: Mapping[str, Any]) -> None:
    """Refuse whole numbers that no machine word holds.

    Args:
        given: Options by name.

    Raises:
        InputError: One of them is, or has, such a number.
    """
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int) and not -(2**63) <= each < 2**63:
                raise InputError(f"{flag_of(name)} {_short(each)} is too large a number")


def bare_parser(kind: type) -> Any:
    """Make the parser of a dataclass's options that has neither ``--help`` nor ``--config``."""
    return _parser_class()(kind, add_help=False, allow_abbrev=False)


def parse_given(parser: Any, arguments: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Read which options a command line gives, without the defaults of those that it does not.

    Args:
        parser: What `make_parser` returns.
        arguments: The command line; None takes the process's.

    Returns:
        The options given, by name, and the words that are no option of the parser.

    Raises:
        InputError: A value of the wrong kind.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for word in words:
        check_text(word, "the command line")
    if {"-h", "--help"} & set(words):
        parser.parse_args(["--help"])  # with the defaults in place
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    parsed, unknown = parser.parse_known_args(words)
    return vars(parsed), unknown


def read_config(path: Path, kind: type, further: Sequence[str] = ()) -> dict[str, Any]:
    """Read the options that an earlier run wrote, but for those that say where its results went.

    Args:
        path: The file.
        kind: Dataclass of the command's options.
        further: Names of options that the command takes besides, whose values are not looked at.

    Returns:
        The stored options by name, with earlier names replaced by today's.

    Raises:
        InputError: The file is missing, no JSON, or holds unknown options or values of the wrong kind.
    """
    try:
        stored = read_json(path).get("options")
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputError(f"config {path} does not exist") from error
        raise InputError(f"config {path} is no config.json that this command wrote ({error})") from error
    if not isinstance(stored, dict):
        raise InputError(f"config {path} is no config.json that this command wrote")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    earlier = {alias.lstrip("-"): name for name, field in fields.items() for alias in field.metadata.get("aliases", ())}
    stored = {earlier.get(name, name): value for name, value in stored.items()}
    unknown = sorted(set(stored) - set(fields) - set(further))
    if unknown:
        raise InputError(f"config {path} holds options that this command does not have: {', '.join(unknown)}")
    own = {name: value for name, value in stored.items() if name in fields}
    stored |= checked_values(path, own, kind)
    place = {field.name for field in dataclasses.fields(OutputOptions)}
    return {name: value for name, value in stored.items() if name not in place}


def checked_values(path: Path, stored: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Refuse options in a config file whose values are of the wrong kind.

    Args:
        path: The file.
        stored: Its options, all of them fields of ``kind``.
        kind: Dataclass of the options.

    Returns:
        The options; whole numbers where other numbers are asked for as such.

    Raises:
        InputError: One of them is.
    """
    hints = get_type_hints(kind)
    wrong = [name for name, value in stored.items() if not _fits(value, hints[name])]
    if wrong:
        raise InputError(f"config {path}: option {wrong[0]} cannot be {_short(stored[wrong[0]])}; correct it")
    return {name: _as_floats(value) if _takes_floats(hints[name]) else value for name, value in stored.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def _takes_floats(kind: Any) -> bool:
    kinds = {kind, *get_args(kind), *(inner for outer in get_args(kind) for inner in get_args(outer))}
    return float in kinds and not kinds & {int, str}


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def stored_options(options: Any) -> dict[str, Any]:
    """Options as a config file holds them: without those that say where results go, and how a folder is treated."""
    place = {field.name for field in dataclasses.fields(OutputOptions)} | {"resume"}
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in place}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON has the type that an option's annotation asks for."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) in (dict, Literal):
        return isinstance(value, dict) if get_origin(kind) is dict else value in get_args(kind)
    if get_args(kind):
        return any(_fits(value, choice) for choice in get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    return isinstance(value, int | float if kind is float else kind)


def given_flags(words: Sequence[str]) -> dict[str, str]:
    """Names of the options that words of a command line give, each with the word."""
    flags = [word for word in words if word.startswith("--") and len(word) > 2]
    return {word[2:].partition("=")[0].replace("-", "_"): word for word in flags}
