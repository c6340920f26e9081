"""What public functions are given from Python: taken where it has one meaning, else refused by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError


@checked
def everything(
    matrix: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"] | Int[np.ndarray, " n"] | None = None,
    groups: Mapping[str, Float[Tensor, "n m"]] | None = None,
    *,
    rows: Iterable[int] = (),
    count: int = 1,
    factor: float = 1.0,
    flag: bool = False,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    anything: Any = None,
) -> dict[str, Any]:
    """Return all that it is given."""
    return dict(locals())


GOOD = np.arange(6.0).reshape(2, 3)
ARRAYS = {
    "plain": GOOD,
    "transposed": np.ascontiguousarray(GOOD.T).T,
    "reversed": GOOD[::-1, ::-1][::-1, ::-1],
    "big-endian": GOOD.astype(">f8"),
    "long": GOOD.astype(np.longdouble),
    "a subclass": GOOD.view(np.matrix),
    "float32": GOOD.astype(np.float32),
}


@pytest.mark.parametrize("form", ARRAYS)
def test_arrays_become_tensors(form: str) -> None:
    array = ARRAYS[form]
    found = everything(array)["matrix"]
    assert isinstance(found, Tensor)
    assert found.tolist() == GOOD.tolist()
    assert found.dtype == (torch.float32 if form == "float32" else torch.float64)


def test_tensors_become_arrays_where_those_alone_are_expected() -> None:
    @checked
    def of_arrays(labels: Int[np.ndarray, " n"]) -> Any:
        return labels

    assert isinstance(of_arrays(torch.tensor([1, 2])), np.ndarray)
    assert of_arrays(torch.tensor([1, 2])).tolist() == [1, 2]
    with pytest.raises(InputError, match="labels is of type list; pass a numpy array"):
        of_arrays([1, 2])


@pytest.mark.filterwarnings("error")
def test_an_array_that_cannot_be_written_is_copied() -> None:
    array = GOOD.copy()
    array.flags.writeable = False
    found = everything(array)["matrix"]
    found += 1
    assert array.tolist() == GOOD.tolist()


def test_tensors_and_what_else_fits_is_left_alone() -> None:
    matrix, labels = torch.ones(2, 3), np.array([0, 1])
    found = everything(matrix, labels, {"a": GOOD}, rows=(2, 3), count=np.int64(4), factor=2, flag=True,
                       dtype=torch.float32, name="x", anything=object)  # fmt: skip
    assert found["matrix"] is matrix
    assert found["labels"] is labels
    assert found["groups"]["a"].tolist() == GOOD.tolist()
    assert found["rows"] == [2, 3]
    assert (found["count"], found["factor"], found["flag"], found["dtype"]) == (4, 2, True, torch.float32)
    assert (found["name"], found["anything"]) == ("x", object)
    assert everything(matrix)["labels"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"matrix": None}, "matrix is None; pass a torch tensor or a numpy array"),
        ({"matrix": [[1.0]]}, "matrix is of type list; pass a torch tensor"),
        ({"matrix": "x" * 100}, "matrix is 'xxx.*\\.\\.\\.; pass a torch tensor"),
        ({"matrix": np.array(["a"])}, "matrix is a numpy array of <U1; pass numbers"),
        ({"matrix": np.array([None])}, "matrix is a numpy array of object; pass numbers"),
        ({"matrix": np.array([1j])}, "complex128; pass numbers"),
        ({"matrix": torch.ones(2, 2, device="meta")}, "matrix is on the meta device"),
        ({"matrix": torch.ones(2, 2).to_sparse()}, "matrix is sparse or quantized"),
        ({"labels": [0, 1]}, "labels is of type list"),
        ({"groups": [GOOD]}, "groups is of type list; pass a mapping from names"),
        ({"groups": {"a": [1.0]}}, r"groups\['a'\] is of type list; pass a torch tensor"),
        ({"rows": 5}, "rows is 5; pass a list"),
        ({"rows": "ab"}, "rows is 'ab'; pass a list"),
        ({"rows": [1, "b"]}, r"rows\[1\] is 'b'; pass a whole number"),
        ({"count": "x"}, "count is 'x'; pass a whole number"),
        ({"count": 1.5}, "count is 1.5; pass a whole number"),
        ({"count": True}, "count is True; pass a whole number"),
        ({"count": None}, "count is None; pass a whole number"),
        ({"factor": "x"}, "factor is 'x'; pass a number"),
        ({"flag": 1}, "flag is 1; pass True or False"),
        ({"dtype": "float32"}, "dtype is 'float32'; pass a torch dtype"),
        ({"name": 3}, "name is 3; pass text"),
    ],
)
def test_what_is_of_another_kind_is_refused_by_its_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        everything(**{"matrix": GOOD} | given)
    assert re.search(message, str(refusal.value))
    assert "\n" not in str(refusal.value)


def test_an_unknown_argument_is_pythons_own_to_refuse() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        everything(GOOD, colour="red")
