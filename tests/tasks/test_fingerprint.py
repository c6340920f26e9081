"""Fingerprints change with every ingredient and with nothing else."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_lpft.tasks import Split
from ntk_lpft.tasks.fingerprint import canonical, tokenizer_fingerprint

BASE = Split((("a b", "c"), ("d", "e f")), np.array([0, 1]), np.array([0, 1]), "train", ("{x}", "{y}"), "here.csv")


def test_a_content_fingerprint_is_the_sha256_of_its_canonical_lines():
    lines = b'{"template":["{x}","{y}"]}\n[["a b","c"],0]\n[["d","e f"],1]\n'
    assert BASE.fingerprint == hashlib.sha256(lines).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"texts": (("a b", "c"), ("d", "e  f"))},
        {"texts": (("a", "b c"), ("d", "e f"))},
        {"texts": (("d", "e f"), ("a b", "c"))},
        {"labels": np.array([1, 1])},
        {"template": ("{x}", "{z}")},
        {"texts": (("a b",), ("d",))},
    ],
)
def test_every_ingredient_of_the_content_counts(change):
    assert replace(BASE, **change).fingerprint != BASE.fingerprint


@pytest.mark.parametrize("change", [{"source": "elsewhere"}, {"name": "other"}, {"indices": np.array([7, 3])}])
def test_where_the_rows_come_from_does_not_count(change):
    assert replace(BASE, **change).fingerprint == BASE.fingerprint


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=6), st.randoms())
def test_the_order_of_keys_does_not_count(facts, random):
    shuffled = list(facts.items())
    random.shuffle(shuffled)
    assert canonical(dict(shuffled)) == canonical(facts)
    assert json.loads(canonical(facts)) == facts


def test_an_encoding_depends_on_content_tokenizer_and_length(make_tokenizer):
    def encoded(split=BASE, length=8, **options):
        return split.encode(make_tokenizer(**options), max_length=length).fingerprint

    variants = [
        encoded(),
        encoded(split=BASE.take(np.array([0]))),
        encoded(split=replace(BASE, template=("{y}", "{x}"))),
        encoded(length=9),
        encoded(words="a b c d e f g"),
        encoded(words="b a c d e f"),
        encoded(special=False),
        encoded(truncation_side="left"),
    ]
    assert len(set(variants)) == len(variants)
    assert encoded() == variants[0]


def test_a_tokenizer_keeps_its_fingerprint_through_use_and_copying(make_tokenizer, tmp_path):
    from transformers import PreTrainedTokenizerFast

    tokenizer = make_tokenizer()
    fresh = tokenizer_fingerprint(tokenizer)
    tokenizer(["a b c"], padding="max_length", truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == fresh
    for folder in ("one", "two"):
        tokenizer.save_pretrained(tmp_path / folder)
        again = PreTrainedTokenizerFast.from_pretrained(tmp_path / folder)
        assert tokenizer_fingerprint(again) == fresh


class PlainTokenizer:
    """A tokenizer without a backend of the tokenizers library."""

    special_tokens_map = {"unk_token": "?"}  # noqa: RUF012

    def __init__(self, vocabulary, ranks=None, **options):
        self._vocabulary = vocabulary
        self.bpe_ranks = ranks
        self.init_kwargs = options

    def get_vocab(self):
        return self._vocabulary


def test_a_tokenizer_without_backend_counts_by_vocabulary_merges_and_flags():
    variants = [
        PlainTokenizer({"a": 0, "b": 1}, vocab_file="/one"),
        PlainTokenizer({"a": 1, "b": 0}, vocab_file="/one"),
        PlainTokenizer({"a": 0, "b": 1}, {("a", "b"): 0}, vocab_file="/one"),
        PlainTokenizer({"a": 0, "b": 1}, vocab_file="/one", lowercase=True),
    ]
    prints = [tokenizer_fingerprint(tokenizer) for tokenizer in variants]
    assert len(set(prints)) == len(prints)
    assert tokenizer_fingerprint(PlainTokenizer({"b": 1, "a": 0}, vocab_file="/two")) == prints[0]
