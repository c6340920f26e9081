"""What the commands share: options from dataclasses, a config file that replays a run, errors in one line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import transformers
from transformers import HfArgumentParser

from ntk_lpft.errors import InputError

Options = TypeVar("Options")

# Options that say where results go, not what they are; a config file does not carry them over.
_PLACE = ("output_dir", "overwrite")


def parse_options(kind: type[Options], description: str, arguments: Sequence[str] | None, prog: str) -> Options:
    """Read options from the command line, on top of those of ``--config FILE`` where one is given.

    Args:
        kind: Dataclass of the options, with ``metadata={"help": …}``.
        description: What the command does.
        arguments: The command line; None takes the process's.
        prog: How the command is called.

    Returns:
        The options.

    Raises:
        InputError: The config file is missing, no JSON, or holds unknown options.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    config = finder.parse_known_args(words)[0].config
    parser = HfArgumentParser(kind, prog=prog, description=description, allow_abbrev=False)  # type: ignore[arg-type]
    parser.add_argument("--config", help="config.json of an earlier run; other options override what it says")
    if config is not None:
        parser.set_defaults(**_read_config(Path(config), kind))
    options, _ = parser.parse_args_into_dataclasses(words)
    return options


def _read_config(path: Path, kind: type) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["options"]
    except FileNotFoundError as problem:
        raise InputError(f"config {path} does not exist") from problem
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError, OSError) as problem:
        raise InputError(f"config {path} is no config.json that this command wrote") from problem
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(found) - known)
    if unknown:
        raise InputError(f"config {path} holds options that this command does not have: {', '.join(unknown)}")
    return {name: value for name, value in found.items() if name not in _PLACE}


def open_output(folder: Path, results: Sequence[str], *, overwrite: bool) -> None:
    """Make the output folder, and make sure that nothing in it gets lost.

    Args:
        folder: The folder.
        results: Names of the files that will be written.
        overwrite: Whether results of an earlier run may be replaced.

    Raises:
        InputError: The folder cannot be written, or holds results.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise InputError(f"output folder {folder} cannot be written ({problem.strerror})") from problem
    used = [name for name in results if (folder / name).exists()]
    if used and not overwrite:
        raise InputError(
            f"output folder {folder} already holds {', '.join(used[:3])}; "
            "choose another --output-dir, or give --overwrite"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def run_command(main: Callable[[], None]) -> int:
    """Run a command; bad input becomes one line on standard error and exit status 2."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        main()
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0
