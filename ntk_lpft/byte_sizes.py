"""Amounts of memory as people write them."""

import math
import re

from ntk_lpft.errors import InputError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(text: str | int) -> int:
    """Read an amount of memory such as ``4GiB``, ``500MB`` or a plain number of bytes.

    Args:
        text: The amount, with or without a unit; a number alone counts bytes.

    Returns:
        The amount in bytes, rounded down.

    Raises:
        InputError: Not an amount, or not positive.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", str(text))
    if match is None or match.group(2).lower() not in _UNITS:
        raise InputError(f"cannot read memory budget {str(text)!r}; write it as 4GiB or 500MB")
    size = float(match.group(1)) * _UNITS[match.group(2).lower()]
    if size == math.inf:
        raise InputError(f"memory budget {str(text)[:40]!r} is beyond every machine")
    amount = int(size)
    if amount <= 0:
        raise InputError(f"memory budget {str(text)!r} is not positive")
    return amount


def format_bytes(amount: float) -> str:
    """Write an amount of memory for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount >= size:
            return f"{amount / size:.2f} {unit}"
    return f"{amount:.0f} bytes"
