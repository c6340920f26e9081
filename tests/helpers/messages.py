"""What a message says."""

from __future__ import annotations

import re


def matches(message: str, *parts: str) -> None:
    for part in parts:
        assert re.search(part, message), f"{part!r} not in {message!r}"
