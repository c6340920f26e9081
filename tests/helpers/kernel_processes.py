"""Several processes at work on one kernel, as torchrun starts them, which can be killed.

They are forked from a server that has imported the library once, as an import takes longer than a small kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SERVER = """
import json, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import conftest
import torch
from helpers.agreement import replanned
from helpers.zoo import ZOO, ragged_rows
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import checkpoint as checkpoints, compute_train_eval_ntk, engine, passes, save_parts
from ntk_lpft.kernel.settings import KernelSettings

def say(*words):
    os.write(1, ("\\n" + " ".join(map(str, words)) + "\\n").encode())  # one write, on a line of its own

def compute(job, rank):
    torch.set_num_threads(1)
    if job["count"] > 1:
        torch.distributed.init_process_group(
            "gloo", init_method="file://" + job["meeting"], rank=rank, world_size=job["count"]
        )
    if job["delay"]:
        add = passes.PassRunner._add
        def slow(*arguments):
            add(*arguments)
            time.sleep(job["delay"])
        passes.PassRunner._add = slow
        checkpoints._LEAST_SECONDS, checkpoints._LARGEST_SHARE = 0.0, 1e9
    if rank == job["fails"]:
        def fail(*arguments, **options):
            raise InputError("this process alone fails")
        engine.set_up = fail
    entry = ZOO[job["name"]]
    rows = ragged_rows(entry, n=7)
    settings = KernelSettings(**job["settings"][rank % len(job["settings"])])
    say("started", rank, os.getpid())
    try:
        with replanned(**job["plan"]):
            parts = compute_train_eval_ntk(
                entry.build(), rows[:5], rows[5:], settings=settings, checkpoint=job["checkpoint"],
                process_group=torch.distributed.group.WORLD if job["count"] > 1 else None,
            )
    except InputError as error:
        say("refused", rank, error)
        os._exit(2)
    save_parts(os.path.join(job["results"], f"{rank}.safetensors"), parts)
    os._exit(0)

for line in sys.stdin:
    job = json.loads(line)
    children = {}
    for rank in range(job["count"]):
        pid = os.fork()
        if pid == 0:
            compute(job, rank)
        children[pid] = rank
    codes = [None] * job["count"]
    while children:
        pid, status = os.wait()
        codes[children.pop(pid)] = os.waitstatus_to_exitcode(status)
        if status != 0 and not os.waitstatus_to_exitcode(status) == 2:
            for other in children:  # as torchrun does
                os.kill(other, signal.SIGKILL)
    say("ended", json.dumps(codes))
"""


class KernelProcesses:
    """Computes kernels of models of the zoo in groups of processes, one group at a time."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", _SERVER, str(Path(__file__).parents[1])]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._meetings = 0
        self.pids: dict[int, int] = {}
        self.refusals: dict[int, str] = {}

    def start(
        self,
        count: int,
        folder: Path,
        *,
        name: str = "bert",
        settings: Mapping[str, Any] | list[Mapping[str, Any]] | None = None,
        plan: Mapping[str, int] | None = None,
        checkpoint: bool = True,
        delay: float = 0.0,
        fails: int | None = None,
    ) -> None:
        """Start a computation, and wait until all its processes have begun.

        Args:
            count: Number of processes.
            folder: Where ``partial.safetensors`` and results go: ``RANK.safetensors``, with ``train`` and ``eval``.
            name: Entry of the zoo.
            settings: Those of the kernel; several, one for each process in turn.
            plan: What of the plan is forced, see `replanned`.
            checkpoint: Whether partial kernels are kept.
            delay: Seconds that each parameter takes longer than it needs.
            fails: Number of a process that is refused while the model is checked; None for none.
        """
        self._meetings += 1
        given = settings if isinstance(settings, list) else [settings or {"precision": "float64"}]
        job = {
            "count": count,
            "name": name,
            "settings": given,
            "plan": dict(plan or {}),
            "meeting": str(folder / f"meeting-{os.getpid()}-{self._meetings}"),
            "checkpoint": str(folder / "partial.safetensors") if checkpoint else None,
            "results": str(folder),
            "delay": delay,
            "fails": fails,
        }
        self.pids, self.refusals = {}, {}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        while len(self.pids) < count:
            _, rank, pid = self._read().split()
            self.pids[int(rank)] = int(pid)

    def _read(self) -> str:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            if line.split(" ")[0] in ("started", "refused", "ended"):
                return line.strip()
        raise AssertionError("the server ended")

    def kill(self, rank: int) -> None:
        """Kill one process, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[rank], signal.SIGKILL)

    def wait(self) -> list[int]:
        """Wait for all processes; return their exit codes, 2 where an input was refused."""
        while True:
            said, _, rest = self._read().partition(" ")
            if said == "ended":
                return json.loads(rest)
            rank, _, message = rest.partition(" ")
            self.refusals[int(rank)] = message

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait() == 0
