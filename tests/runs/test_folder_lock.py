"""One command at a time in a folder: the second is told who is there; who was killed holds nobody up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.folders import contents, fill

from ntk_lpft.errors import InputError
from ntk_lpft.runs.lock import LOCK, folder_lock

HOLDER = """
import sys, time
from pathlib import Path
from ntk_lpft.runs.lock import folder_lock
with folder_lock(Path(sys.argv[1]), "python -m holder"):
    print("in", flush=True)
    sys.stdin.read()
"""
# Enters again and again, and counts who is in.
ENTRANT = """
import os, sys
from pathlib import Path
from ntk_lpft.errors import InputError
from ntk_lpft.runs.lock import folder_lock
folder, inside, entered = Path(sys.argv[1]), Path(sys.argv[2]), 0
while entered < 200:
    try:
        with folder_lock(folder, "python -m entrant"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails where another is in
            entered += 1
            inside.unlink()
    except InputError:
        pass
"""


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_the_second_is_told_who_is_there(tmp_path: Path) -> None:
    holder = started(HOLDER, tmp_path)
    assert holder.stdout.readline() == "in\n"
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught, folder_lock(tmp_path, "python -m second"):
        pass
    who = rf"`python -m holder` \(process {holder.pid} on {re.escape(socket.gethostname())}, since \d{{4}}-\S+\)"
    assert re.fullmatch(
        rf"output folder {tmp_path} is in use by {who}; wait for its end, or choose another --output-dir",
        str(caught.value),
    )
    assert contents(tmp_path) == before
    holder.stdin.close()
    assert holder.wait() == 0
    holder.stdout.close()
    with folder_lock(tmp_path, "python -m second"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        # Within one process, too: of threads, or of a command that is called by another.
        with (
            pytest.raises(InputError, match=rf"`python -m second` \(process {os.getpid()} "),
            folder_lock(tmp_path, "x"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    holder = started(HOLDER, tmp_path)
    assert holder.stdout.readline() == "in\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    with folder_lock(tmp_path, "python -m second"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_however_they_come_and_go_one_is_in_at_a_time(tmp_path: Path) -> None:
    processes = [started(ENTRANT, tmp_path / "folder", tmp_path / "inside") for _ in range(3)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert not list(tmp_path.glob("folder/*"))


def test_an_exception_frees_the_lock_and_results_stay(tmp_path: Path) -> None:
    def fails() -> None:
        with folder_lock(tmp_path / "out", "x"):
            fill(tmp_path / "out", "result")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with folder_lock(tmp_path / "out", "x"):
        pass
    assert contents(tmp_path) == {"out/result": b"result"}


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, "mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="cannot be written"), folder_lock(tmp_path / "out", "x"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
