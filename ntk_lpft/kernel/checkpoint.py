"""Partial kernels on disk, one a process, so that a run that was killed goes on where it stopped."""

import re
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.kernel.memory import Pass, Plan
from ntk_lpft.storage import read_description, read_tensors, write_tensors

# Within a pass, the file is written at most so often (in seconds), and takes at most this share of the time.
_LEAST_SECONDS = 10.0
_LARGEST_SHARE = 0.05


@dataclass
class Progress:
    """How far a computation is.

    Attributes:
        passes: Number of passes that are done; what is done of the next one, it knows itself.
        rerouted: Names of all parameters so far whose rule turned out not to hold.
        earlier: Names of parameters whose kernels were there before the plan was made.
    """

    passes: int = 0
    rerouted: list[str] = field(default_factory=list)
    earlier: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """What one process of an interrupted run has left.

    Attributes:
        number: The process's number.
        path: The file.
        identifier: A name that no other piece has.
        absorbed: Identifiers of pieces whose kernels are in this one.
        sharing: What the processes called the way in which they shared the work; one that is planned anew has another.
        processes: How many processes shared the work.
        progress: How far the process was.
        plan: What it had to do.
    """

    number: int
    path: Path
    identifier: str
    absorbed: list[str]
    sharing: str
    processes: int
    progress: Progress
    plan: Plan

    @property
    def begun(self) -> Pass | None:
        """The pass that was broken off, if something of it was done."""
        following = self.plan.passes[self.progress.passes : self.progress.passes + 1]
        return next((step for step in following if step.tiles or step.done), None)


class Checkpoint:
    """The partial kernel of one process, and those that an interrupted run's processes have left.

    Attributes:
        sharing: See `Piece`; it is set before anything is saved.

    Args:
        path: File of the first process; the others' lie beside it, with their numbers. None keeps nothing.
        identity: What the partial kernel belongs to. Files with another identity are refused.
        number: This process's number.
        processes: How many processes share the work.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], number: int = 0, processes: int = 1) -> None:
        self.path = None if path is None else piece_path(path, number)
        self.identity = dict(identity)
        self.processes = processes
        self.sharing = ""
        self._first = path
        self._number = number
        self._identifier = uuid.uuid4().hex
        self._absorbed: list[str] = []
        self._replaced: list[Path] = []
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

    def pieces(self) -> list[Piece]:
        """Say what an interrupted run has computed, without its kernels.

        Returns:
            A piece for each process that has left one, by its number; without those that another one contains.

        Raises:
            InputError: A file is damaged or belongs to another computation.
        """
        if self._first is None:
            return []
        found = [self._describe(number, path) for number, path in sorted(piece_files(self._first).items())]
        contained = {identifier for piece in found for identifier in piece.absorbed}
        return [piece for piece in found if piece.identifier not in contained]

    def _describe(self, number: int, path: Path) -> Piece:
        description = read_description(path)
        earlier = description.get("identity", {})
        changed = sorted(k for k in earlier.keys() | self.identity.keys() if earlier.get(k) != self.identity.get(k))
        if changed:
            raise InputError(
                f"{path} belongs to an interrupted run with other settings (changed: {', '.join(changed)}); "
                "give the same settings to go on, or --overwrite to start anew"
            )
        return Piece(
            number,
            path,
            description["identifier"],
            list(description["absorbed"]),
            description["sharing"],
            description["processes"],
            Progress(description["done"], list(description["rerouted"]), list(description["earlier"])),
            Plan.from_json(description["plan"]),
        )

    def take(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Read the kernels of some pieces, which this process goes on from; what it writes replaces their files.

        Args:
            pieces: The pieces.

        Returns:
            The sums of their kernels by name, and what else they hold.

        Raises:
            InputError: A file is damaged.
        """
        total: dict[str, Tensor] = {}
        for piece in pieces:
            tensors, description = read_tensors(piece.path)
            if description["identifier"] != piece.identifier:
                raise InputError(f"{piece.path} was written by another process meanwhile; let one run at a time go on")
            for name, value in tensors.items():
                # Kernels are summed; all else is the same in each.
                known = total.get(name)
                total[name] = value if known is None or not name.startswith("kernel/") else known + value
            self._absorbed += [*piece.absorbed, piece.identifier]
            if piece.path != self.path:
                self._replaced.append(piece.path)
        return total

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
            "identifier": self._identifier,
            "absorbed": self._absorbed,
            "sharing": self.sharing,
            "processes": self.processes,
            "done": progress.passes,
            "rerouted": progress.rerouted,
            "earlier": progress.earlier,
            "plan": asdict(plan),
        }
        write_tensors(self.path, tensors, description)
        while self._replaced:
            self._replaced.pop().unlink(missing_ok=True)
        self._ended = time.monotonic()
        self._took = self._ended - began


def piece_path(path: Path, number: int) -> Path:
    """Return the file of a process, from that of the first.

    Args:
        path: The first process's file.
        number: The process's number.

    Returns:
        The path itself for the first; for others with their number behind its stem.
    """
    return path if number == 0 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def piece_files(path: Path) -> dict[int, Path]:
    """Find the files that processes have left.

    Args:
        path: The first process's file.

    Returns:
        The files that are there, by the number of the process.
    """
    found = {0: path} if path.exists() else {}
    if path.parent.is_dir():
        pattern = re.compile(rf"{re.escape(path.stem)}-([1-9][0-9]*){re.escape(path.suffix)}")
        for each in path.parent.iterdir():
            if match := pattern.fullmatch(each.name):
                found[int(match.group(1))] = each
    return found
