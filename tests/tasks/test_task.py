"""Splits and tasks refuse what cannot be classified, and read nothing before it is asked for."""

import numpy as np
import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import Split, Task
from ntk_lpft.tasks.task import tail, without_tail


def make(labels: list[int], name: str = "train") -> Split:
    return Split(tuple((f"text {i}",) for i in range(len(labels))), np.array(labels), np.arange(len(labels)), name)


def task(split: Split, names: tuple[str, ...] = ("no", "yes")) -> Task:
    return Task("some", names, "memory", {"train": lambda: split, "test": lambda: split}, {"far": lambda: split})


@pytest.mark.parametrize(
    ("texts", "labels", "indices", "message"),
    [
        ((), [], [], "no rows"),
        ((("a",), (" ",)), [0, 1], [0, 5], "row 5 .* empty text"),
        ((("a",), (None,)), [0, 1], [0, 5], "row 5 .* empty text"),
        ((("a",), ("b", "c")), [0, 1], [0, 1], "row 1 .* 2 segments, not 1"),
        ((("a", "b", "c"),), [0], [0], "3 segments"),
        (("a", "b"), [0, 1], [0, 1], "texts are strings"),
        ((("a",), ("b",)), [0], [0, 1], "labels must be one integer"),
        ((("a",), ("b",)), [0.5, 1.0], [0, 1], "labels must be one integer"),
        ((("a",), ("b",)), [0, 1], [[0], [1]], "indices must be one integer"),
        ((("a",), ("b",)), [0, 1], [3, 3], "same source row"),
    ],
)
def test_a_split_refuses_what_does_not_fit(unchecked_shapes, texts, labels, indices, message):
    with pytest.raises(InputError, match=message):
        Split(texts, np.array(labels), np.array(indices), "train")


def test_a_split_cannot_be_changed_from_outside():
    labels = np.array([0, 1])
    split = Split((("a",), ("b",)), labels, np.array([0, 1]), "train")
    labels[0] = 1
    assert split.labels.tolist() == [0, 1]
    assert split.labels.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "row 2 .* label 2 is outside 0 to 1"),
        ([0, -1], "row 1 .* label -1 is outside"),
        ([1, 1], "every training row is of class 'yes'"),
        ([1], "1 training rows for 2 classes"),
    ],
)
def test_a_task_refuses_training_rows_it_cannot_learn_from(labels, message):
    with pytest.raises(InputError, match=message):
        task(make(labels)).split("train")


def test_a_test_may_lack_a_class():
    assert len(task(make([1, 1])).split("test")) == 2
    assert len(task(make([1])).ood_split("far")) == 1


def test_unknown_splits_are_named_with_the_known():
    with pytest.raises(InputError, match="no split 'dev'; choose one of train, test"):
        task(make([0, 1])).split("dev")
    with pytest.raises(InputError, match="no OOD test 'near'; choose one of far"):
        task(make([0, 1])).ood_split("near")


@pytest.mark.parametrize(("names", "metric"), [(("a", "a"), "accuracy"), (("a",), "accuracy"), (("a", "b"), "f1")])
def test_a_task_needs_distinct_classes_and_a_known_metric(names, metric):
    with pytest.raises(InputError, match=r"label names|unknown metric"):
        Task("some", names, "memory", {}, metric=metric)


def test_splits_are_read_once_and_only_when_asked_for():
    calls = []

    def load() -> Split:
        calls.append("read")
        return make([0, 1])

    lazy = Task("some", ("no", "yes"), "memory", {"train": load, "test": load})
    assert calls == []
    assert lazy.split("train") is lazy.split("train")
    assert calls == ["read"]


@pytest.mark.parametrize("count", [2, 10, 11, 25, 250])
def test_the_last_tenth_is_cut_off_in_order(count):
    whole = make([0, 1] * (count // 2) + [0] * (count % 2))
    rest, last = without_tail(whole), tail(whole)
    assert (*rest.texts, *last.texts) == whole.texts
    assert len(last) * 10 >= count > (len(last) - 1) * 10
    assert (rest.name, last.name) == ("train", "validation")
