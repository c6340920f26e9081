"""What of the machine's memory a computation may take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from ntk_lpft.kernel import free_memory
from ntk_lpft.kernel.free_memory import default_budget

GIB = 2**30


def test_the_default_budget_leaves_memory_to_others() -> None:
    free = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert 0 < default_budget(torch.device("cpu")) < 0.5 * 1024 * int(free.group(1))


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(free_memory, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(free_memory, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB})())
    monkeypatch.setattr(free_memory, "_left_by_limits", lambda: iter(()))
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_a_container_of_version_2_sets_the_limit(groups: Path) -> None:
    (groups / "own").write_text("0::/job/step\n")
    write(groups / "fs" / "job", memory__max=f"{8 * GIB}\n", memory__current=f"{3 * GIB}\n", memory__stat="anon 1\n")
    write(groups / "fs" / "job" / "step", memory__max="max\n", memory__current=f"{GIB}\n", memory__stat="")
    assert free_memory.free_memory() == 5 * GIB
    stat = f"anon 5\ninactive_file {GIB}\nactive_file 7\n"
    write(groups / "fs" / "job" / "step", memory__max=f"{2 * GIB}\n", memory__stat=stat)
    assert free_memory.free_memory() == 2 * GIB


def test_a_container_of_version_1_sets_the_limit(groups: Path) -> None:
    (groups / "own").write_text("3:cpu,cpuacct:/x\n5:memory:/docker/abc\n0::/\n")
    # Inside the container its own group is the root.
    write(
        groups / "fs" / "memory",
        memory__limit_in_bytes=f"{4 * GIB}\n",
        memory__usage_in_bytes=f"{3 * GIB}\n",
        memory__stat=f"total_inactive_file {GIB // 2}\n",
    )
    assert free_memory.free_memory() == GIB + GIB // 2


def test_machines_without_control_groups_have_what_is_free(groups: Path) -> None:
    assert free_memory.free_memory() == 64 * GIB
    (groups / "own").write_text("0::/\n")
    assert free_memory.free_memory() == 64 * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="resource limits of Linux")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_shell_hold(kind: str) -> None:
    used = {"RLIMIT_AS": "vms", "RLIMIT_DATA": "data"}[kind]
    code = (
        "import resource, psutil, torch; from ntk_lpft.kernel import free_memory as f;"
        f"limit = psutil.Process().memory_info().{used} + {GIB};"
        f"resource.setrlimit(resource.{kind}, (limit, limit)); print(f.free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= GIB
