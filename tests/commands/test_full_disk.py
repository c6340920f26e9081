"""A disk that is full at any moment: one line that names the file, and the same command goes on once there is room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from helpers.tiny_runs import make_place, words_of

from ntk_lpft import storage
from ntk_lpft.commands.calibrate import main as calibrate
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main as finetune

Main = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_place(tmp_path_factory.mktemp("place"))
    words = words_of(folder, "--method", "ft", "--no_track", "--max_steps", 2, "--output_dir", folder / "run")
    assert finetune(words) == 0
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of its own, which `resize` makes as large as is asked for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("this user cannot mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def resize(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)


def command(name: str, place: Path, out: Path) -> tuple[Main, list[str], list[str]]:
    """Return the command, its words, and those that go on after it broke off."""
    if name == "calibrate":
        return calibrate, [str(place / "run"), "--resamples", "0", "--output-dir", str(out)], ["--overwrite"]
    if name == "finetune":
        words = words_of(place, "--method", "ft", "--max_steps", 4, "--eval_strategy", "steps", "--eval_steps", 2,
                         "--save_strategy", "steps", "--save_steps", 2, "--output_dir", out)  # fmt: skip
        return finetune, words, ["--resume"]
    words = [*words_of(place)[:2], "--train-file", str(place / "train.csv"), "--test-file", str(place / "test.csv"),
             "--max-length", "12", "--n-train", "9", "--n-eval", "4", "--head-init", "random", "--no-kernel-classifier",
             "--output-dir", str(out)]  # fmt: skip
    return compute, words, []


@pytest.mark.parametrize("kilobytes", [8, 48, 120])
@pytest.mark.parametrize("name", ["compute", "finetune", "calibrate"])
def test_small_disks(place: Path, disk: Path, capsys: pytest.CaptureFixture[str], name: str, kilobytes: int) -> None:
    main, words, more = command(name, place, disk / "out")
    resize(disk, kilobytes)
    status = main(words)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(said) == 1
    assert str(disk / "out") in said[0]
    assert "No space left on device" in said[0]
    assert not list(disk.rglob("*.partial"))
    resize(disk, 100_000)
    again = main([*words, *more])
    if again == 2 and more == ["--resume"]:  # the disk was full before the run had begun
        assert "nothing to go on with" in capsys.readouterr().err or main(words) == 0
    else:
        assert again == 0


@pytest.mark.parametrize("which", [1, 2, 4])
@pytest.mark.parametrize("name", ["compute", "finetune", "calibrate"])
def test_a_write_that_fails(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    which: int,
) -> None:
    """Where no small disk can be made: the k-th file that is put in its place finds no room."""
    main, words, _ = command(name, place, tmp_path / "out")
    writes = [0]
    sync = os.fsync

    def full(file: int) -> None:
        writes[0] += 1
        if writes[0] == which:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(storage.os, "fsync", full)
    assert main(words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert said[0].startswith(f"error: {tmp_path / 'out'}")
    assert "No space left on device; make room on that disk" in said[0]
    assert not list(tmp_path.rglob("*.partial"))
