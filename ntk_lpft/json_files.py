"""JSON objects of files that were written by a program, read with a distrust of what may have become of them."""

import json
from pathlib import Path
from typing import Any

from ntk_lpft.errors import InputError

_MOST_BYTES = 2**28  # far beyond the largest that is written: a summary with a label a sample
_MOST_DIGITS = 19  # of whole numbers; more do not fit 64 bits
_MOST_NESTED = 100  # far below what Python can copy and write again


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        InputError: The file is missing, is no regular file of at most 256 MiB, cannot be read, is nested too deeply, or
            holds no object or a number beyond 64 bits.
    """
    content = parse_json(_text_of(path), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def parse_json(text: str, where: str) -> Any:
    """Read a JSON text.

    Args:
        text: The text.
        where: What error messages call it.

    Returns:
        What it says.

    Raises:
        InputError: It is no JSON, is nested too deeply, or holds a number beyond 64 bits, one key twice in an object,
            or text with a NUL or a lone surrogate.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole, parse_float=_number)
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise InputError(f"{where} cannot be read as JSON ({error})") from error
    _check_inside(value, where)
    return value


def check_text(text: str, where: str) -> None:
    """Refuse text that no file and no terminal takes.

    Args:
        text: The text.
        where: What error messages call its place.

    Raises:
        InputError: It has a NUL, or a lone surrogate, which is what bytes that are no UTF-8 become.
    """
    if "\0" in text:
        raise InputError(f"{where} has a NUL character in {text[:40]!r}; take it out")
    try:
        text.encode()  # fails for surrogates alone, and is as quick as a look at a large file's texts must be
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} has characters that are no Unicode text (UTF-8) in {text[:40]!r}; rename it"
        ) from error


def _too_deep(where: str) -> InputError:
    return InputError(f"{where} cannot be read as JSON (it is nested too deeply)")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return made


def _check_inside(value: Any, where: str) -> None:
    """Refuse depth and texts that would fail only where they are copied, written or printed."""
    level = [value]
    for _ in range(_MOST_NESTED + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, str):
                check_text(each, where)
            elif isinstance(each, dict):
                for key in each:
                    check_text(key, where)
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        if not inner:
            return
        level = inner
    raise _too_deep(where)


def _text_of(path: Path) -> str:
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} cannot be the name of a file")
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{path} cannot be read as JSON (it is no regular file)")
        if size > _MOST_BYTES:
            raise InputError(f"{path} cannot be read as JSON (it has {size} bytes, more than are ever written)")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as JSON ({getattr(error, 'strerror', None) or error})") from error


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"the number {digits[:8]}… has {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def plain(value: Any) -> Any:
    """Return a value as it comes back from a JSON file: tuples as lists, keys as text."""
    return json.loads(json.dumps(value))
