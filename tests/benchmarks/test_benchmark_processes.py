"""A measuring process that fails is told about in one line; one that ends well gives what it printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.peers import environments
from benchmarks.peers.environments import Environment


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    return tmp_path


def _measured(place: Path, code: str, **limits: float) -> dict:
    (place / "peer.py").write_text(code, encoding="utf-8")
    return processes.measure(["peer"], log=place / "peer.log", **limits)


def test_last_line_is_the_result(place: Path) -> None:
    assert _measured(place, "print('by the way'); print('{\"seconds\": [1]}')") == {"seconds": [1]}


def test_an_error_is_named(place: Path) -> None:
    found = _measured(place, "raise SystemExit('no such thing')")
    assert found == {"failed": "ended with status 1: no such thing", "seconds": []}


def test_memory_is_refused_beyond_the_limit(place: Path) -> None:
    found = _measured(place, "bytearray(10**9)", memory=5 * 10**8)
    assert found["failed"] == "ended with status 1: MemoryError"


def test_time_is_limited(place: Path) -> None:
    assert _measured(place, "import time; time.sleep(60)", timeout=0.5)["failed"].startswith("not done after")


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(words: list[str]) -> None:
        ran.append(words)
        (tmp_path / "peer").mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    python = Environment("peer", ("one==1",), ("two==2",)).python(tmp_path)
    assert python == tmp_path / "peer" / "bin" / "python"
    assert [words[-1] for words in ran] == [str(tmp_path / "peer"), "one==1", "two==2"]
    Environment("peer", ("one==1",), ("two==2",)).python(tmp_path)
    assert len(ran) == 3
    Environment("peer", ("one==2",)).python(tmp_path)
    assert [words[-1] for words in ran[3:]] == [str(tmp_path / "peer"), "one==2"]


def test_what_cannot_be_installed_is_said_in_a_line() -> None:
    with pytest.raises(RuntimeError, match=r"^cannot be installed: no index$"):
        environments._run([sys.executable, "-c", "raise SystemExit('something\\n\\nno index')"])
