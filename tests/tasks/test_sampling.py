"""Samples are chosen by hash: reproducible, without replacement, as balanced as the classes allow."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import Split
from ntk_lpft.tasks.sampling import quotas, tail_size

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def make(labels: list[int], first: int = 0) -> Split:
    texts = tuple((f"text {number}",) for number in range(len(labels)))
    return Split(texts, np.array(labels), np.arange(first, first + len(labels)), "train")


@given(LABELS, st.integers(1, 70), st.integers(-3, 10**6), st.booleans())
def test_rows_are_distinct_and_in_order_and_keep_their_text(labels, n, seed, balanced):
    split = make(labels, first=100)
    if balanced and n < min(len(set(labels)), len(labels)):
        with pytest.raises(InputError, match="classes"):
            split.subsample(n, seed, balanced)
        return
    sample = split.subsample(n, seed, balanced)
    assert len(sample) == min(n, len(labels))
    assert (np.diff(sample.indices) > 0).all()
    for (text,), label, index in zip(sample.texts, sample.labels, sample.indices, strict=True):
        assert text == f"text {index - 100}"
        assert label == labels[index - 100]


@given(LABELS, st.integers(0, 10**6), st.booleans())
def test_same_seed_gives_the_same_rows_and_larger_samples_contain_smaller(labels, seed, balanced):
    smallest = len(set(labels)) if balanced else 1
    sizes = range(smallest, len(labels) + 1)
    samples = [set(make(labels).subsample(n, seed, balanced).indices.tolist()) for n in sizes]
    again = [set(make(labels).subsample(n, seed, balanced).indices.tolist()) for n in sizes]
    assert samples == again
    assert all(small < large for small, large in pairwise(samples))


@given(LABELS, st.integers(1, 60), st.integers(0, 99))
def test_classes_differ_by_more_than_one_only_where_a_class_is_used_up(labels, n, seed):
    if not len(set(labels)) <= n <= len(labels):
        return
    available = Counter(labels)
    chosen = Counter(make(labels).subsample(n, seed).labels.tolist())
    assert sum(chosen.values()) == n
    for label in available:
        if chosen[label] < max(chosen.values()) - 1:
            assert chosen[label] == available[label]


def test_the_choice_follows_the_documented_ranking():
    # sha256 of "7:0" … "7:5" by an outside tool, in ascending order of the digests.
    ranking = [4, 3, 2, 1, 5, 0]
    split = make([0, 1, 0, 1, 0, 1])
    assert split.subsample(2, 7, balanced=False).indices.tolist() == sorted(ranking[:2])
    assert split.subsample(4, 7, balanced=False).indices.tolist() == sorted(ranking[:4])
    even = [index for index in ranking if index % 2 == 0]
    odd = [index for index in ranking if index % 2 == 1]
    assert split.subsample(3, 7).indices.tolist() == sorted(even[:2] + odd[:1])


def test_seeds_give_different_samples():
    split = make([0, 1] * 50)
    assert len({tuple(split.subsample(10, seed).indices) for seed in range(20)}) > 15


def test_a_uniform_sample_is_uniform():
    split = make([0] * 10)
    hits = Counter(index for seed in range(2000) for index in split.subsample(3, seed, balanced=False).indices.tolist())
    # 600 expected each, standard deviation about 20.
    assert all(500 < hits[index] < 700 for index in range(10))


@pytest.mark.parametrize("n", [None, 4, 9])
def test_everything_is_everything_in_order(n):
    sample = make([1, 0, 1, 1]).subsample(n, seed=3)
    assert sample.indices.tolist() == [0, 1, 2, 3]
    assert sample.fingerprint == make([1, 0, 1, 1]).fingerprint


@pytest.mark.parametrize("n", [0, -5])
def test_a_sample_without_rows_is_refused(n):
    with pytest.raises(InputError, match=f"{n} rows"):
        make([0, 1]).subsample(n, seed=0)


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [
        ([106, 103, 16], 250 - 25, [106, 103, 16]),
        ([106, 103, 16], 60, [22, 22, 16]),
        ([106, 103, 16], 100, [42, 42, 16]),
        ([5, 5, 5], 7, [3, 2, 2]),
        ([1, 9, 9], 10, [1, 5, 4]),
        ([0, 3], 2, [0, 2]),
    ],
)
def test_quotas(counts, n, expected):
    assert quotas(np.array(counts), n).tolist() == expected


@pytest.mark.parametrize(
    ("rows", "size"),
    [(250, 25), (2490, 249), (9427, 943), (554, 56), (67349, 6735), (3668, 367), (30000, 3000), (1, 1)],
)
def test_the_last_tenth_has_the_size_of_table_7(rows, size):
    assert tail_size(rows) == size
