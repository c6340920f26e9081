"""A partial kernel on disk, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.kernel.memory import Plan
from ntk_lpft.storage import read_tensors, write_tensors


class Checkpoint:
    """The partial kernel of one computation.

    Args:
        path: File to write; None keeps nothing.
        identity: What the partial kernel belongs to. A file with another identity is refused.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)

    def load(self) -> tuple[int, Plan, dict[str, Tensor], dict[str, Any]] | None:
        """Read back what an interrupted run has computed.

        Returns:
            The number of passes done, the plan, the partial kernels by name and the self-check; None where there is no
            file.

        Raises:
            InputError: The file is damaged or belongs to another computation.
        """
        if self.path is None or not self.path.exists():
            return None
        tensors, description = read_tensors(self.path)
        earlier = description.get("identity", {})
        changed = sorted(k for k in earlier.keys() | self.identity.keys() if earlier.get(k) != self.identity.get(k))
        if changed:
            raise InputError(
                f"{self.path} belongs to an interrupted run with other settings (changed: {', '.join(changed)}); "
                "give the same settings to go on, or --overwrite to start anew"
            )
        return description["done"], Plan.from_json(description["plan"]), tensors, description["self_check"]

    def save(self, done: int, plan: Plan, tensors: Mapping[str, Tensor], self_check: Mapping[str, Any]) -> None:
        """Replace the file; at every moment there is a whole one."""
        if self.path is not None:
            description = {
                "identity": self.identity,
                "done": done,
                "plan": asdict(plan),
                "self_check": dict(self_check),
            }
            write_tensors(self.path, tensors, description)
