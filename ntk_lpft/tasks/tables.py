"""Files of rows: csv, tsv, JSON lines and parquet, read strictly, with the file and row of every fault."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntk_lpft.class_names import listed, shortened
from ntk_lpft.disk_errors import check_is_file
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import check_text, parse_json

Record = dict[str, Any]

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
_LARGEST_CELL = 2**31 - 1  # characters; what the csv module can count to everywhere
_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a spreadsheet or zip file"}


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
    check_is_file(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = next((f"{kind}, not" for start, kind in _OTHER_ENCODINGS.items() if content.startswith(start)), "not")
        raise InputError(f"{path} is {found} UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not text.strip():
        raise InputError(f"{path} is empty; give a file with rows")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line} holds a NUL character, which is no text; save the file as UTF-8 text")
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
        InputError: A row with another number of columns than the header, broken quoting, or a quotation mark that
            joins lines each of which looks like a row of its own.
    """
    cells: list[list[str]] = []
    consumed: list[str] = []
    with _any_size_of_cell():
        # newline="" leaves line ends inside quoted fields as they are; str.splitlines would also cut at other marks.
        lines = io.StringIO(read_text(path), newline="")
        reader = csv.reader(_noted(lines, consumed), delimiter=separator, strict=True)
        try:
            for row in reader:
                if row:
                    cells.append(row)
                    _check_joined(path, consumed, separator, reader.line_num, len(cells[0]))
                consumed.clear()
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}; quote fields as csv does") from error
    return _to_records(path, cells[0], cells[1:])


def _noted(lines: Iterable[str], consumed: list[str]) -> Iterator[str]:
    for line in lines:
        consumed.append(line)
        yield line


@contextmanager
def _any_size_of_cell() -> Iterator[None]:
    """Lift the csv module's limit on the size of a cell, which holds for the whole process, for a while."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_joined(path: Path, lines: Sequence[str], separator: str, last: int, columns: int) -> None:
    """Refuse a row made of lines that would each be a row if their quotation marks were ordinary characters."""
    if len(lines) > 1 and columns > 1 and all(each.count(separator) == columns - 1 for each in lines):
        raise InputError(
            f"{path}, line {last - len(lines) + 1}: a quotation mark joins {len(lines)} lines to one row, though "
            f"each has the {columns} columns of a row; write a field with marks as csv does, each mark twice"
        )


def read_tabbed(path: Path) -> list[Record]:
    """Read a tab-separated file with a header line, whose quotation marks quote or are ordinary characters.

    They are ordinary where every line has as many fields as the header and reading them as quotes breaks the file or
    joins lines.

    Args:
        path: The file.

    Returns:
        The rows, each by column name; all values are strings.

    Raises:
        InputError: The file is broken in either way.
    """
    lines = [line for line in read_lines(path) if line]
    tabs = lines[0].count("\t")
    if '"' not in read_text(path) or tabs == 0 or any(line.count("\t") != tabs for line in lines):
        return read_quoted(path, "\t")
    try:
        return read_quoted(path, "\t")
    except InputError:
        cells = [line.split("\t") for line in lines]
        return _to_records(path, cells[0], cells[1:])


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(
            f"{path} has {columns.count(twice[0])} columns {shortened(twice[0])!r}; rename or remove all but one"
        )


def _to_records(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Record]:
    _check_columns(path, columns)
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise InputError(
                f"{at_row(path, number)} has {len(row)} columns instead of {len(columns)} ({listed(columns)}); "
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
    value = parse_json(line, f"{path}, line {number + 1}")
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
    values = parse_json(text, str(path))
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
    import pyarrow as pa

    check_is_file(path)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet ({type(error).__name__}); check the file") from error
    _check_columns(path, [str(name) for name in frame.columns])
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def read_table(path: Path) -> list[Record]:
    """Read a file of rows in the format that its suffix names.

    csv and tsv files have a header line and csv quoting (a tsv may do without, see ``read_tabbed``), and all their
    values are strings; blank lines are skipped.

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
        return read_quoted(path, ",") if kind == "csv" else read_tabbed(path)
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
        raise InputError(f"{at_row(where, row)} has no column {column!r}; its columns are {listed(list(record))}")
    value = record[column]
    if value is None or value != value:
        raise InputError(f"{at_row(where, row)} has no value in column {column!r}; fill it, or remove the row")
    if not isinstance(value, str):
        raise InputError(f"{at_row(where, row)}: column {column!r} holds {value!r:.60}, which is no text")
    if not value.strip():
        raise InputError(f"{at_row(where, row)} has an empty text in column {column!r}; fill it, or remove the row")
    check_text(value, f"{at_row(where, row)}: column {column!r}")
    return value
