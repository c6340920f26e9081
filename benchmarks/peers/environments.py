"""A virtual environment for each peer that cannot share the project's, made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT

PLACE = ROOT / "build" / "peers"


@dataclass(frozen=True)
class Environment:
    """What a peer runs in.

    Attributes:
        name: Of the peer, and of the folder.
        requirements: What is installed, pinned.
        alone: What is installed without what it asks for.
    """

    name: str
    requirements: tuple[str, ...]
    alone: tuple[str, ...] = ()

    def python(self, place: Path = PLACE) -> Path:
        """Make the environment, unless it stands, and return its interpreter.

        Args:
            place: The folder of all environments.

        Returns:
            The interpreter.

        Raises:
            RuntimeError: It cannot be installed; the message is pip's last line.
        """
        home, stamp = place / self.name, place / self.name / ".made"
        python = home / "bin" / "python"
        asked = "\n".join([sys.version, *self.requirements, *self.alone])
        if stamp.exists() and stamp.read_text(encoding="utf-8") == asked:
            return python
        print(f"installing {self.name} into {home} …", file=sys.stderr, flush=True)
        shutil.rmtree(home, ignore_errors=True)
        base = getattr(sys, "_base_executable", sys.executable)
        _run([base, "-m", "venv", str(home)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *self.requirements])
        if self.alone:
            _run([*pip, "--no-deps", *self.alone])
        stamp.write_text(asked, encoding="utf-8")
        return python


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise RuntimeError(f"cannot be installed: {lines[-1]}")


# The newest jax that neural-tangents 0.6.5 runs with, and what was current with it.
JAX = Environment(
    "neural-tangents",
    ("neural-tangents==0.6.5", "jax==0.4.23", "jaxlib==0.4.23", "flax==0.7.5", "transformers==4.36.2", "numpy<2",
     "scipy<1.12", "safetensors==0.8.0"),
)  # fmt: skip
# Alone: it asks for torchvision, which it does not use, and which an index may hold for other builds of torch only.
NNGEOMETRY = Environment(
    "nngeometry", ("torch==2.13.0", "transformers==5.23.0", "safetensors==0.8.0"), ("nngeometry==0.4",)
)
