"""JSON objects of files that were written by a program, read with a distrust of what may have become of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ntk_lpft.errors import InputError

_MOST_BYTES = 2**28  # far beyond the largest that is written: a summary with a label a sample
_MOST_DIGITS = 19  # of whole numbers; more do not fit 64 bits


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
        InputError: It is no JSON, is nested too deeply, or holds a number beyond 64 bits.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_number)
    except RecursionError as error:
        raise InputError(f"{where} cannot be read as JSON (it is nested too deeply)") from error
    except ValueError as error:
        raise InputError(f"{where} cannot be read as JSON ({error})") from error


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
