"""Files of rows: csv, tsv, JSON lines and parquet, read strictly, with the file and row of every fault."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntk_lpft.errors import InputError

Record = dict[str, Any]

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}


def at_row(where: str | Path, row: int) -> str:
    """Name a row in a message; rows are counted as in ``Split.indices``."""
    return f"{where}, row {row} (the first is 0)"


def read_text(path: Path) -> str:
    """Read a file's text, in UTF-8 with or without a byte-order mark.

    Args:
        path: The file.

    Returns:
        The text, without the byte-order mark.

    Raises:
        InputError: The file is missing, unreadable, no UTF-8, or empty.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; check the path")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not text.strip():
        raise InputError(f"{path} is empty; give a file with rows")
    return text


def read_lines(path: Path) -> list[str]:
    r"""Lines of a text file, without line ends; only ``\n`` and ``\r\n`` end a line."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    # One final newline ends the last line; it starts no further one.
    return lines[:-1] if lines[-1] == "" else lines


def read_unquoted(path: Path, columns: Sequence[str] | None = None) -> list[Record]:
    """Read a tab-separated file in which quotation marks are ordinary characters, as in the GLUE releases.

    Args:
        path: The file.
        columns: Names of its columns; None where its first line names them.

    Returns:
        The rows, each by column name; all values are strings.

    Raises:
        InputError: A row with another number of columns than named.
    """
    cells = [line.split("\t") for line in read_lines(path)]
    return _to_records(path, cells[0] if columns is None else columns, cells[1:] if columns is None else cells)


def read_quoted(path: Path, separator: str) -> list[Record]:
    """Read a file with a header line and csv quoting, such as a spreadsheet or pandas writes.

    Args:
        path: The file.
        separator: What stands between fields, one character.

    Returns:
        The rows, each by column name; all values are strings.

    Raises:
        InputError: A row with another number of columns than the header, or broken quoting.
    """
    # newline="" leaves line ends inside quoted fields as they are; str.splitlines would also cut at other characters.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=separator, strict=True)
    try:
        cells = [row for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; quote fields as csv does") from error
    return _to_records(path, cells[0], cells[1:])


def _to_records(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Record]:
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise InputError(
                f"{at_row(path, number)} has {len(row)} columns instead of {len(columns)} ({', '.join(columns)}); "
                "check its separators and quotation marks"
            )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def read_jsonl(path: Path) -> list[Record]:
    """Read one JSON object a line.

    Args:
        path: The file.

    Returns:
        The objects, in file order.

    Raises:
        InputError: A line that is no JSON object.
    """
    return [_json_object(path, number, line) for number, line in enumerate(read_lines(path)) if line.strip()]


def _json_object(path: Path, number: int, line: str) -> Record:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number + 1} is not JSON ({error.msg}); correct it") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}, line {number + 1} is no JSON object; give one object of columns a line")
    return value


def read_json(path: Path) -> list[Record]:
    """Read a JSON list of objects, or one object a line.

    Args:
        path: The file.

    Returns:
        The objects, in file order.

    Raises:
        InputError: Neither of the two.
    """
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return read_jsonl(path)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno} is not JSON ({error.msg}); correct it") from error
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise InputError(f"{at_row(path, number)} is no JSON object; give a list of objects")
    return values


def read_parquet(path: Path) -> list[Record]:
    """Read a parquet file; missing values become None.

    Args:
        path: The file.

    Returns:
        The rows, each by column name.

    Raises:
        InputError: The file is missing or no parquet file.
    """
    import pandas as pd

    if not path.is_file():
        raise InputError(f"{path} is not a file; check the path")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as parquet ({type(error).__name__}); check the file") from error
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def read_table(path: Path) -> list[Record]:
    """Read a file of rows in the format that its suffix names.

    csv and tsv files have a header line and csv quoting, and all their values are strings; blank lines are skipped.

    Args:
        path: The file; its suffix is one of ``SUFFIXES``.

    Returns:
        The rows, each by column name.

    Raises:
        InputError: Unknown suffix, missing file, or malformed content.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; give a file ending in {', '.join(SUFFIXES)}")
    if kind in ("csv", "tsv"):
        return read_quoted(path, "," if kind == "csv" else "\t")
    return {"jsonl": read_jsonl, "json": read_json, "parquet": read_parquet}[kind](path)


def text_of(record: Record, column: str, where: str, row: int) -> str:
    """Take the text out of a record.

    Args:
        record: A row of a file.
        column: Name of the text column.
        where: How messages name the file.
        row: Number of the row, from 0, for messages.

    Returns:
        The text, which is not blank.

    Raises:
        InputError: The column or its value is missing, or it is no text.
    """
    if column not in record:
        raise InputError(f"{at_row(where, row)} has no column {column!r}; its columns are {', '.join(record)}")
    value = record[column]
    if value is None or value != value:
        raise InputError(f"{at_row(where, row)} has no value in column {column!r}; fill it, or remove the row")
    if not isinstance(value, str):
        raise InputError(f"{at_row(where, row)}: column {column!r} holds {value!r}, which is no text")
    if not value.strip():
        raise InputError(f"{at_row(where, row)} has an empty text in column {column!r}; fill it, or remove the row")
    return value
