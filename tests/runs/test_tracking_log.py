"""The log of a run: what is in it, while it grows, after a crash, and when the run goes on."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from helpers.bit_flips import FLIPS, flipped

from ntk_lpft.errors import InputError
from ntk_lpft.runs.tracking_log import COLUMNS, Measurement, TrackingLog, read_tracking

HEADER = "step,epoch,split,measure,value,crc32\n"
PLAIN = "step,epoch,split,measure,value\n"


def moment(step: int) -> list[Measurement]:
    return [
        Measurement("all", "head_norm", 0.1 + step),
        Measurement("train", "loss", math.pi / (step + 1)),
        Measurement("ood.sst5", "linear_cka", math.nan),
    ]


def filled(path: Path, steps: tuple[int, ...] = (0, 1, 2, 4)) -> TrackingLog:
    log = TrackingLog(path)
    for step in steps:
        assert log.append(step, step / 3, moment(step))
    return log


def by_hand(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_rows_are_tidy_and_exact(tmp_path: Path) -> None:
    filled(tmp_path / "tracking.csv", (0, 1))
    rows = [
        "0,0.0,all,head_norm,0.1", "0,0.0,train,loss,3.141592653589793", "0,0.0,ood.sst5,linear_cka,",
        "1,0.3333333333333333,all,head_norm,1.1", "1,0.3333333333333333,train,loss,1.5707963267948966",
        "1,0.3333333333333333,ood.sst5,linear_cka,",
    ]  # fmt: skip
    sums = [zlib.crc32((HEADER + "".join(rows[: i + 1])).encode()) for i in range(len(rows))]
    expected = "".join(f"{row},{check:08x}\n" for row, check in zip(rows, sums, strict=True))
    assert (tmp_path / "tracking.csv").read_text() == HEADER + expected
    table = read_tracking(tmp_path / "tracking.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["step"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["step"].dtype == "int64"
    assert table["epoch"].tolist() == [0, 0, 0, 1 / 3, 1 / 3, 1 / 3]
    assert table["measure"].tolist() == ["head_norm", "loss", "linear_cka"] * 2
    assert table["value"].tolist()[:2] == [0.1, math.pi]
    assert math.isnan(table["value"][2])
    assert table["value"].dtype == "float64"


def test_unusual_values_survive(tmp_path: Path) -> None:
    log = TrackingLog(tmp_path / "tracking.csv")
    values = [math.inf, -math.inf, 5e-324, -0.0, 1.7976931348623157e308, 1e-5, 12345678901234567890.0]
    log.append(0, 0, [Measurement("NA", f'a "quoted", measure {i}', value) for i, value in enumerate(values)])
    table = read_tracking(log.path)
    assert table["value"].tolist() == values
    assert set(table["split"]) == {"NA"}
    assert table["measure"][0] == 'a "quoted", measure 0'


def test_an_empty_log_can_be_read(tmp_path: Path) -> None:
    log = TrackingLog(tmp_path / "new" / "tracking.csv")
    assert log.steps == ()
    assert log.path.read_text() == HEADER
    table = read_tracking(log.path)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 0
    assert table["value"].dtype == "float64"


def test_a_step_is_recorded_once(tmp_path: Path) -> None:
    log = filled(tmp_path / "tracking.csv")
    before = log.path.read_bytes()
    assert log.steps == (0, 1, 2, 4)
    for step in log.steps:
        assert not log.append(step, 0, moment(9))
    assert log.path.read_bytes() == before
    with pytest.raises(InputError, match="step 3 comes after step 4 was recorded"):
        log.append(3, 1, moment(3))
    assert log.path.read_bytes() == before


def test_a_moment_is_there_whole_when_append_returns(tmp_path: Path) -> None:
    """Another process sees it, though this one neither closes nor ends."""
    log = filled(tmp_path / "tracking.csv")
    script = "import csv, sys; print(len(list(csv.DictReader(open(sys.argv[1])))))"
    seen = subprocess.run([sys.executable, "-c", script, str(log.path)], capture_output=True, text=True, check=True)
    assert int(seen.stdout) == 12


def test_every_append_is_one_write_and_reaches_the_disk(tmp_path: Path, monkeypatch) -> None:
    log = filled(tmp_path / "tracking.csv")
    sizes: list[int] = []
    original = os.fsync

    def noted(descriptor: int) -> None:
        original(descriptor)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", noted)
    log.append(8, 1.0, moment(8))
    assert sizes == [log.path.stat().st_size]


def test_a_new_log_does_not_replace_one_with_rows(tmp_path: Path) -> None:
    log = filled(tmp_path / "tracking.csv", (0,))
    before = log.path.read_bytes()
    with pytest.raises(InputError, match=r"tracking\.csv has rows already"):
        TrackingLog(log.path)
    assert log.path.read_bytes() == before
    log.path.write_text(HEADER[:9])  # a run that was killed at once
    assert TrackingLog(log.path).path.read_text() == HEADER


@pytest.mark.parametrize(("resume_step", "kept"), [(0, ()), (1, (0,)), (2, (0, 1)), (3, (0, 1, 2)), (9, (0, 1, 2, 4))])
def test_going_on_keeps_what_was_before_the_checkpoint(resume_step: int, kept: tuple[int, ...], tmp_path: Path) -> None:
    path = filled(tmp_path / "tracking.csv").path
    resumed = TrackingLog(path, resume_step)
    assert resumed.steps == kept
    # The rows of the checkpoint's own step are to be measured again.
    assert resumed.to_repeat == (resume_step if resume_step in (0, 1, 2, 4) else None)
    filled(tmp_path / "expected.csv", kept)
    assert path.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["expected.csv", "tracking.csv"]


def test_going_on_without_a_log_begins_one(tmp_path: Path) -> None:
    log = TrackingLog(tmp_path / "tracking.csv", 5)
    assert log.steps == ()
    assert log.to_repeat is None
    assert log.path.read_text() == HEADER


def test_a_file_cut_off_anywhere(tmp_path: Path, monkeypatch) -> None:
    """At every byte of the header, and of the last two moments with a checkpoint at the first of them.

    Reading gives whole rows only; going on and measuring again gives the file of a run that was never cut off.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of them take long
    whole = filled(tmp_path / "whole.csv").path.read_bytes()
    table = read_tracking(tmp_path / "whole.csv")
    start_of_two = whole.index(b"\n2,") + 1
    path = tmp_path / "tracking.csv"
    for size in [*range(len(HEADER) + 1), *range(start_of_two, len(whole) + 1)]:
        path.write_bytes(whole[:size])
        rows = max(whole[:size].count(b"\n") - 1, 0)
        assert read_tracking(path).equals(table[:rows])
        steps = (0, 1, 2, 4) if size <= len(HEADER) else (2, 4)
        resumed = TrackingLog(path, steps[0])
        for step in steps:
            assert resumed.append(step, step / 3, moment(step)), f"cut off after {size} bytes"
        assert path.read_bytes() == whole, f"cut off after {size} bytes"


