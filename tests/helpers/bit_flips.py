"""Files with one bit flipped, one at a time, and what is made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntk_lpft.errors import InputError

FLIPS = 200


@contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """Give a file's content, and put it back in the end."""
    content = path.read_bytes()
    try:
        yield content
    finally:
        path.write_bytes(content)


def flipped(path: Path, read: Callable[[], Any], *, count: int = FLIPS, seed: int = 0) -> int:
    """Flip bits of a file at random places, one at a time, and hold what is read to what was there.

    Args:
        path: The file; it is as before in the end.
        read: Reads what depends on it; the result is compared by its text.
        count: How many bits.
        seed: Of the places.

    Returns:
        How many were refused by an ``InputError``; of all others the result was the same.
    """
    expected, refused, rng = repr(read()), 0, random.Random(seed)
    with restored(path) as content:
        for _ in range(count):
            altered = bytearray(content)
            altered[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(altered)
            try:
                now = repr(read())
            except InputError:
                refused += 1
            else:
                assert now == expected
    return refused
