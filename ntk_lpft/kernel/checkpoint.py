"""A partial kernel on disk, so that a run that was killed goes on where it stopped."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.kernel.memory import Pass, Plan
from ntk_lpft.storage import read_tensors, write_tensors

# Within a pass, the file is written at most so often (in seconds), and takes at most this share of the time.
_LEAST_SECONDS = 10.0
_LARGEST_SHARE = 0.05


@dataclass
class Progress:
    """How far a computation is.

    Attributes:
        passes: Number of passes that are done.
        rerouted: Names of all parameters so far whose rule turned out not to hold.
    """

    passes: int = 0
    rerouted: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """What an interrupted run has left.

    Attributes:
        progress: How far it was.
        plan: Its plan.
        tensors: Partial kernels, by name, and the outputs that were seen.
    """

    progress: Progress
    plan: Plan
    tensors: dict[str, Tensor]

    @property
    def begun(self) -> Pass | None:
        """The pass that was broken off, if something of it was done."""
        following = self.plan.passes[self.progress.passes : self.progress.passes + 1]
        return next((step for step in following if step.tiles or step.done), None)


class Checkpoint:
    """The partial kernel of one computation.

    Args:
        path: File to write; None keeps nothing.
        identity: What the partial kernel belongs to. A file with another identity is refused.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)
        self._ended = time.monotonic()  # of the last writing
        self._took = 0.0

    def check_place(self) -> None:
        """Refuse a place where no file can be written, before the work whose result would be lost.

        Raises:
            InputError: It is a folder, or the file system refuses a file there.
        """
        if self.path is None:
            return
        try:
            taken = self.path.is_dir()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"checkpoint {str(self.path)[:200]} cannot be written ({reason}); give another path"
            ) from error
        if taken:
            raise InputError(f"checkpoint {self.path} is a folder; give the path of a file")

    def load(self) -> Stored | None:
        """Read back what an interrupted run has computed.

        Returns:
            What is there; None where there is no file.

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
        progress = Progress(description["done"], list(description.get("rerouted", ())))
        return Stored(progress, Plan.from_json(description["plan"]), tensors)

    @property
    def due(self) -> bool:
        """Whether enough has been computed since the file was written for it to be written again."""
        return self.path is not None and time.monotonic() - self._ended >= max(
            _LEAST_SECONDS, self._took / _LARGEST_SHARE
        )

    def save(self, progress: Progress, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
        """Replace the file; at every moment there is a whole one."""
        if self.path is None:
            return
        began = time.monotonic()
        description = {
            "identity": self.identity,
            "done": progress.passes,
            "rerouted": progress.rerouted,
            "plan": asdict(plan),
        }
        write_tensors(self.path, tensors, description)
        self._ended = time.monotonic()
        self._took = self._ended - began
