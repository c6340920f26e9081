"""Inputs in every form that a tokenizer, a data set or a user may give them."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from helpers.agreement import assert_agrees_with_referee, assert_identical
from helpers.zoo import ZOO, padded, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.classifier.rows import collate, to_rows
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import KernelSettings, compute_ntk, compute_train_eval_ntk

ENTRY = ZOO["bert"]
MODEL = ENTRY.build()
ROWS = ragged_rows(ENTRY, n=3)
PLAIN = [{key: value for key, value in row.items() if key != "attention_mask"} for row in ROWS]


def forms() -> dict[str, Any]:
    """Return the same rows in many forms."""
    right, left = (padded(ROWS, pad_id=0, side=side, extra=2) for side in ("right", "left"))
    return {
        "ragged": ROWS,
        "without a mask": PLAIN,
        "right padding": right,
        "left padding": left,
        "arrays": {key: value.numpy() for key, value in right.items()},
        "nested lists": {key: value.tolist() for key, value in left.items()},
        "another mapping": UserDict(right),
        "a boolean mask": right | {"attention_mask": right["attention_mask"].bool()},
        "rows of tensors": [{key: torch.tensor(value) for key, value in row.items()} for row in ROWS],
        "rows of arrays": [{key: np.array(value) for key, value in row.items()} for row in ROWS],
        "a data set": datasets.Dataset.from_list([row | {"text": "a", "label": 1} for row in ROWS]),
        "a data set of tensors": datasets.Dataset.from_list(ROWS).with_format("torch"),
        "a padded data set": datasets.Dataset.from_dict({key: value.tolist() for key, value in left.items()}),
        "labels": right | {"labels": torch.tensor([0, 1, 2])},
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_of_the_inputs_gives_the_same_rows(form: str) -> None:
    assert to_rows(forms()[form], MODEL) == PLAIN


@pytest.mark.parametrize("form", ["left padding", "arrays", "a data set"])
def test_every_form_of_the_inputs_gives_the_same_kernel(form: str) -> None:
    assert_identical(compute_ntk(MODEL, forms()[form]), compute_ntk(MODEL, ROWS))


def test_a_mask_with_only_ones_needs_no_mask() -> None:
    ids = torch.tensor([[3, 9, 0, 4], [3, 9, 9, 4]])
    assert [row["input_ids"] for row in to_rows({"input_ids": ids}, MODEL)] == ids.tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(mask=st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_only_padding_at_the_ends_is_stripped(mask: list[int]) -> None:
    ids = list(range(10, 10 + len(mask)))
    text = "".join(map(str, mask)).strip("0")
    if text and "0" not in text:
        (row,) = to_rows({"input_ids": [ids], "attention_mask": [mask]}, MODEL)
        assert row == {"input_ids": [i for i, held in zip(ids, mask, strict=True) if held]}
        return
    with pytest.raises(InputError, match=r"row 0.*(hole|no token)"):
        to_rows({"input_ids": [ids], "attention_mask": [mask]}, MODEL)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"attention_mask": [[1]]}, "no input_ids"),
        ([{"attention_mask": [1]}], "row 0 has no input_ids"),
        ({"input_ids": []}, "empty"),
        ([], "empty"),
        ([{"input_ids": [3, 4]}, {"input_ids": []}], "row 1 has no token"),
        ([{"input_ids": [3, 4], "attention_mask": [1]}], "row 0: attention_mask has length 1, input_ids 2"),
        ([{"input_ids": [3, 4], "token_type_ids": [0, 0, 1]}], "row 0: token_type_ids has length 3"),
        ({"input_ids": [[3, 4]], "attention_mask": [[1, 1], [1, 1]]}, "attention_mask and input_ids differ"),
        ([{"input_ids": [3, 61]}], "row 0 has a token id outside 0…60"),
        ([{"input_ids": [3, -1]}], "row 0 has a token id outside 0…60"),
        ([{"input_ids": [3] * 24}], "row 0 has 24 tokens but the model has positions for 23"),
    ],
)
def test_unusable_inputs_are_refused_with_the_place(inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute_ntk(MODEL, inputs)


@pytest.mark.parametrize("typed", ["train", "evaluation", "one row"])
def test_rows_that_differ_in_their_columns_are_refused_or_right(typed: str) -> None:
    """Token types that only some rows have must not be dropped silently."""
    bare = [{"input_ids": row["input_ids"]} for row in PLAIN]
    full = [row | {"token_type_ids": [1] * len(row["input_ids"])} for row in bare]
    train = {"train": full, "evaluation": bare, "one row": [bare[0], full[1], bare[2]]}[typed]
    evaluation = full if typed == "evaluation" else bare
    try:
        ntk = compute_train_eval_ntk(MODEL, train, evaluation, settings=KernelSettings(precision="float64"))["eval"]
    except InputError:
        return
    assert_agrees_with_referee(ntk, MODEL, evaluation, train)


def test_batches_are_padded_on_the_right_with_a_mask() -> None:
    batch = collate([{"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1]}, {"input_ids": [8], "token_type_ids": [1]}],
                    9, torch.device("cpu"), 4)  # fmt: skip
    assert {key: value.tolist() for key, value in batch.tensors.items()} == {
        "input_ids": [[5, 6, 7], [8, 9, 9]],
        "token_type_ids": [[0, 1, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    assert (batch.start, batch.size, batch.length) == (4, 2, 3)
