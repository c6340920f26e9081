"""Files that appear whole or not at all; tensors with a checksum are tested beside the kernel's storage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import safetensors
import torch
from safetensors.torch import save_file

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.storage import (
    let_umask_decide,
    read_tensors,
    remove_partials,
    whole_file,
    write_json,
    write_table,
    write_tensors,
    write_text,
)


class Stopped(BaseException):
    """What stops a process from outside, and is no error of the program."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_when_the_block_has_ended_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with whole_file(path) as partial:
        assert partial.parent == tmp_path  # on one file system, where it can be renamed
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["x.txt"]


def test_an_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("kind", [ValueError, Stopped, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, "old"])
def test_nothing_is_left_of_a_block_that_raises(tmp_path: Path, kind: type[BaseException], old: str | None) -> None:
    path = tmp_path / "x.txt"
    if old is not None:
        path.write_text(old)

    def write_half_and_raise() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise kind

    with pytest.raises(kind):
        write_half_and_raise()
    assert names(tmp_path) == ([] if old is None else ["x.txt"])
    assert old is None or path.read_text() == old


def test_a_file_that_cannot_take_its_place_is_removed(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(OSError, match="directory"), whole_file(tmp_path / "x.txt") as partial:
        partial.write_text("whole")
    assert names(tmp_path) == ["x.txt"]
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "y.txt"):
        pass  # nothing was written
    assert names(tmp_path) == ["x.txt"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "x.txt", "β")
    assert (tmp_path / "a" / "b" / "x.txt").read_bytes() == "β".encode()


def test_a_killed_process_leaves_the_old_file_and_a_partial_one_that_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ntk_lpft.storage import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = (name for name in names(tmp_path) if name != "x.txt")
    assert left.startswith(".x.txt.")
    for name in ("mine.partial", ".mine", "partial"):
        (tmp_path / name).touch()
    remove_partials(tmp_path, ["x.txt"])
    assert names(tmp_path) == sorted([".mine", "mine.partial", "partial", "x.txt"])


def test_the_next_writer_of_a_file_removes_what_a_process_long_dead_has_left(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = [tmp_path / f".x.txt.{int(pid)}.partial" for pid in (dead.stdout, os.getppid())]
    left += [tmp_path / f".y.txt.{int(dead.stdout)}.partial", tmp_path / ".x.txt.mine.partial"]
    for path in left:
        path.write_text("half")
    write_text(tmp_path / "x.txt", "new")  # a process of another machine may have just written these
    assert names(tmp_path) == sorted(["x.txt", *(path.name for path in left)])
    for path in left:
        os.utime(path, (0, 0))
    write_text(tmp_path / "x.txt", "new")
    assert names(tmp_path) == sorted(["x.txt", *(path.name for path in left[1:])])


def test_json_is_written_whole_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"α": [1, None, 0.1]})
    assert read_json(path) == {"α": [1, None, 0.1]}
    assert json.loads(path.read_text(encoding="utf-8")) == {"α": [1, None, 0.1]}
    with pytest.raises(TypeError):
        write_json(path, {"β": object()})
    assert read_json(path) == {"α": [1, None, 0.1]}
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.json does not exist"),
        (b"", r"x\.json cannot be read as JSON"),
        (b'{"a": 1', r"x\.json cannot be read as JSON"),
        (b'{"a": "\xff"}', r"x\.json cannot be read as JSON"),
        (b"[1]", r"x\.json holds no JSON object"),
        (b"null", r"x\.json holds no JSON object"),
    ],
)
def test_json_that_is_none_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(path)


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_json(tmp_path)


def test_tables_keep_all_digits(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a,b", "c"], "value": [0.1 + 0.2, 1e-300]})
    write_table(tmp_path / "x.csv", table)
    assert (tmp_path / "x.csv").read_bytes() == b'name,value\n"a,b",0.30000000000000004\nc,1e-300\n'


def test_a_file_that_may_not_be_read_is_none_to_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    with pytest.raises(InputError, match=r"x\.safetensors cannot be read \(Permission denied\)$"):
        read_tensors(path)


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)}, {})
        write_text(tmp_path / "x.txt", "x")
        save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "folder")
        let_umask_decide(tmp_path)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == dict.fromkeys(
        ["x.safetensors", "x.txt", "theirs.safetensors"], oct(mode)
    )
    assert read_tensors(tmp_path / "x.safetensors")[0]["a"].tolist() == [1.0, 1.0]
