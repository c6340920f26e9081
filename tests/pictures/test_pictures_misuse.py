"""What pictures are given wrong is refused in one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ntk_lpft.errors import InputError
from ntk_lpft.pictures import block_heat_maps, empty_figure, group_shares, save, singular_values, training_curves

pytestmark = pytest.mark.unchecked
ONES = torch.ones(2, 2)
Y = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_shares({"a": "x"}), r"shares\['a'\] is 'x'; pass a number"),
        (lambda: group_shares(["a"]), "shares is of type list; pass a mapping"),
        (lambda: group_shares(None), "shares is None"),
        (lambda: group_shares({"a": 1.0}, measure=5), "measure is 5; pass text"),
        (lambda: singular_values([ONES]), "spectra is of type list; pass a mapping"),
        (lambda: singular_values({"P": "x"}), r"spectra\['P'\] is 'x'; pass a torch tensor or a numpy array"),
        (lambda: block_heat_maps(None, ONES, Y, ["a", "b"]), "p_blocks is None; pass a torch tensor or a numpy array"),
        (lambda: block_heat_maps(ONES, ONES, [0, 1], ["a", "b"]), "labels is of type list; pass a torch tensor"),
        (lambda: block_heat_maps(ONES, ONES, Y, None), "label_names is None; pass a list"),
        (lambda: training_curves(ONES), "tracking is of type Tensor; pass of type DataFrame"),
        (lambda: save(None, "x.png"), "figure is None; pass of type Figure"),
        (lambda: save(empty_figure(1, 1), None), "path is None; pass text or a path"),
    ],
)
def test_arguments(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_arrays_are_taken_for_tensors() -> None:
    assert block_heat_maps(ONES.numpy(), np.ones((2, 2)), Y.numpy(), ("a", "b"))
    assert group_shares({"a": np.float32(0.5), "b": 1})


def test_a_place_that_refuses_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        save(empty_figure(1, 1), tmp_path / "file" / "x.png")
