"""A user's own files, good and bad."""

import json

import pandas as pd
import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import load_files

ROWS = [{"text": f"text {i}", "label": ["bad", "good"][i % 2]} for i in range(10)]


def save(folder, name, rows):
    path = folder / name
    if name.endswith("csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith("tsv"):
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t")
    elif name.endswith("parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "T.CSV"])
def test_every_format_reads_the_same(tmp_path, name):
    rows = [
        {"text": 'with "quotes", commas', "label": "good"},
        {"text": "NA", "label": "bad"},
        {"text": "né", "label": "good"},
    ]
    path = save(tmp_path, name.lower(), rows).rename(tmp_path / name)
    task = load_files(path, validation=path)
    assert task.label_names == ("bad", "good")
    assert task.split("train").texts == (('with "quotes", commas',), ("NA",), ("né",))
    assert task.split("train").labels.tolist() == [1, 0, 1]
    assert str(path) in task.source


def test_two_text_columns_make_pairs(tmp_path):
    path = save(tmp_path, "t.csv", [{"a": "one", "b": "two", "y": 0}, {"a": "three", "b": "four", "y": 1}])
    split = load_files(path, path, text_columns=("a", "b"), label_column="y").split("train")
    assert split.texts == (("one", "two"), ("three", "four"))
    assert split.template == ("{a}", "{b}")


def test_one_text_column_may_be_named_without_brackets(tmp_path):
    path = save(tmp_path, "t.csv", [{"body": "one", "label": 0}, {"body": "two", "label": 1}])
    assert load_files(path, path, text_columns="body").split("train").texts == (("one",), ("two",))


def test_without_validation_file_the_last_tenth_is_used(tmp_path):
    task = load_files(save(tmp_path, "t.csv", ROWS))
    assert task.split("train").indices.tolist() == list(range(9))
    assert task.split("validation").indices.tolist() == [9]
    with pytest.raises(InputError, match="no split 'test'"):
        task.split("test")


def test_other_files_follow_the_classes_of_training(tmp_path):
    train, test = save(tmp_path, "t.csv", ROWS), save(tmp_path, "u.jsonl", [{"text": "x", "label": "good"}])
    task = load_files(train, test, test, ood={"far": test})
    assert task.ood == ("far",)
    for split in (task.split("validation"), task.split("test"), task.ood_split("far")):
        assert split.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "names", "numbers", "expected_names"),
    [
        ([2, 0, 1], None, [2, 0, 1], ("0", "1", "2")),
        (["b", "a", "b"], None, [1, 0, 1], ("a", "b")),
        (["b", "a", "b"], ("b", "a"), [0, 1, 0], ("b", "a")),
        ([1, 0, 1], ("no", "yes"), [1, 0, 1], ("no", "yes")),
        ([0, 2, 0], ("x", "y", "z"), [0, 2, 0], ("x", "y", "z")),
        ([True, False, True], None, [1, 0, 1], ("False", "True")),
        ([1.0, 0.0, 1.0], None, [1, 0, 1], ("0", "1")),
        ([1, 2, 1], None, [0, 1, 0], ("1", "2")),
        ([-1, 1, 1], None, [0, 1, 1], ("-1", "1")),
        ([10, 2, 1], None, [2, 1, 0], ("1", "2", "10")),
        ([-2, 0, 2], None, [0, 1, 2], ("-2", "0", "2")),
        ([0, 4, 2], ("0", "2", "4"), [0, 2, 1], ("0", "2", "4")),
        ([-1, 0, 1], ("-1", "0", "1"), [0, 1, 2], ("-1", "0", "1")),
        ([-0.0, 1.0, 1.0], None, [0, 1, 1], ("0", "1")),
    ],
)
@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_labels(tmp_path, name, labels, names, numbers, expected_names):
    path = save(tmp_path, name, [{"text": f"t {i}", "label": label} for i, label in enumerate(labels)])
    task = load_files(path, path, label_names=names)
    assert task.split("train").labels.tolist() == numbers
    assert task.label_names == expected_names


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 3, 1], None, "labels go up to 3 but none is 2"),
        ([-1, 0, 1], None, "row 0 .* label -1 beside 0 to 1, as rows without a label have it; .* --label-names"),
        ([0, "x", 1], None, "row 1 .* label 'x' among labels such as '0'"),
        (["x", 1, "y"], None, "row 1 .* label '1' among"),
        ([0, 0.5, 1], None, "row 1 .* label 0.5 is neither text nor a whole number"),
        ([0, None, 1], None, "row 1 .* has no label in column 'label'"),
        ([0, "", 1], None, "row 1 .* has no label"),
        ([0, [1], 1], None, r"row 1 .* label \[1\] is neither"),
        (["a", "c", "b"], ("a", "b"), "row 1 .* label 'c' is neither one of a, b nor a number from 0 to 1"),
        ([1, 2, 1], ("1", "3"), "row 1 .* label '2' is none of the classes 1, 3; correct it"),
        ([0, 2, 1], ("a", "b"), "row 1 .* label '2' is neither"),
        (["a", "a", "a"], None, "every training row is of class 'a'"),
        ([1, 1, 1], ("a", "b"), "every training row is of class 'b'"),
        ([0, 1, 1], ("a", "b", "c", "d"), "3 training rows for 4 classes"),
    ],
)
def test_bad_labels(tmp_path, labels, names, message):
    path = save(tmp_path, "t.jsonl", [{"text": f"t {i}", "label": label} for i, label in enumerate(labels)])
    with pytest.raises(InputError, match=message) as caught:
        load_files(path, path, label_names=names)
    assert str(path) in str(caught.value)


