"""Several processes at work on one kernel: who does what, and how what they have done comes together."""

from __future__ import annotations

import hashlib
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ntk_lpft.errors import FailedElsewhereError, InputError
from ntk_lpft.kernel.memory import ParameterCost, Work

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Processes:
    """The processes of a group, or this one alone.

    Every one of them calls the same functions in the same order, with the same model and samples.

    Attributes:
        rank: Number of this process.
        count: Number of processes.
        neighbours: How many of them share this machine's memory.

    Args:
        group: A group of ``torch.distributed``; None for this process alone.

    Raises:
        InputError: It is none, or one that this process is not in.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        self._group = group
        self._device = torch.device("cpu")
        self.rank, self.count, self.neighbours = 0, 1, 1
        if group is None:
            return
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            raise InputError("there is no process group yet; call torch.distributed.init_process_group first")
        try:
            self.rank = torch.distributed.get_rank(group)
            self.count = torch.distributed.get_world_size(group)
            backend = torch.distributed.get_backend(group)
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"process_group is of type {type(group).__name__}, or not one that this process is in; pass "
                "torch.distributed.group.WORLD"
            ) from error
        if self.rank < 0:
            raise InputError("this process is not a member of process_group; call this in its members alone")
        if backend == "nccl":
            self._device = torch.device("cuda", torch.cuda.current_device())
        self.neighbours = self._count_neighbours()

    def _count_neighbours(self) -> int:
        machine = hashlib.sha256(socket.gethostname().encode()).digest()
        names = torch.zeros(self.count, dtype=torch.int64, device=self._device)
        names[self.rank] = int.from_bytes(machine[:7], "big")
        return int((self.add_up_(names) == names[self.rank]).sum())

    def add_up_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place; the result has the same bits in each."""
        if self._group is not None:
            # Not every way of talking takes tensors of every device.
            there = tensor.to(self._device)
            torch.distributed.all_reduce(there, group=self._group)
            if there is not tensor:
                tensor.copy_(there)
        return tensor

    def of_first(self, tensor: Tensor) -> Tensor:
        """Give the first process's tensor to all."""
        if self._group is None:
            return tensor
        return self.add_up_(tensor.clone() if self.rank == 0 else torch.zeros_like(tensor))

    def common_name(self) -> str:
        """Return a name that nothing else has, the same in all processes."""
        drawn = torch.tensor(list(uuid.uuid4().bytes), dtype=torch.int64, device=self._device)
        return bytes(self.of_first(drawn).tolist()).hex()

    def agree(self, problem: BaseException | None, doing: str) -> None:
        """Wait for all processes, and stop all of them where one has failed.

        Without it the others would wait for a process that is gone. Of several that failed the first one says why.

        Args:
            problem: What went wrong here, or None.
            doing: What they were doing, for the message of those where nothing did.

        Raises:
            FailedElsewhereError: Some other process failed, and is the one to say so.
            BaseException: What went wrong here.
        """
        if self.count > 1:
            states = torch.zeros(self.count, dtype=torch.int64, device=self._device)
            states[self.rank] = int(problem is not None)
            failed = [rank for rank, value in enumerate(self.add_up_(states).tolist()) if value]
            if failed and (problem is None or (isinstance(problem, InputError) and failed[0] != self.rank)):
                raise FailedElsewhereError(
                    f"process {failed[0] + 1} of {self.count} failed while {doing}; see what it says"
                ) from problem
        if problem is not None:
            raise problem

    @contextmanager
    def together(self, doing: str) -> Iterator[None]:
        """Do something in every process, and go on in none where it failed in one; see `agree`.

        What is done must not talk to the other processes: one that failed would answer with its failure.

        Args:
            doing: What is done.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            self.agree(error, doing)
            raise
        self.agree(None, doing)

    def check_same(self, what: str, text: str) -> None:
        """Refuse to go on where processes were given different things.

        Args:
            what: What must be the same, for the message.
            text: What this process was given.

        Raises:
            InputError: Another process was given something else.
        """
        if self.count == 1:
            return
        problem = None
        own = torch.tensor(list(hashlib.sha256(text.encode()).digest()[:16]), device=self._device)
        table = torch.zeros((self.count, len(own)), dtype=torch.int64, device=self._device)
        table[self.rank] = own
        self.add_up_(table)
        if not bool((table == table[0]).all()):
            problem = InputError(
                f"the processes that share a kernel were given different {what}; give all of them the same"
            )
        self.agree(problem, "comparing what they were given")

    def flags(self, known: Sequence[str], here: Sequence[str]) -> list[str]:
        """Collect names from all processes.

        Args:
            known: All names that there are, in the same order in each process.
            here: Those of this process.

        Returns:
            Names that at least one process gave, in the order of ``known``.
        """
        if self.count == 1:
            return list(here)
        found = set(here)
        marks = torch.tensor([int(name in found) for name in known], dtype=torch.int64, device=self._device)
        return [name for name, mark in zip(known, self.add_up_(marks).tolist(), strict=True) if mark]


def shares(work: Work, count: int) -> list[list[ParameterCost]]:
    """Share parameters out among processes, so that all are done at about the same time.

    Neighbours in the network stay together: a process need not differentiate the layers below its own.

    Args:
        work: What is to be computed.
        count: Number of processes.

    Returns:
        The parameters of each process; perhaps none.
    """
    ordered = sorted(work.costs, key=lambda cost: cost.order)
    low, high = 0.0, sum(work.products_of(cost) for cost in ordered) + work.capture_of(0)
    best = [ordered, *([] for _ in range(count - 1))]
    # By halves, for the least time in which that many processes can do it.
    for _ in range(60):
        limit = (low + high) / 2
        found = _within(work, ordered, limit, count)
        if found is None:
            low = limit
        else:
            best, high = found, limit
    return best


def _within(work: Work, ordered: Sequence[ParameterCost], limit: float, count: int) -> list[list[ParameterCost]] | None:
    """Give each process as much as it can do within a limit, or return None where that is not everything."""
    found: list[list[ParameterCost]] = [[]]
    used = 0.0
    for cost in ordered:
        own = work.products_of(cost)
        begun = 0.0 if found[-1] else work.capture_of(cost.order)
        if found[-1] and used + own > limit:
            found.append([])
            used, begun = 0.0, work.capture_of(cost.order)
        used += own + begun
        if used > limit or len(found) > count:
            return None
        found[-1].append(cost)
    return [*found, *([] for _ in range(count - len(found)))]
