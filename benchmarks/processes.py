"""The outside of a measuring process: starts it, limits its memory and time, and says how it ended."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def measure(
    words: Sequence[str],
    *,
    python: str | Path = sys.executable,
    memory: int | None = None,
    timeout: float | None = None,
    log: Path | None = None,
) -> dict[str, Any]:
    """Run a module in a process of its own.

    Args:
        words: The module and its arguments.
        python: The interpreter, of any environment.
        memory: Most bytes that it may allocate; more is refused to it, not taken from others.
        timeout: Seconds after which it is ended.
        log: Where its messages go; None leaves them on the terminal.

    Returns:
        What the last line of its output says, or ``failed``: how it ended.
    """
    print(f"measuring {' '.join(os.path.basename(word) for word in words)} …", file=sys.stderr, flush=True)

    def limit() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    began = time.monotonic()
    messages = open(log, "w+", encoding="utf-8") if log else None  # noqa: SIM115
    try:
        done = subprocess.run(
            [str(python), "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=messages, text=True,
            timeout=timeout, preexec_fn=limit, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {time.monotonic() - began:.0f} s", "seconds": []}
    finally:
        if messages:
            messages.close()
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines and lines[-1].startswith("{"):
        return json.loads(lines[-1])
    said = log.read_text(encoding="utf-8").splitlines() if log else []
    last = next((line for line in reversed(said) if line.strip()), "no message")
    return {"failed": f"ended with status {done.returncode}: {last}", "seconds": []}
