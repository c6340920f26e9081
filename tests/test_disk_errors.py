"""Paths that are no files are refused in one line, by whatever reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ntk_lpft.calibration import read_predictions
from ntk_lpft.classifier.head_file import load_head
from ntk_lpft.disk_errors import check_is_file
from ntk_lpft.errors import InputError
from ntk_lpft.runs.tracking_log import read_tracking
from ntk_lpft.storage import read_tensors
from ntk_lpft.tasks import load_files

READERS: dict[str, Callable[[Path], object]] = {
    "check_is_file": check_is_file,
    "load_files": load_files,
    "load_head": load_head,
    "read_predictions": lambda path: read_predictions(path, path, "test"),
    "read_tensors": read_tensors,
    "read_tracking": read_tracking,
}
SUFFIXES = {"load_files": ".csv", "read_predictions": ".csv", "read_tracking": ".csv"}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such file"),
        (lambda path: path.with_name("x" * 5000 + path.suffix), "cannot be read"),
        (lambda path: path.with_name("x\0" + path.suffix), "no such file"),
        (lambda path: path.mkdir() or path, "is not a file"),
        (lambda path: os.mkfifo(path) or path, "is not a file"),
        (lambda path: path.symlink_to(path) or path, "no such file"),
    ],
    ids=["missing", "too long", "NUL", "folder", "pipe", "link to itself"],
)
def test_what_is_no_file(tmp_path: Path, name: str, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        READERS[name](make(tmp_path / f"x{SUFFIXES.get(name, '.safetensors')}"))
    assert len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)
