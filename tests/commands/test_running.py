"""Whatever the machine lacks, a command says so in one line and leaves with the status of bad input."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ntk_lpft.commands.running import run_command
from ntk_lpft.disk_errors import named_disk_errors
from ntk_lpft.errors import InputError


def fail(error: BaseException) -> None:
    raise error


def said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "make room on that disk; then give --resume"),
        (errno.EDQUOT, "make room within your quota"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "give another path"),
        (errno.ENOTDIR, "give another path"),
        (errno.EROFS, "give another path"),
        (errno.EACCES, "give another path"),
    ],
)
def test_errors_of_the_file_system(capsys: pytest.CaptureFixture[str], number: int, hint: str) -> None:
    error = OSError(number, os.strerror(number), "some/file")
    assert run_command(lambda: fail(error), "give --resume") == 2
    line = said(capsys)
    assert line.startswith(f"some/file: {os.strerror(number)}; ")
    assert hint in line


def test_messages_stay_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: fail(InputError(f"cell {'x' * 10_000} is wrong; correct it"))) == 2
    line = said(capsys)
    assert line.startswith("cell xxx")
    assert line.endswith("is wrong; correct it")
    assert len(line) < 1010


def test_an_error_of_another_kind_is_a_fault_of_the_program() -> None:
    for error in (OSError("some library's own"), OSError(errno.EDOM, "domain"), RuntimeError("shape mismatch")):
        with pytest.raises(type(error)):
            run_command(lambda error=error: fail(error))


def test_exhausted_memory(capsys: pytest.CaptureFixture[str]) -> None:
    def of_torch() -> None:
        torch.empty(2**60, dtype=torch.uint8)

    def of_numpy() -> None:
        np.zeros((10**9, 10**9))

    for exhaust in (of_torch, of_numpy, lambda: fail(MemoryError())):
        assert run_command(exhaust, less_memory="give a smaller --memory-budget") == 2
        line = said(capsys)
        assert line.startswith("memory is exhausted")
        assert line.endswith("; give a smaller --memory-budget")
    assert run_command(lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))) == 2
    assert said(capsys) == "memory is exhausted (2.00 GiB more were needed); give fewer or smaller files"


def test_errors_without_a_name_are_given_one() -> None:
    def named(error: Exception) -> OSError:
        with pytest.raises(OSError, match="No space left") as caught, named_disk_errors(Path("run/file")):
            raise error
        return caught.value

    full = "No space left on device"
    assert named(OSError(errno.ENOSPC, full)).filename == "run/file"
    assert named(OSError(errno.ENOSPC, full, "other")).filename == "other"
    rust = named(ValueError(f"Error while serializing: I/O error: {full} (os error {errno.ENOSPC})"))
    assert (rust.errno, rust.filename) == (errno.ENOSPC, "run/file")
    with pytest.raises(ValueError, match="other"), named_disk_errors(Path("run/file")):
        raise ValueError("other")


COMMAND = """
import sys
from ntk_lpft.commands.running import run_command
def main():
    for line in range(100_000):
        print(f"line {line} ‖V‖ \\udcff")
sys.exit(run_command(lambda: main))
"""


def test_a_reader_that_leaves() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{COMMAND}' | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_standard_output() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output: No space left on device; ")
    assert len(done.stderr.splitlines()) == 1


def test_letters_that_the_terminal_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.replace("100_000", "1")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"line 0 \\u2016V\\u2016 \\udcff\n")
