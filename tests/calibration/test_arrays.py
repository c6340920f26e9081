"""Logits and labels from files: every format gives the same numbers, and what is none is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ntk_lpft.calibration import Predictions, read_predictions
from ntk_lpft.calibration.predictions import to_array
from ntk_lpft.errors import InputError

LOGITS = np.array([[0.1, -2.5, 3.0], [1e-7, 4.0, -1.0], [2.0, 2.5, 1e5], [0.0, -0.0, 0.25]])
LABELS = np.array([2, 1, 0, 2])


def as_npy(folder: Path) -> tuple[Path, Path]:
    np.save(folder / "f.npy", LOGITS, allow_pickle=False)
    np.save(folder / "y.npy", LABELS, allow_pickle=False)
    return folder / "f.npy", folder / "y.npy"


def as_table(separator: str, header: bool, mark: str = "", end: str = "\n") -> Callable[[Path], tuple[Path, Path]]:
    def write(folder: Path) -> tuple[Path, Path]:
        kind = {",": "csv", "\t": "tsv"}[separator]
        rows = [separator.join(map(repr, map(float, row))) for row in LOGITS]
        labels = [str(label) for label in LABELS]
        if header:
            rows.insert(0, separator.join(["negative", "neutral", "positive"]))
            labels.insert(0, "label")
        for name, lines in (("f", rows), ("y", labels)):
            (folder / f"{name}.{kind}").write_bytes((mark + end.join(lines) + end).encode())
        return folder / f"f.{kind}", folder / f"y.{kind}"

    return write


def as_safetensors(folder: Path) -> tuple[Path, Path]:
    save_file({"scores": torch.from_numpy(LOGITS)}, folder / "f.safetensors")
    save_file({"labels": torch.from_numpy(LABELS), "other": torch.zeros(2)}, folder / "y.safetensors")
    return folder / "f.safetensors", folder / "y.safetensors"


@pytest.mark.parametrize(
    "write",
    [as_npy, as_safetensors, *(as_table(separator, header) for separator in (",", "\t") for header in (True, False)),
     as_table(",", True, mark="\ufeff", end="\r\n"), as_table(",", False, mark="\ufeff", end="\r\n")],
    ids=["npy", "safetensors", "csv with header", "csv", "tsv with header", "tsv", "Excel's csv with header",
         "Excel's csv"],
)  # fmt: skip
def test_every_format_gives_the_same_numbers(tmp_path: Path, write: Callable[[Path], tuple[Path, Path]]) -> None:
    found = read_predictions(*write(tmp_path), "validation")
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits, LOGITS)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.logits.dtype == np.float64


def test_one_safetensors_with_both(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    save_file({"logits": torch.from_numpy(LOGITS).bfloat16(), "labels": torch.from_numpy(LABELS)}, path)
    found = read_predictions(path, None, "test")
    assert isinstance(found, Predictions)
    np.testing.assert_array_equal(found.logits, torch.from_numpy(LOGITS).bfloat16().double().numpy())
    np.testing.assert_array_equal(found.labels, LABELS)
    with (tmp_path / "F.NPY").open("wb") as file:
        np.save(file, LOGITS)
    np.testing.assert_array_equal(read_predictions(tmp_path / "F.NPY", path, "test").logits, LOGITS)


def test_labels_that_a_format_holds_as_floats(tmp_path: Path) -> None:
    logits, _ = as_npy(tmp_path)
    np.save(tmp_path / "column.npy", LABELS[:, None].astype(np.float32))
    np.testing.assert_array_equal(read_predictions(logits, tmp_path / "column.npy", "test").labels, LABELS)
    for values in (LABELS + 0.5, np.array([0, 1, np.nan, 0]), np.array([0, 1, np.inf, 0])):
        np.save(tmp_path / "odd.npy", values)
        with pytest.raises(InputError, match="not all whole numbers; give class indices"):
            read_predictions(logits, tmp_path / "odd.npy", "test")


BAD: dict[str, tuple[str, bytes, str]] = {
    "missing": ("f.npy", b"", "no such file"),
    "another format": ("f.parquet", b"x", "not of a format that can be read; use one of .safetensors, .npy, .csv"),
    "a pickle": ("f.pkl", b"x", "not of a format that can be read"),
    "no npy": ("f.npy", b"hello", "no npy file of plain numbers"),
    "no safetensors": ("f.safetensors", b"hello", "no safetensors file"),
    "words": ("f.csv", b"a,b\n1,2\nx,3\n", "no table of numbers"),
    "ragged": ("f.csv", b"1,2\n3,4,5\n", "no table of numbers"),
    "an index": ("f.csv", b",a,b\n0,1,2\n1,3,4\n", "first column has no name, as if it counted rows"),
    "nothing": ("f.csv", b"", "no table of numbers"),
    "a gap": ("f.csv", b"a,b\n1,2\n3,\n", "no table of numbers"),
    "no text": ("f.csv", b"\xff\xfe\x00", "no table of numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_array_is_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "good").mkdir()
    _, labels = as_npy(tmp_path / "good")
    name, content, words = BAD[case]
    path = tmp_path / name
    if case != "missing":
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_predictions(path, labels, "validation")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_would_run_code_or_hold_several_arrays(tmp_path: Path) -> None:
    _, labels = as_npy(tmp_path)
    np.save(tmp_path / "objects.npy", np.array([[{}, {}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="no npy file of plain numbers"):
        read_predictions(tmp_path / "objects.npy", labels, "test")
    np.savez(tmp_path / "several.npz", a=LOGITS, b=LOGITS)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    with pytest.raises(InputError, match="archive of several arrays"):
        read_predictions(tmp_path / "several.npy", labels, "test")
    save_file({"a": torch.zeros(4, 3), "b": torch.zeros(4, 3)}, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="has no tensor 'logits'; it has a, b"):
        read_predictions(tmp_path / "two.safetensors", labels, "test")
    save_file({"logits": torch.zeros(4, 3)}, tmp_path / "alone.safetensors")
    with pytest.raises(InputError, match="has no tensor 'labels'; it has logits"):
        read_predictions(tmp_path / "alone.safetensors", None, "test")
    with pytest.raises(InputError, match="has no labels; give them as well"):
        read_predictions(tmp_path / "f.npy", None, "test")


@pytest.mark.parametrize("odd", [torch.ones(2, 2).to_sparse(), torch.ones(2, 2, device="meta")])
def test_tensors_without_an_array_of_numbers_are_refused(odd: torch.Tensor) -> None:
    with pytest.raises(InputError, match="sparse or holds no data"):
        to_array(odd)
