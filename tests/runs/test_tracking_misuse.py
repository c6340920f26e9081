"""What a tracking log and its reader are given wrong is refused in one line, and the log is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.runs.tracking_log import Measurement, TrackingLog, read_tracking

pytestmark = pytest.mark.unchecked


@pytest.mark.parametrize("path", [None, 5, b"x", []])
def test_paths(path: Any) -> None:
    for call in (read_tracking, TrackingLog):
        with pytest.raises(InputError, match=r"path is .*; pass text or a path"):
            call(path)


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give the path of a file"):
        TrackingLog(tmp_path)
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    ("step", "epoch", "measurements", "message"),
    [
        ("x", 0.0, [], "step is 'x'; pass a whole number"),
        (1, "x", [], "epoch is 'x'; pass a number"),
        (1, 0.5, None, "measurements is None; pass a list"),
        (1, 0.5, [1.0], r"measurements\[0\] is 1.0; pass of type Measurement"),
        (1, 0.5, [Measurement("train", "loss", "x")], "'train', 'loss', 'x' is no measurement"),
        (1, 0.5, [Measurement(None, "loss", 1.0)], "None, 'loss', 1.0 is no measurement"),
    ],
)
def test_rows(tmp_path: Path, step: Any, epoch: Any, measurements: Any, message: str) -> None:
    log = TrackingLog(tmp_path / "tracking.csv")
    log.append(0, 0.0, [Measurement("train", "loss", 1.0)])
    before = log.path.read_bytes()
    with pytest.raises(InputError, match=message):
        log.append(step, epoch, measurements)
    assert log.path.read_bytes() == before
    assert log.append(2, 1.0, [Measurement("train", "loss", 2.0)])


def test_a_step_that_no_number_holds(tmp_path: Path) -> None:
    path = tmp_path / "tracking.csv"
    path.write_text(f"step,epoch,split,measure,value\n{10**30},0.0,train,loss,1.0\n")
    with pytest.raises(InputError, match="line 2"):
        read_tracking(path)
