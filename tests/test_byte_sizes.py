"""Amounts of memory as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.byte_sizes import format_bytes, parse_bytes
from ntk_lpft.errors import InputError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        (4096, 4096),
        ("4GiB", 4 * 2**30),
        ("500MB", 500 * 10**6),
        (" 1.5 kib ", 1536),
        (".5GB", 5 * 10**8),
        ("12b", 12),
        ("3Mib", 3 * 2**20),
        ("7kB", 7000),
    ],
)
def test_amounts_are_read(text: str | int, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GiB", "4 apples", "-4GiB", "0", "0.4", "1e9", "4GiB 2", "nan", "1,5GiB"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="memory budget"):
        parse_bytes(text)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 2**42))
def test_written_amounts_can_be_read_again(amount: int) -> None:
    text = format_bytes(amount)
    assert parse_bytes(text.replace("bytes", "B")) == pytest.approx(amount, rel=6e-3)