def test_labels_missing_from_training_are_refused_elsewhere(tmp_path):
    train, test = save(tmp_path, "t.csv", ROWS), save(tmp_path, "u.csv", [{"text": "x", "label": "great"}])
    with pytest.raises(
        InputError, match=r"u.csv, row 0 .* label 'great' is none of the classes bad, good; correct it, give"
    ):
        load_files(train, test=test)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,0\nb\n", r"row 1 .* has 1 columns instead of 2 \(text, label\)"),
        ("text,label\na,0\nb,1,2\n", "row 1 .* has 3 columns instead of 2"),
        ("text,label\n,0\nb,1\n", "row 0 .* empty text in column 'text'"),
        ("text,label\na,\nb,1\n", "row 0 .* no label"),
        ('text,label\n"a" b,0\n', "line 2: .* quote fields"),
        ("text;label\na;0\n", "has no column 'text'; its columns are 'text;label'"),
        ("body,label\na,0\n", "has no column 'text'; its columns are 'body', 'label'"),
        ("text,label\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_files(path)
    assert str(caught.value).startswith(str(path))


def test_blank_lines_and_quoted_line_ends_are_no_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text,label\n"a\nb",0\n\nc\x0bd,1\n\n', encoding="utf-8")
    assert load_files(path, path).split("train").texts == (("a\nb",), ("c\x0bd",))


def test_missing_values_in_parquet_are_refused(tmp_path):
    path = save(tmp_path, "t.parquet", [{"text": "a", "label": "x"}, {"text": None, "label": "y"}])
    with pytest.raises(InputError, match=r"row 1 .* no value in column 'text'"):
        load_files(path)


def test_a_parquet_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"text,label")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        load_files(path)


@pytest.mark.parametrize("name", ["missing.csv", "missing.parquet", "missing.jsonl"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: no such file"):
        load_files(tmp_path / name)


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown suffix '.xls'; give a file ending in .csv, .tsv"):
        load_files(tmp_path / "t.xls")


@pytest.mark.parametrize("columns", [(), ("a", "b", "c"), ("a", "a")])
def test_one_text_or_a_pair(tmp_path, columns):
    with pytest.raises(InputError, match="one column, or two different ones"):
        load_files(save(tmp_path, "t.csv", ROWS), text_columns=columns)


def test_the_content_names_the_split_not_the_file(tmp_path):
    one, two = (load_files(save(tmp_path, name, ROWS)).split("train") for name in ("t.csv", "u.jsonl"))
    assert one.fingerprint == two.fingerprint
