"""JSON that is none, or more than a file of results ever holds, is refused in one line, and at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "is nested too deeply"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "the number 99999999… has 5000 digits"),
        ('{"a": -' + "9" * 20 + "}", "has 20 digits|has 21 digits"),
        ('{"a": 1e400}', "the number 1e400 is too large"),
        ('{"a": -1e400}', "the number -1e400 is too large"),
        ("[" * 300 + "1" + "]" * 300, "is nested too deeply"),
        ('{"a":' * 300 + "1" + "}" * 300, "is nested too deeply"),
    ],
    ids=["nested", "unclosed", "whole", "negative", "float", "float-negative", "list-of-300", "object-of-300"],
)
def test_bombs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="here cannot be read as JSON"):
        parse_json(text, "here")


def test_numbers_of_64_bits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [9223372036854775807, -9223372036854775808, 1.5e308, 1e-400]}')
    assert read_json(path) == {"a": [2**63 - 1, -(2**63), 1.5e308, 0.0]}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no such device here")
def test_devices_and_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(InputError, match="it is no regular file"):
            read_json(path)


def test_enormous_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no place
    with pytest.raises(InputError, match="it has 1099511627776 bytes, more than are ever written"):
        read_json(path)


@pytest.mark.parametrize(
    ("name", "message"), [("a\0b", "cannot be the name of a file"), ("x" * 300, "File name too long")]
)
def test_impossible_names_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": "\\ud800"}', "no Unicode text"),
        ('{"\\udcff": 1}', "no Unicode text"),
        ('{"b": ["a\\u0000b"]}', "NUL character in 'a"),
    ],
)
def test_objects_and_texts_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_json(text, "here")


def test_some_depth_is_read() -> None:
    assert parse_json("[" * 100 + "]" * 100, "here") is not None