def test_a_write_that_fails_half_way_leaves_no_trace(tmp_path: Path, monkeypatch) -> None:
    log = filled(tmp_path / "tracking.csv")
    before = log.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            log.append(8, 1.0, moment(8))
    assert log.path.read_bytes() == before
    assert log.append(8, 1.0, moment(8))
    assert len(by_hand(log.path)) == 1 + 5 * 3


def test_a_failure_while_going_on_loses_nothing(tmp_path: Path, monkeypatch) -> None:
    path = filled(tmp_path / "tracking.csv").path
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        TrackingLog(path, 2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["tracking.csv"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "is no tracking log"),
        ("a,b", "is no tracking log"),
        ("\n" + HEADER, "is no tracking log"),
        (PLAIN + "0,0.0,train,loss\n", "line 2 is no row"),
        (PLAIN + "0,0.0,train,loss,1\n\n", "line 3 is no row"),
        (PLAIN + "0,0.0,train,loss,high\n", "line 2 is no row"),
        (PLAIN + "0.5,0.0,train,loss,1\n", "line 2 is no row"),
        (PLAIN + "0,0.0,train,loss,1\n\0\0\0\n", "line 3 is no row"),
        (PLAIN + "9223372036854775808,0.0,train,loss,1\n", "line 2: step 9223372036854775808 and epoch 0.0 cannot be"),
        (PLAIN + "-1,0.0,train,loss,1\n", "line 2: step -1 and"),
        (PLAIN + "1,inf,train,loss,1\n", "epoch inf cannot be"),
        (PLAIN + "1,nan,train,loss,1\n", "epoch nan cannot be"),
        (HEADER + "0,0.0,train,loss,1\n", "line 2 was altered or damaged"),
        (HEADER + "0,0.0,train,loss,1,00000000\n", "line 2 was altered or damaged"),
    ],
)
def test_files_that_are_no_log_stay_as_they_are(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tracking.csv"
    path.write_text(content)
    for opened in (read_tracking, lambda p: TrackingLog(p, 3), TrackingLog):
        with pytest.raises(InputError, match=words):
            opened(path)
    assert path.read_text() == content


def test_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_tracking(tmp_path / "tracking.csv")


def test_any_flipped_bit_is_seen(tmp_path: Path) -> None:
    """Also by a log that goes on; not even an end of line that became another byte passes as a row cut off."""
    path = filled(tmp_path / "tracking.csv", (0, 1)).path
    assert flipped(path, lambda: read_tracking(path).to_csv()) == FLIPS
    whole = path.read_bytes()
    for bit in range(8):
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1 << bit]))
        for opened in (read_tracking, lambda p: TrackingLog(p, 3)):
            with pytest.raises(InputError, match="line 7 was altered or damaged"):
                opened(path)


def test_rows_that_are_gone_doubled_or_exchanged_are_seen(tmp_path: Path) -> None:
    path = filled(tmp_path / "tracking.csv").path
    header, *rows = path.read_text().splitlines(keepends=True)
    for altered in (rows[1:], [rows[0], *rows], [rows[1], rows[0], *rows[2:]], rows[:3] + rows[6:]):
        path.write_text(header + "".join(altered))
        for opened in (read_tracking, lambda p: TrackingLog(p, 3)):
            with pytest.raises(InputError, match=r"line \d was altered or damaged"):
                opened(path)


def test_a_log_of_an_earlier_version_is_read_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "tracking.csv"
    path.write_text(PLAIN + "0,0.0,all,head_norm,0.1\n3,1.0,all,head_norm,3.1\n")
    assert read_tracking(path)["value"].tolist() == [0.1, 3.1]
    log = TrackingLog(path, 3)
    assert log.append(3, 1.0, [Measurement("all", "head_norm", 3.1)])
    assert path.read_text().startswith(HEADER)
    assert read_tracking(path)["value"].tolist() == [0.1, 3.1]


def test_names_with_line_breaks_are_refused(tmp_path: Path) -> None:
    log = filled(tmp_path / "tracking.csv")
    before = log.path.read_bytes()
    with pytest.raises(InputError, match="a line break in"):
        log.append(8, 1.0, [Measurement("ood.a\nb", "loss", 1.0)])
    assert log.path.read_bytes() == before
