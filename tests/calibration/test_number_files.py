"""Files of numbers as they come from pandas, numpy and spreadsheets: nothing that is no logit is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import softmax

from ntk_lpft.calibration import fit_temperature, read_predictions
from ntk_lpft.calibration.arrays import read_named
from ntk_lpft.errors import InputError

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((12, 3)).round(6)
LABELS = np.array([0, 1, 2] * 4)
FRAME = pd.DataFrame(LOGITS)


def saved(folder: Path, table: pd.DataFrame, name: str = "f.csv", **how: object) -> Path:
    table.to_csv(folder / name, **{"index": False, **how})  # type: ignore[call-overload]
    return folder / name


def npy(folder: Path, array: np.ndarray, name: str = "y.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize("headed", [True, False])
@pytest.mark.parametrize("labels", ["csv with header", "csv with 0 over it", "csv", "npy"])
@pytest.mark.parametrize("first", [0, 1])
def test_pandas_own_header_is_no_sample(tmp_path: Path, headed: bool, labels: str, first: int) -> None:
    classes = (LABELS + first) % 3  # begins with 0 or 1
    path = saved(tmp_path, FRAME, header=headed)
    if labels == "npy":
        other = npy(tmp_path, classes)
    else:
        name = "label" if labels == "csv with header" else "0"
        other = saved(tmp_path, pd.DataFrame({name: classes}), "y.csv", header=labels != "csv")
    found = read_predictions(path, other, "validation")
    assert found.logits is not None
    np.testing.assert_allclose(found.logits, LOGITS)
    np.testing.assert_array_equal(found.labels, classes)


def test_a_sample_that_counts_is_a_sample_where_the_labels_say_so(tmp_path: Path) -> None:
    whole = np.array([[0, 1, 2], [2, 1, 0], [5, 1, 3]])
    path = saved(tmp_path, pd.DataFrame(whole), header=False)
    for labels in (npy(tmp_path, LABELS[1:4]), saved(tmp_path, pd.DataFrame([1, 2, 0]), "y.csv", header=False)):
        found = read_predictions(path, labels, "validation")
        np.testing.assert_array_equal(found.logits, whole)
    with pytest.raises(InputError, match="the first line may be a header or a sample; write names over the columns"):
        read_predictions(path, saved(tmp_path, pd.DataFrame([0, 2, 1]), "y.csv", header=False), "validation")


@pytest.mark.parametrize("name", ["index", "id", "ID", "label", "Labels", "target", "Unnamed: 0", "pred"])
def test_columns_with_the_name_of_something_else(tmp_path: Path, name: str) -> None:
    table = FRAME.set_axis(["a", "b", "c"], axis=1)
    table.insert(1, name, RNG.standard_normal(12))
    with pytest.raises(InputError, match=rf"column 1 \('{name}'\) holds an index, ids or labels, .*its name says so"):
        read_predictions(saved(tmp_path, table), npy(tmp_path, LABELS), "validation")


OTHERS: dict[str, tuple[np.ndarray, str]] = {
    "an index": (np.arange(12), "it counts the rows"),
    "an index from 1": (np.arange(1, 13), "it counts the rows"),
    "ids": (np.array([101, 7, 33] * 4), "it has whole numbers alone, other columns have not"),
    "labels": (LABELS, "it is equal to the labels"),
    "predictions": (np.array([0, 0, 1] * 4), "it has whole numbers alone, other columns have not"),
}


@pytest.mark.parametrize("kind", ["csv", "csv with names", "npy", "safetensors"])
@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("place", [0, 3])
def test_columns_that_hold_something_else(tmp_path: Path, kind: str, case: str, place: int) -> None:
    column, why = OTHERS[case]
    table = np.insert(LOGITS, place, column, axis=1)
    if kind == "safetensors":
        path = tmp_path / "f.safetensors"
        save_file({"logits": torch.from_numpy(table)}, path)
    elif kind == "npy":
        path = npy(tmp_path, table, "f.npy")
    else:
        path = saved(tmp_path, pd.DataFrame(table, columns=list("abcd")), header=kind == "csv with names")
    with pytest.raises(InputError, match=rf"column {place} .*holds an index, ids or labels, no logits: {why}; leave"):
        read_predictions(path, npy(tmp_path, LABELS), "validation")


def test_whole_logits_and_masked_classes_are_logits(tmp_path: Path) -> None:
    labels = npy(tmp_path, LABELS)
    for table in (
        np.rint(LOGITS * 5),
        np.insert(LOGITS, 3, -1e4, axis=1),
        np.stack([0 * LOGITS[:, 0], LOGITS[:, 1]], 1),
    ):
        chosen = labels if table.shape[1] > 2 else npy(tmp_path, LABELS % 2, "two.npy")
        found = read_predictions(npy(tmp_path, table, "f.npy"), chosen, "validation")
        np.testing.assert_array_equal(found.logits, table)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_probabilities_become_their_logarithms(tmp_path: Path, kind: type) -> None:
    logits = LOGITS + np.eye(3)[LABELS]
    p = softmax(logits, axis=1).astype(kind)
    with pytest.warns(UserWarning, match="holds probabilities, not logits; their logarithms are calibrated"):
        found = read_predictions(npy(tmp_path, p, "f.npy"), npy(tmp_path, LABELS), "validation")
    assert found.logits is not None
    precise = float(np.finfo(kind).eps)
    expected = fit_temperature(logits, LABELS).temperature
    assert fit_temperature(found.logits, LABELS).temperature == pytest.approx(expected, rel=100 * precise + 1e-9)
    p[0] = [1, 0, 0]
    with pytest.raises(InputError, match="holds probabilities, 2 of them 0, which have no logits; give the logits"):
        read_predictions(npy(tmp_path, p, "f.npy"), npy(tmp_path, LABELS), "validation")
    with pytest.raises(InputError, match="rows of the logits sum to one, as probabilities do; pass the logits"):
        fit_temperature(softmax(LOGITS, axis=1), LABELS)


def test_labels_may_be_names_of_columns(tmp_path: Path) -> None:
    path = saved(tmp_path, FRAME.set_axis(["bad", "fair", "good"], axis=1))
    for header in (True, False):
        named = pd.DataFrame({"label": np.array(["bad", "fair", "good"])[LABELS]})
        found = read_predictions(path, saved(tmp_path, named, "y.csv", header=header), "validation")
        np.testing.assert_array_equal(found.labels, LABELS)
    unknown = saved(tmp_path, pd.DataFrame({"label": ["bad", "poor"] * 6}), "y.csv")
    with pytest.raises(InputError, match=r"not all names of columns .* \('bad' in row 0\)|'poor' in row 1"):
        read_predictions(path, unknown, "validation")


def test_columns_in_another_order_are_put_right_by_name(tmp_path: Path) -> None:
    names = ("bad", "fair", "good")
    order = [2, 0, 1]
    other = saved(tmp_path, FRAME.set_axis(names, axis=1)[[names[i] for i in order]], "test.csv")
    labels = saved(tmp_path, pd.DataFrame({"label": np.array(names)[LABELS]}), "y.csv")
    found, found_names = read_named(other, labels, "test", like=names)
    assert found_names == names
    np.testing.assert_allclose(found.logits, LOGITS)
    np.testing.assert_array_equal(found.labels, LABELS)
    with pytest.raises(InputError, match="are in another order than those of validation, and its labels are numbers"):
        read_named(other, npy(tmp_path, LABELS), "test", like=names)
    with pytest.raises(InputError, match=r"columns of test .* are good, bad, fair, those of validation a, b, c"):
        read_named(other, labels, "test", like=("a", "b", "c"))


def bomb(folder: Path) -> Path:
    """Write an npy file whose header tells of petabytes."""
    path = folder / "bomb.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": (10**13, 3), "fortran_order": False, "descr": "<f8"})
        file.write(b"\0" * 64)
    return path


def text(content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "f.csv").write_text(content)
        return folder / "f.csv"

    return write


def coarse(folder: Path) -> Path:
    save_file({"logits": torch.zeros(4, 3).to(torch.float8_e4m3fn)}, folder / "f.safetensors")
    return folder / "f.safetensors"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a header of petabytes": (bomb, "is cut off: its header tells of"),
    "huge whole numbers": (text("1,2\n" + "9" * 400 + ",2\n"), "NaN or infinite"),
    "a line without end": (text("1," * 200_000 + "1\n"), "its first line is too long"),
    "a cell without end": (text('"' + "x" * 20_000_000 + '"'), "its first line is too long"),
    "numbers of eight bits": (coarse, "dtype torch.float8_e4m3fn; save them as float32"),
    "a short line": (text("1,2\n3\n"), "no table of numbers .'' in row 1, column 1"),
    "a name beyond all": (lambda folder: folder / ("x" * 3000 + ".npy"), "check the path"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_no_classifier_gives(tmp_path: Path, case: str) -> None:
    write, words = BAD[case]
    path, labels = write(tmp_path), npy(tmp_path, np.array([0, 1]))
    with pytest.raises(InputError, match=words):
        read_predictions(path, labels, "validation")
