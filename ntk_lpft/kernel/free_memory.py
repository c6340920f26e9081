"""How much memory there is to use: of a GPU, of the machine, of the container, and of what the shell allows."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def default_budget(device: torch.device, processes: int = 1) -> int:
    """Take a quarter of the free memory of a CPU, which others use as well, or 80 % of that of a GPU.

    Args:
        device: Where the work is.
        processes: How many processes share a machine; each has a GPU of its own, where there are some.

    Returns:
        Bytes for one process.
    """
    if device.type == "cuda":
        # What torch holds and does not use is free as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + unused))
    return free_memory() // 4 // processes


def free_memory() -> int:
    """Bytes that this process can still take: of the machine, its control groups and its resource limits.

    Returns:
        The least of what these leave.
    """
    return max(0, min([psutil.virtual_memory().available, *_left_by_cgroups(), *_left_by_limits()]))


def _left_by_limits() -> Iterator[int]:
    """Yield what ``ulimit -v`` and ``-d`` leave; Windows has no such limits."""
    try:
        import resource
    except ImportError:
        return
    held = psutil.Process().memory_info()
    for limit, used in ((resource.RLIMIT_AS, held.vms), (resource.RLIMIT_DATA, getattr(held, "data", held.vms))):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield most - used


def _left_by_cgroups() -> Iterator[int]:
    """Yield what the control groups of this process leave, and those around them: of containers and batch jobs."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        # Inside a container the path may be that of outside; its root is then the group itself.
        for place in [folder, *folder.parents]:
            if place != root and root not in place.parents:
                break
            left = _left_by(place, *names)
            if left is not None:
                yield left


def _left_by(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    """Return what one control group leaves, files that it need not keep included; None where it sets no limit."""
    with suppress(OSError, ValueError):
        most = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        kept = re.search(rf"^{cached} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        return most - used + (int(kept.group(1)) if kept else 0)
    return None
