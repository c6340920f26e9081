"""What a user gives first: taken where it has one meaning, else refused in one line that says what to give."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.zoo import ZOO, padded, ragged_rows
from torch.utils.data import DataLoader, TensorDataset

from ntk_lpft.classifier.rows import to_rows
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk
from ntk_lpft.tasks import Split, Task

ENTRY = ZOO["bert"]
MODEL = ENTRY.build()
ROWS = ragged_rows(ENTRY, n=3)
PLAIN = [{key: value for key, value in row.items() if key != "attention_mask"} for row in ROWS]
RIGHT, LEFT = (padded(ROWS, pad_id=0, side=side, extra=2) for side in ("right", "left"))
IDS = torch.tensor([[5, 6], [7, 8]])


def lists(batch: dict[str, torch.Tensor]) -> dict[str, list]:
    return {key: value.tolist() for key, value in batch.items()}


FORMS: dict[str, Any] = {
    "a data frame": pd.DataFrame([row | {"text": "a"} for row in ROWS], index=[7, 7, 3]),
    "a loader": DataLoader(datasets.Dataset.from_dict(lists(RIGHT)).with_format("torch"), batch_size=2),
    "batches": [{key: value[part] for key, value in LEFT.items()} for part in (slice(2), slice(2, None))],
    "batches of one": [{key: torch.tensor([value]) for key, value in row.items()} for row in ROWS],
    "nested batches of one": [{key: [value] for key, value in row.items()} for row in ROWS],
    "whole numbers as floats": {key: value.float() for key, value in RIGHT.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_has_one_meaning_gives_the_same_rows(form: str) -> None:
    assert to_rows(FORMS[form], MODEL) == PLAIN
    assert to_rows(FORMS[form], MODEL, first=True) == PLAIN[:1]


@pytest.mark.parametrize("side", ["right", "left"])
def test_token_ids_alone_end_where_the_padding_token_begins(side: str) -> None:
    ids = padded(ROWS, pad_id=0, side=side, extra=2)["input_ids"]
    expected = [{"input_ids": row["input_ids"]} for row in PLAIN]
    for form in (ids, ids.numpy(), list(ids), ids.tolist(), [np.array(row["input_ids"]) for row in PLAIN]):
        assert to_rows(form, MODEL) == expected
        assert to_rows(form, MODEL, first=True) == expected[:1]
    assert to_rows(torch.tensor([[5, 0, 6]]), MODEL) == [{"input_ids": [5, 0, 6]}]


def test_token_ids_alone_are_refused_where_text_may_end_with_the_padding_token() -> None:
    model = ZOO["gpt2"].build()
    model.config.pad_token_id = model.config.eos_token_id
    ids = torch.tensor([[5, 6, 7], [5, 6, model.config.eos_token_id]])
    with pytest.raises(InputError, match="give an attention_mask as well"):
        to_rows(ids, model)
    rows = to_rows({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, model)
    assert [row["input_ids"] for row in rows] == ids.tolist()
    model.config.pad_token_id = None
    assert [row["input_ids"] for row in to_rows(ids, model)] == ids.tolist()


def test_the_tokens_of_one_sample_are_one_row() -> None:
    for ids in ([5, 6, 7], torch.tensor([5, 6, 7]), np.array([5, 6, 7])):
        assert to_rows({"input_ids": ids}, MODEL) == [{"input_ids": [5, 6, 7]}]
        assert to_rows({"input_ids": ids}, MODEL, first=True) == [{"input_ids": [5, 6, 7]}]


SPLIT = Split((("a",), ("b",)), np.array([0, 1]), np.array([0, 1]), "x")
REFUSED: list[tuple[Any, str]] = [
    (None, "None; give what a tokenizer returns"),
    (5, "of type int; give what a tokenizer returns"),
    ("some text", "are text; give what the tokenizer returns"),
    (["some", "text"], "are text"),
    ((row for row in ROWS), "of type generator; it can be read once only, so make a list"),
    ({1, 2}, "of type set"),
    (SPLIT, r"a Split that is not tokenised; give split\.encode\(tokenizer\)"),
    (Task("x", ("a", "b"), "here", {"train": lambda: SPLIT}), "a Task; give one of its splits"),
    ([None], "row 0 is of type NoneType, no mapping with input_ids"),
    ([(IDS[0], IDS[1])], "row 0 is of type tuple, no mapping"),
    (TensorDataset(IDS), "row 0 is of type tuple"),
    (DataLoader(TensorDataset(IDS)), "batch 0 is of type list"),
    (DataLoader(datasets.Dataset.from_list(ROWS), shuffle=True), "a DataLoader that shuffles"),
    (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "give one of its splits"),
    (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "make a list of it"),
    (pd.DataFrame({"text": ["a", "b"]}), r"no input_ids; give what a tokenizer returns \(got \['text'\]\)"),
    (torch.tensor(5), "has 0 axes instead of 2"),
    (IDS[None], "has 3 axes instead of 2"),
    ({"input_ids": IDS[None]}, "row 0: input_ids has 2 axes instead of 1"),
    ({"input_ids": 5}, "input_ids is of type int; give one row"),
    ({"input_ids": "ab"}, "input_ids is of type str"),
    ({"input_ids": ["ab", "cd"]}, "row 0: input_ids has 0 axes"),
    ({"input_ids": [["a"]]}, "row 0: input_ids holds what is no whole number"),
    ({"input_ids": [[1.5]]}, "row 0: input_ids holds what is no whole number"),
    ({"input_ids": [[float("nan")]]}, "row 0: input_ids holds what is no whole number"),
    ({"input_ids": [[1 << 70]]}, "row 0: input_ids holds what is no whole number"),
    ({"input_ids": [[[1, 2], [3]]]}, "row 0: input_ids holds lists of different lengths"),
    ({"input_ids": IDS.to("meta")}, "input_ids is a tensor that is on the meta device"),
    (IDS.to("meta"), "on the meta device"),
    ({"input_ids": IDS.to_sparse()}, "input_ids is a tensor that is sparse"),
    ([{"input_ids": IDS[0].to("meta")}], "on the meta device"),
    ({"input_ids": IDS, "attention_mask": IDS * -10}, "row 0: attention_mask holds -60; write 1 for text"),
    ({"input_ids": IDS, "token_type_ids": IDS}, "row 0 has a token type outside 0…1"),
    ({"input_ids": IDS, "token_type_ids": -IDS}, "row 0 has a token type outside 0…1"),
    ({"input_ids": IDS, "position_ids": IDS + 100}, "the model's own code fails on .*position_ids"),
]


@pytest.mark.unchecked
@pytest.mark.parametrize(("inputs", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_holds_no_tokens_is_refused_in_one_line(inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        compute_ntk(MODEL, inputs)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("form", ["a loader", "a data frame"])
def test_columns_of_a_kernel_are_taken_alike(form: str) -> None:
    ntk, expected = compute_ntk(MODEL, ROWS[:2], FORMS[form]), compute_ntk(MODEL, ROWS[:2], ROWS)
    assert torch.equal(ntk.total, expected.total)
    with pytest.raises(InputError, match="other are empty"):
        compute_ntk(MODEL, ROWS, [])
