"""Token rows: no padding, the longer segment cut first, nothing silently lost."""

import numpy as np
import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import EncodedSplit, Split


def make(*texts: tuple[str, ...]) -> Split:
    return Split(texts, np.arange(len(texts)) % 2, np.arange(len(texts)) + 10, "test")


def test_rows_have_their_own_length_and_no_padding(make_tokenizer):
    encoded = make(("a b",), ("c",)).encode(make_tokenizer())
    assert [row["input_ids"] for row in encoded] == [[2, 4, 5, 3], [2, 6, 3]]
    assert [row["attention_mask"] for row in encoded] == [[1, 1, 1, 1], [1, 1, 1]]
    assert encoded.labels.tolist() == [0, 1]
    assert encoded.indices.tolist() == [10, 11]
    assert encoded.n_truncated == 0
    assert encoded.max_length == 128


def test_pairs_carry_their_token_types(make_tokenizer):
    names = ["input_ids", "token_type_ids", "attention_mask"]
    (row,) = make(("a b", "c")).encode(make_tokenizer(model_input_names=names))
    assert row["input_ids"] == [2, 4, 5, 3, 6, 3]
    assert row["token_type_ids"] == [0, 0, 0, 0, 1, 1]


def test_token_types_are_left_out_where_the_tokenizer_makes_none(make_tokenizer):
    (row,) = make(("a b", "c")).encode(make_tokenizer(model_input_names=["input_ids", "attention_mask"]))
    assert sorted(row) == ["attention_mask", "input_ids"]


def test_the_longer_segment_is_cut_first_and_cuts_are_counted(make_tokenizer):
    encoded = make(("a b c d e", "f"), ("a", "b c d e"), ("a", "b")).encode(make_tokenizer(), max_length=6)
    assert [row["input_ids"] for row in encoded] == [[2, 4, 5, 3, 9, 3], [2, 4, 3, 5, 6, 3], [2, 4, 3, 5, 3]]
    assert encoded.n_truncated == 2


def test_a_row_of_just_the_greatest_length_is_not_truncated(make_tokenizer):
    encoded = make(("a b c",)).encode(make_tokenizer(), max_length=5, truncate=False)
    assert len(encoded[0]["input_ids"]) == 5
    assert encoded.n_truncated == 0


def test_long_rows_are_refused_where_they_shall_not_be_cut(make_tokenizer):
    with pytest.raises(InputError, match=r"row 1 .* 6 tokens.* max_length=5, and so have 1 others"):
        make(("a",), ("a b c d",), ("a b c d",)).encode(make_tokenizer(), max_length=5, truncate=False)


@pytest.mark.parametrize(("length", "message"), [(2, "no room"), (11, "exceeds the 10 tokens")])
def test_a_length_that_the_tokenizer_cannot_keep_is_refused(make_tokenizer, length, message):
    with pytest.raises(InputError, match=message):
        make(("a",)).encode(make_tokenizer(model_max_length=10), max_length=length)


def test_a_row_without_token_is_refused(make_tokenizer):
    from tokenizers.normalizers import Replace

    tokenizer = make_tokenizer(special=False)
    tokenizer.backend_tokenizer.normalizer = Replace("b", "")
    with pytest.raises(InputError, match=r"row 1 .* has no token"):
        make(("a",), ("b",)).encode(tokenizer)


def test_what_a_collator_does_to_a_row_stays_outside(make_tokenizer):
    encoded = make(("a b",), ("c",)).encode(make_tokenizer())
    encoded[0]["input_ids"].append(0)
    encoded[:1][0]["input_ids"].append(0)
    assert encoded[0]["input_ids"] == [2, 4, 5, 3]
    assert encoded[np.int64(1)] == encoded[-1]
    assert len(encoded[0:2]) == len(encoded) == 2
    with pytest.raises(IndexError):
        encoded[2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (({"input_ids": [1, 2, 3]},), "3 tokens, more than the 2 allowed"),
        (({"input_ids": []},), "no token"),
        ((), "0 rows, 1 labels"),
    ],
)
def test_inconsistent_rows_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        EncodedSplit(rows, np.array([0]), np.array([0]), "", 0, max_length=2)


def test_a_truncation_stored_with_the_tokenizer_is_not_obeyed(minilm):
    # This model's tokenizer file asks for 128 tokens and padding; both are the caller's choice here.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    encoded = make(("good " * 300,), ("good",)).encode(tokenizer, max_length=400)
    assert [len(row["input_ids"]) for row in encoded] == [302, 3]
    assert make(("good " * 300,)).encode(tokenizer, max_length=200).n_truncated == 1


def test_many_rows_keep_their_order(make_tokenizer, monkeypatch):
    monkeypatch.setattr("ntk_lpft.tasks.encoding.CHUNK", 2)
    encoded = make(("a",), ("a b",), ("a b c d e",), ("c",), ("d e",)).encode(make_tokenizer(), max_length=5)
    assert [row["input_ids"][1:-1] for row in encoded] == [[4], [4, 5], [4, 5, 6], [6], [7, 8]]
