"""Files of rows as they come: what would be read wrongly is refused, or read as its writer meant it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import load_files
from ntk_lpft.tasks.tables import read_table, read_unquoted


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text,label,text\na,0,b\n"),
        ("t.tsv", "text\tlabel\ttext\na\t0\tb\n"),
        ("t.jsonl", '{"text": "a", "label": 0, "text": "b"}\n'),
        ("t.json", '[{"text": "a", "label": 0, "text": "b"}]'),
    ],
)
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(InputError, match=r"(2 columns 'text'|the key 'text' stands twice)"):
        read_table(write(tmp_path, name, content))
    if name == "t.tsv":
        with pytest.raises(InputError, match=r"2 columns 'text'"):
            read_unquoted(write(tmp_path, name, content))


UNQUOTED = [
    ['"Great film', 'nothing more"', "fine"],
    ['"Great" film', "plain", 'he said "no"'],
    ['"', "a", 'b"'],
    ['x"', '"y', '"z"z'],
]


@pytest.mark.parametrize("texts", UNQUOTED)
def test_quotation_marks_of_an_unquoted_tsv_swallow_no_rows(tmp_path: Path, texts: list[str]) -> None:
    lines = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(texts))
    records = read_table(write(tmp_path, "t.tsv", "text\tlabel\n" + lines))
    assert [record["text"] for record in records] == texts
    assert [record["label"] for record in records] == [str(number % 2) for number in range(len(texts))]


def test_quotation_marks_of_a_csv_swallow_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", 'label,text\n0,"a\n1,b\n1,c"\n0,d\n')
    with pytest.raises(InputError, match=r"t.csv, line 2: a quotation mark joins 3 lines to one row"):
        read_table(path)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\t"), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(cells, st.sampled_from("01")), min_size=1, max_size=5), name=st.sampled_from(["c", "t"]))
def test_what_the_csv_module_wrote_is_read_as_it_was(tmp_path: Path, rows: list[tuple[str, str]], name: str) -> None:
    path = tmp_path / f"t.{name}sv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="," if name == "c" else "\t", lineterminator="\n")
        writer.writerows([("text", "label"), *rows])
    try:
        read = read_table(path)
    except InputError as error:
        if "a quotation mark joins" in str(error):  # a text that holds what looks like rows
            return
        raise
    assert [(record["text"], record["label"]) for record in read] == rows


def test_a_cell_may_be_of_any_size(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "word " * 100_000
    for name, content in (("t.csv", f'text,label\n"{long}",0\n'), ("t.tsv", f"text\tlabel\n{long}\t0\n")):
        assert read_table(write(tmp_path, name, content)) == [{"text": long, "label": "0"}]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"text": "a", "label": ' + "[" * 100_000, "line 1 cannot be read as JSON"),
        ("t.jsonl", '{"a": ' * 100_000, "line 1 cannot be read as JSON"),
        ("t.json", "[" * 100_000 + "]" * 100_000, "t.json cannot be read as JSON .it is nested too deeply"),
        ("t.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}", "line 1 .*has 5000 digits"),
        ("t.json", '[{"text": "a", "label": ' + "9" * 5000 + "}]", "t.json .*has 5000 digits"),
        ("t.json", '[{"text": "a"},\n{"text" "b"}]', "t.json cannot be read as JSON .*line 2"),
        ("t.csv", "text,label\na\0b,0\n", "line 2 holds a NUL character"),
        ("t.csv", "text,label\na,0\n".encode("utf-16"), "is UTF-16, not UTF-8"),
        ("t.csv", b"PK\x03\x04\xff", "is a spreadsheet or zip file, not UTF-8"),
        ("t.csv", "text,label\né,0\n".encode("latin-1"), r"is not UTF-8 \(byte 11\)"),
    ],
)
def test_what_is_no_table(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_table(write(tmp_path, name, content))
    assert len(str(caught.value)) < 600


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for name, content in (("t.csv", "text,label\na,0\n"), ("t.tsv", "text\tlabel\na\t0\n")):
        assert read_table(write(tmp_path, name, "\ufeff" + content)) == [{"text": "a", "label": "0"}]
    record = {"text": "a", "label": "0"}
    assert read_table(write(tmp_path, "t.jsonl", "\ufeff" + json.dumps(record))) == [record]


@pytest.mark.parametrize(("text", "what"), [("\\ud800", "no Unicode text"), ("a\\u0000b", "a NUL character")])
def test_texts_that_are_no_unicode(tmp_path: Path, text: str, what: str) -> None:
    path = write(tmp_path, "t.jsonl", f'{{"text": "{text}", "label": 0}}\n{{"text": "b", "label": 1}}\n')
    with pytest.raises(InputError, match=rf"line 1 has .*{what}"):
        load_files(path, path)
    path = write(tmp_path, "u.jsonl", f'{{"text": "a", "label": "{text}"}}\n{{"text": "b", "label": "y"}}\n')
    with pytest.raises(InputError, match=rf"line 1 has .*{what}"):
        load_files(path, path)


def test_a_parquet_file_of_columns_that_are_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"text": [b"a", b"b"], "label": [0, 1]}).to_parquet(path)
    with pytest.raises(InputError, match=r"row 0 .* holds b'a', which is no text"):
        load_files(path, path)
