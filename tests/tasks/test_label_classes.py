"""Labels in a user's files: equal ones are one class in every file, however written; what is none is refused."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import load_files, load_task
from ntk_lpft.tasks.labels import LabelColumn, settle_labels


def settled(*files: list[Any], names: list[str] | None = None) -> tuple[tuple[str, ...], list[list[int]]]:
    columns = [LabelColumn(f"file{i}", "label", values) for i, values in enumerate(files)]
    classes, numbers = settle_labels(columns, names)
    return classes, [found.tolist() for found in numbers]


def csv(path: Path, labels: list[str], header: str = "text,label") -> Path:
    rows = [f"text {i},{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


SPELLINGS: dict[int, list[Any]] = {
    0: ["0", "00", "0.0", "-0", "-0.0", "0e0", "+0", 0, 0.0, -0.0, np.float32(0), np.int8(0), decimal.Decimal("0.00")],
    1: ["1", "01", "1.0", "1.", "1e0", "1.000000000000000000e+00", "+1", " 1 ", "\ufeff1", 1, 1.0, np.float32(1),
        np.float16(1), np.int64(1), np.uint8(1), decimal.Decimal("1.0")],
}  # fmt: skip


@pytest.mark.parametrize("one", SPELLINGS[1], ids=repr)
@pytest.mark.parametrize("zero", SPELLINGS[0], ids=repr)
def test_a_number_is_one_class_however_it_is_written(zero: Any, one: Any) -> None:
    assert settled(["0", "1"], [zero, one, 0]) == (("0", "1"), [[0, 1], [0, 1, 0]])
    assert settled([zero, one], ["1", "0"]) == (("0", "1"), [[0, 1], [1, 0]])


@given(st.lists(st.integers(-999, 999), min_size=2, max_size=9, unique=True), st.randoms(use_true_random=False))
def test_numbers_keep_their_order(numbers: list[int], random: Any) -> None:
    classes = sorted(numbers)
    if 0 in classes and (min(classes) == 0 or [n for n in classes if n < 0] == [-1]):
        classes = list(range(len(classes)))  # with gaps, or with -1, they are refused
    labels = [random.choice(classes) for _ in range(50)] + 2 * classes
    found, (places,) = settled([f"{label}.0" for label in labels])
    assert [int(name) for name in found] == classes
    assert [int(found[place]) for place in places] == labels


@pytest.mark.parametrize("labels", [["true", "false"], ["TRUE", "FALSE"], ["True", "False"], [True, False],
                                    [np.True_, np.False_]])  # fmt: skip
@pytest.mark.parametrize("others", [["TRUE", "False"], [True, False], ["true", "false"]])
def test_truth_values_are_alike_in_every_format(labels: list[Any], others: list[Any]) -> None:
    assert settled(labels, others) == (("False", "True"), [[1, 0], [1, 0]])


def test_words_that_hold_truth_values_stay_as_they_are() -> None:
    assert settled(["true", "half-true", "false"])[0] == ("false", "half-true", "true")


MISSING = ["", " ", "nan", "NaN", "NULL", "null", "?", "N/A", "NA", "<NA>", "None", "-", r"\N", "\ufeff", None,
           float("nan"), np.float32("nan"), decimal.Decimal("nan")]  # fmt: skip


@pytest.mark.parametrize("word", MISSING, ids=repr)
@pytest.mark.parametrize("beside", [["a", "b"], ["0", "1"]])
def test_missing_labels_are_refused_with_their_row(word: Any, beside: list[str]) -> None:
    with pytest.raises(InputError, match=r"file0, row 2 \(the first is 0\) has no label in column 'label'"):
        settled([*beside, word])
    with pytest.raises(InputError, match=r"file1, row 1 \(the first is 0\) has no label"):
        settled(beside, [beside[0], word])


def test_a_word_that_looks_missing_is_a_class_where_it_is_named() -> None:
    with pytest.raises(InputError, match=r"but 'NA'; .* if 'NA' is a class, name the classes .* by --label-names"):
        settled(["EU", "NA"])
    assert settled(["EU", "NA"], ["NA"], names=["EU", "NA"]) == (("EU", "NA"), [[0, 1], [1]])


@pytest.mark.parametrize("names", [None, ["1", "yes"]])
def test_words_and_numbers_do_not_mix_unless_named(names: list[str] | None) -> None:
    if names:
        assert settled(["yes", "1"], names=names)[1] == [[1, 0]]
        return
    with pytest.raises(InputError, match=r"file0, row 2 .* label '1' among labels such as 'yes': numbers and words"):
        settled(["yes", "no", "1", "no"])
    with pytest.raises(InputError, match=r"file0, row 1 .* label 'yes' among labels such as '0'"):
        settled(["0", "yes", "1"])
    with pytest.raises(
        InputError, match=r"file1, row 0 .* '1' is none of .*: numbers in one file and words in another"
    ):
        settled(["yes", "no"], ["1"])
    with pytest.raises(InputError, match=r"file1, row 1 .* 'yes' is none of .*: numbers in one file and words"):
        settled(["0", "1"], ["1", "yes"])


@pytest.mark.parametrize("other", ["yes", "YES", "Ye\u200bs", "\uff39\uff45\uff53", "Y\u0435s", "Yes\u00ad"])
def test_names_that_look_alike_are_refused(other: str) -> None:
    with pytest.raises(InputError, match=r"file0, row 2 .* looks like 'Yes' in row 0, but is another; write one class"):
        settled(["Yes", "no", other])
    with pytest.raises(InputError, match=r"file1, row 1 .* though it looks like 'Yes'; write one class in one way"):
        settled(["Yes", "no"], ["no", other])
    assert settled(["Yes", other], names=["Yes", other])[1] == [[0, 1]]


@pytest.mark.parametrize("padded", ["Yes ", " Yes", "\tYes\t", "\u00a0Yes", "Yes\u200b"])
def test_white_space_around_a_name_does_not_matter(padded: str) -> None:
    assert settled(["Yes", "no"], [padded])[1] == [[0, 1], [0]]


NO_LABELS = ["0.5", 0.5, np.float32(0.1), "1e300", "1e999999", "1e-999999", float("inf"), 10**300, [1], {"a": 1}, b"x",
             pd.Timestamp(0), "1" * 30, 1 + 2j]  # fmt: skip


@pytest.mark.parametrize("value", NO_LABELS, ids=lambda value: repr(value)[:20])
def test_what_is_no_label(value: Any) -> None:
    with pytest.raises(InputError, match=r"file0, row 2 .* label"):
        settled([0, 1, value])


def test_gaps_and_unlabelled_rows() -> None:
    with pytest.raises(InputError, match=r"file0: labels go up to 4 but none is 1; .* --label-names"):
        settled(["0", "4"])
    assert settled(["0", "4"], names=["0", "4"])[1] == [[0, 1]]
    with pytest.raises(InputError, match=r"file1, row 1 .* '-1' is none of .*, but what rows without a label have"):
        settled(["0", "1"], ["0", "-1"])
    with pytest.raises(InputError, match=r"row 3 .* label -1 beside 0 to 2"):
        settled([0, 1, 2, -1])
    assert settled(["-1", "1"], [-1.0])[1] == [[0, 1], [0]]


def test_names_that_are_numbers_are_never_taken_for_places() -> None:
    assert settled(["1", "2", "2"], names=["2", "1"])[1] == [[1, 0, 0]]
    with pytest.raises(InputError, match=r"row 0 .* '0' is none of the classes 1, 2"):
        settled(["0", "1"], names=["1", "2"])
    assert settled(["0", "1", "no"], names=["yes", "no"])[1] == [[0, 1, 1]]
    for names in (["1", "01"], ["a", "a "], ["", "a"]):
        with pytest.raises(InputError, match=r"must be distinct, and none of them empty"):
            settled(["1"], names=names)
    for names in ([], ["a"]):
        with pytest.raises(InputError, match=r"give two classes or more"):
            settled(["a"], names=names)


def test_a_column_that_holds_no_labels_is_refused() -> None:
    with pytest.raises(InputError, match=r"has 20 classes in 20 rows, such as .*; name the column of labels by"):
        settled([str(i) for i in range(20)])
    with pytest.raises(InputError, match=r"has 20 classes in 20 rows"):
        settled([f"a sentence, number {i}" for i in range(20)])
    assert len(settled([str(i) for i in range(20)] * 2)[0]) == 20


def test_a_repeated_header_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "joined.csv"
    path.write_text("text,label\na,x\nb,y\ntext,label\nc,x\n")
    with pytest.raises(InputError, match=r"joined.csv, row 2 \(the first is 0\) repeats the header line; remove it"):
        load_files(path, path)


def test_text_and_label_are_two_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'label' is to be text and label"):
        load_files(csv(tmp_path / "t.csv", ["a", "b"]), text_columns=("text", "label"))


def test_files_of_two_formats_have_one_set_of_classes(tmp_path: Path) -> None:
    train = csv(tmp_path / "t.csv", ["0.0", "1.0", "01", "0"])
    test = tmp_path / "u.parquet"
    pd.DataFrame({"text": ["a", "b", "c"], "label": pd.array([1, 0, 1], dtype="Int8")}).to_parquet(test)
    task = load_files(train, train, test)
    assert task.label_names == ("0", "1")
    assert task.split("train").labels.tolist() == [0, 1, 1, 0]
    assert task.split("test").labels.tolist() == [1, 0, 1]


def test_a_file_sorted_by_class(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", ["a"] * 20 + ["b"] * 19 + ["c"] * 3)
    with pytest.raises(InputError, match=r"the last tenth, 5 rows .*, has all rows of class c, .*--stratified-valid"):
        load_files(path)
    task = load_files(path, stratified_validation=True)
    train, validation = task.split("train"), task.split("validation")
    assert np.bincount(validation.labels).tolist() == [2, 2, 1]
    assert sorted([*train.indices, *validation.indices]) == list(range(42))
    again = load_files(path, stratified_validation=True)
    assert again.split("validation").fingerprint == validation.fingerprint
    with pytest.raises(InputError, match=r"give it or a file of validation rows"):
        load_files(path, path, stratified_validation=True)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "file of train rows None is no path"),
        ({"train": 5}, "file of train rows 5 is no path"),
        ({"train": b"x"}, "file of train rows b'x' is no path"),
        ({"train": []}, r"file of train rows \[\] is no path"),
        ({"test": 5}, "file of test rows 5 is no path"),
        ({"train": "x" * 5000 + ".csv"}, "cannot be read .*check the path"),
        ({"train": "x\0.csv"}, "no such file"),
        ({"text_columns": 5}, "text columns 5 are no list of texts"),
        ({"text_columns": None}, "give one column, or two"),
        ({"text_columns": (1, 2)}, "are no list of texts"),
        ({"label_column": None}, "label column None is no text"),
        ({"label_names": []}, "give two classes or more"),
        ({"label_names": "ab"}, "label names 'ab' are no list of texts"),
        ({"label_names": [0, 1]}, "are no list of texts"),
        ({"ood": "x.csv"}, "ood 'x.csv' is no mapping"),
        ({"metric": None}, "unknown metric None"),
    ],
)
def test_arguments_of_a_wrong_kind(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = csv(tmp_path / "t.csv", ["a", "b"])
    with pytest.raises(InputError, match=message):
        load_files(**{"train": path, "validation": path, **changes})


@pytest.mark.unchecked
@pytest.mark.parametrize(("name", "folder"), [(None, None), (5, None), ([], None), ({}, None), ("cb", 5), ("cb", b"x")])
def test_tasks_of_a_wrong_kind(name: Any, folder: Any) -> None:
    with pytest.raises(InputError, match="give the name as text, and the folder as a path"):
        load_task(name, folder)


@pytest.mark.unchecked
@pytest.mark.parametrize(("n", "seed"), [("3", 0), (2.5, 0), (True, 0), (3, "x"), (3, None), ([3], 0)])
def test_samples_of_a_wrong_kind(tmp_path: Path, n: Any, seed: Any) -> None:
    path = csv(tmp_path / "t.csv", ["a", "b"] * 4)
    split = load_files(path, path).split("train")
    if seed is None:
        assert len(split.subsample(np.int64(3), np.int64(0))) == 3
        return
    with pytest.raises(InputError, match="was asked for; give a whole number"):
        split.subsample(n, seed)


@pytest.mark.unchecked
@pytest.mark.parametrize("change", [{"max_length": "x"}, {"max_length": None}, {"max_length": 5.0}, {"tokenizer": None},
                                    {"tokenizer": "x"}, {"tokenizer": 5}])  # fmt: skip
def test_tokenizers_and_lengths_of_a_wrong_kind(tmp_path: Path, make_tokenizer: Any, change: dict[str, Any]) -> None:
    path = csv(tmp_path / "t.csv", ["a", "b"] * 4)
    split = load_files(path, path).split("train")
    with pytest.raises(InputError, match=r"is no tokenizer of transformers|is no whole number of tokens"):
        split.encode(**{"tokenizer": make_tokenizer(), **change})
