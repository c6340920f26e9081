"""What is said of data before work starts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from ntk_lpft.tasks import Split, Task
from ntk_lpft.tasks.describe import describe_classes, doubts


def task(names: tuple[str, ...] = ("bad", "good"), source: str = "f.csv", **splits: str) -> Task:
    """Make a task of texts such as ``a0 b1``: text and label of each row."""

    def loader(name: str, rows: list[str]) -> Split:
        labels = np.array([int(row[1:]) for row in rows])
        where = source if name in ("train", "validation") else name
        indices = np.arange(len(rows)) + 100 * (name == "validation")
        return Split(tuple((row[0],) for row in rows), labels, indices, name, source=where)

    loaders = {name: partial(loader, name, rows.split()) for name, rows in splits.items()}
    made = Task("some", names, "memory", loaders)
    for name in splits:
        made.split(name)
    return made


def test_classes_are_listed_with_their_rows_in_every_split() -> None:
    assert describe_classes(task(train="a0 b1 c1", test="d0")) == "0 bad (1 train, 1 test), 1 good (2, 0)"
    assert describe_classes(task(("0", "1"), train="a0 b1 c1")) == "0 (1 train), 1 (2)"
    many = task(tuple(f"n{i}" for i in range(30)), train=" ".join(f"a{i}" for i in range(30)))
    assert describe_classes(many).endswith("19 n19 (1) and 10 others")
    long = task(("x" * 99, "a\x1b[31mb"), train="a0 b1")
    assert describe_classes(long) == f"0 {'x' * 39}… (1 train), 1 a\\x1b[31mb (1)"


def test_only_what_was_read_is_described() -> None:
    lazy = Task("some", ("a", "b"), "memory", {"train": lambda: pytest.fail("was read")})
    assert describe_classes(lazy) == "0 a, 1 b"
    assert doubts(lazy) == []


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": "a0 b1 c0 d1", "test": "e0 f1"}, []),
        ({"train": "a0 b1 c0 d1", "test": "e0 f0"}, ["test has no row of class good"]),
        ({"train": "a0 b1 c0 d1", "test": "a0 f1 b0"},
         ["2 of the 3 rows of test have a text that is a training row's as well"]),
        ({"train": "a0 a1 c0 d1"}, ["1 text of the training rows stand under more than one label"]),
        ({"train": "a0 b0 c0 d0 e1 f1 g1 h1", "validation": "i1 j0"},
         ["the training rows are sorted by class, and the validation split is cut off from their end; "
          "--stratified-validation takes a tenth of each class of your own file"]),
        ({"train": "a0 b0 c0 d0 e1 f1 g1 h1", "test": "i1 j0"}, []),
    ],
)  # fmt: skip
def test_what_looks_odd(splits: dict[str, str], said: list[str]) -> None:
    assert doubts(task(**splits)) == said
