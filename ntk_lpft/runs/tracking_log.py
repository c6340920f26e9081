"""What was measured during training, as one tidy csv that grows moment by moment."""

import csv
import io
import math
import os
import zlib
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ntk_lpft.arguments import checked
from ntk_lpft.disk_errors import check_is_file, named_disk_errors
from ntk_lpft.errors import InputError
from ntk_lpft.storage import whole_file

COLUMNS = ("step", "epoch", "split", "measure", "value")
TRAIN = "train"
ALL = "all"  # the split of what has no samples
CHECK = "crc32"  # the last column of a log: of the file up to there, without this column
_PLAIN_HEADER = (",".join(COLUMNS) + "\n").encode()  # of tables that are written as a whole
_HEADER = (",".join([*COLUMNS, CHECK]) + "\n").encode()
_FIRST_CHECK = zlib.crc32(_HEADER)


class Measurement(NamedTuple):
    """One measured number.

    Attributes:
        split: On which samples, such as ``train`` or ``ood.sst5``; ``all`` for what belongs to no samples.
        measure: What was measured.
        value: The number; NaN where it is undefined.
    """

    split: str
    measure: str
    value: float


class TrackingLog:
    """The file ``tracking.csv`` of a run, with the columns step, epoch, split, measure, value and crc32.

    The last column is a checksum over all that stands in the other columns, down to its row: a log that was altered is
    refused, while it grows and afterwards. The rows of one moment (one optimizer step) are written in one go and are on
    the disk when ``append`` returns. An undefined value (NaN) is an empty field. ``read_tracking`` may read the file at
    any time.

    A run that goes on from a checkpoint keeps the rows before the checkpoint's step. The rows of later steps are
    dropped, as those steps are trained again, and so are those of the step itself, which the crash may have cut off:
    they are measured again on the checkpoint's weights, of which ``to_repeat`` reminds.

    Args:
        path: The file.
        resume_step: The step of the checkpoint that training goes on from; 0 for a run that broke off before its first;
            None for a new log.

    Attributes:
        path: The file.
        to_repeat: The checkpoint's step, where rows of it were dropped; else None.

    Raises:
        InputError: There are rows already and no ``resume_step``, or the file is no tracking log.
    """

    @checked
    def __init__(self, path: str | Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.to_repeat: int | None = None
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; give the path of a file")
        kept: list[bytes] = []
        self._check = _FIRST_CHECK
        self._steps: list[int] = []
        for (step, *_), text in _complete_rows(self.path):
            if resume_step is None:
                raise InputError(f"{self.path} has rows already; resume that run, or start anew with --overwrite")
            if step < resume_step:
                kept.append(self._with_check(text))
                self._steps.append(step)
            elif step == resume_step:
                self.to_repeat = step
        self._steps = sorted(set(self._steps))
        self._rewrite(_HEADER + b"".join(kept))

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that have been recorded, ascending."""
        return tuple(self._steps)

    @checked
    def append(self, step: int, epoch: float, measurements: Iterable[Measurement]) -> bool:
        """Record one moment, unless there are rows of its step already.

        Args:
            step: Optimizer steps done.
            epoch: Epochs done, a fraction within an epoch.
            measurements: What was measured.

        Returns:
            Whether anything was written.

        Raises:
            InputError: The step lies before one that has been recorded.
            OSError: The file cannot be written; it is then as it was before.
        """
        if step in self._steps:
            return False
        if self._steps and step < self._steps[-1]:
            raise InputError(
                f"{self.path}: step {step} comes after step {self._steps[-1]} was recorded; "
                "open the log with the checkpoint's step"
            )
        rows = [self._row(int(step), float(epoch), *measured) for measured in measurements]
        before = self._check
        try:
            self._write(b"".join(map(self._with_check, rows)))
        except BaseException:
            self._check = before
            raise
        self._steps.append(step)
        return True

    def _row(self, step: int, epoch: float, split: str, measure: str, value: float) -> bytes:
        if not isinstance(value, Real) or not isinstance(split, str) or not isinstance(measure, str):
            given = f"{split!r}, {measure!r}, {value!r}"[:100]
            raise InputError(f"{self.path}: {given} is no measurement; give two names and a number")
        text = io.StringIO()
        number = "" if math.isnan(value) else repr(float(value))
        csv.writer(text, lineterminator="").writerow([step, repr(epoch), split, measure, number])
        if "\n" in text.getvalue():
            raise InputError(f"{self.path}: a line break in {split!r} or {measure!r}; give it another name")
        return text.getvalue().encode()

    def _with_check(self, text: bytes) -> bytes:
        """Put the checksum behind a row that is to be the next, and an end of line behind that."""
        self._check = zlib.crc32(text, self._check)
        return b"%s,%08x\n" % (text, self._check)

    def _write(self, data: bytes) -> None:
        with named_disk_errors(self.path), open(self.path, "r+b", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(before)
                raise

    def _rewrite(self, data: bytes) -> None:
        """Replace the file by one that appears whole or not at all."""
        with whole_file(self.path) as partial:
            partial.write_bytes(data)


@checked
def read_tracking(path: str | Path) -> pd.DataFrame:
    """Read a tracking log, which may be being written.

    Args:
        path: The file, or another of the same columns, with or without the checksums.

    Returns:
        A table with the columns step (int), epoch (float), split, measure (text) and value (float, NaN where it is
        undefined); without the last line where that is not complete yet.

    Raises:
        InputError: The file is missing, no tracking log, or was altered.
    """
    path = Path(path)
    check_is_file(path)
    rows = [row for row, _ in _complete_rows(path)]
    # By Python's own float, which reads back the very bits that were written.
    columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
    kinds = ("int64", "float64", "str", "str", "float64")
    return pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in zip(COLUMNS, kinds, strict=True)})


class _Row(NamedTuple):
    step: int
    epoch: float
    split: str
    measure: str
    value: float


def _complete_rows(path: Path) -> list[tuple[_Row, bytes]]:
    """Read the complete lines below the header.

    Args:
        path: The log.

    Returns:
        Each line as a row and as its bytes, without checksum and end of line; none where the file is missing or empty.

    Raises:
        InputError: A complete line is no row, or its checksum does not fit.
    """
    content = path.read_bytes() if path.is_file() else b""
    complete = content[: content.rfind(b"\n") + 1]
    header, *lines = complete.split(b"\n")[:-1] or [_HEADER[:-1]]
    # A header that is torn is the beginning of the header.
    if header + b"\n" not in (_HEADER, _PLAIN_HEADER) or not (complete or _HEADER.startswith(content)):
        raise InputError(f"{path} is no tracking log: its first line is not {_HEADER.decode().strip()}")
    rows, check = [], _FIRST_CHECK
    for number, line in enumerate(lines, start=2):
        where, text = f"{path}, line {number}", line
        if header + b"\n" == _HEADER:
            text, _, written = line.rpartition(b",")
            check = zlib.crc32(text, check)
            if written != b"%08x" % check:
                raise _altered(where)
        rows.append((_parsed(text, where), text))
    text, _, written = content[len(complete) : -1].rpartition(b",")
    if header + b"\n" == _HEADER and written == b"%08x" % zlib.crc32(text, check):
        raise _altered(f"{path}, line {len(lines) + 2}")  # whole, but for an end of line that became another byte
    return rows


def _altered(where: str) -> InputError:
    return InputError(f"{where} was altered or damaged (its checksum does not fit)")


def _parsed(text: bytes, where: str) -> _Row:
    try:
        (fields,) = csv.reader([text.decode()])
        step, epoch, split, measure, value = fields
        row = _Row(int(step), float(epoch), split, measure, float(value or "nan"))
    except (ValueError, csv.Error) as error:
        raise InputError(f"{where} is no row of {', '.join(COLUMNS)}; the file was altered or damaged") from error
    if not 0 <= row.step < 2**63 or not 0 <= row.epoch < math.inf:
        raise InputError(f"{where}: step {step} and epoch {epoch} cannot be; the file was altered or damaged")
    return row
