"""What there is to do for each process, from the start or after an interruption, with as many processes or others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ntk_lpft.kernel.body_parameters import Route
from ntk_lpft.kernel.checkpoint import Checkpoint, Piece, Progress
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.memory import Pass, Plan, Work, make_plan
from ntk_lpft.kernel.processes import Processes, shares
from ntk_lpft.kernel.tiles import tiles_of


@dataclass(frozen=True)
class Start:
    """From where a process sets out.

    Attributes:
        plan: What it has to do.
        progress: What of that is done.
        tensors: Partial kernels, by name, and outputs that were seen; none at the very start.
        resumed: What an interrupted run had done: passes, and tiles and parameters of one that was broken off.
    """

    plan: Plan
    progress: Progress
    tensors: dict[str, Tensor]
    resumed: dict[str, int]


def set_out(
    store: Checkpoint,
    pieces: Sequence[Piece],
    layout: Layout,
    measured: Callable[[], Work],
    budget: int,
    processes: Processes,
) -> Start:
    """Settle what this process has to do.

    A run that goes on with as many processes keeps its plan, so that it gives the same bits. Otherwise the kernels that
    are there are shared out, with the passes of which parts are done, and all else is planned anew.

    Args:
        store: Where this process's partial kernel goes; its new sharing gives way to one that is gone on with.
        pieces: What an interrupted run has left, see `Checkpoint.pieces`.
        layout: Rows and columns of the kernel.
        measured: Called for the whole computation where something is to be planned.
        budget: Bytes allowed besides the model, for each process.
        processes: Who shares the work.

    Returns:
        Where this process sets out from.

    Raises:
        InputError: The budget is too small for one layer, or a file is damaged.
    """
    if not pieces:
        return Start(planned(measured(), budget, processes.rank, processes.count), Progress(), {}, _resumed(None))
    own = [piece for piece in pieces if piece.number % processes.count == processes.rank]
    numbers = [piece.number for piece in pieces]
    # Pieces of two sharings may be there: where some processes were killed before they had saved anything of the later.
    sharings = {(piece.sharing, piece.processes) for piece in pieces}
    if numbers == list(range(processes.count)) and len(sharings) == 1 and pieces[0].processes == processes.count:
        store.sharing = pieces[0].sharing
        return Start(own[0].plan, own[0].progress, store.take(own), _resumed(own[0]))
    begun = [step for piece in own for step in _begun(piece, layout)]
    settled = {name for piece in pieces for name in _settled(piece, layout)}
    work = measured()
    rest = replace(work, costs=[cost for cost in work.costs if cost.name not in settled])
    plan = planned(rest, budget, processes.rank, processes.count)
    plan.passes[:0] = begun
    rerouted = [name for piece in own for name in piece.progress.rerouted]
    resumed = {name: sum(_resumed(piece)[name] for piece in own) for name in _resumed(None)}
    pending = {name for step in begun for name in step.parameters}
    earlier = [name for piece in own for name in _settled(piece, layout) if name not in pending]
    return Start(plan, Progress(0, rerouted, list(dict.fromkeys(earlier))), store.take(own), resumed)


def planned(work: Work, budget: int, rank: int, count: int) -> Plan:
    """Plan the share of one process.

    Args:
        work: What all of them have to do.
        budget: Bytes allowed besides the model, for each process.
        rank: The process's number.
        count: Number of processes.

    Returns:
        Its plan.

    Raises:
        InputError: The budget is too small for one layer.
    """
    if count == 1:
        return make_plan(work, budget)
    return make_plan(replace(work, costs=shares(work, count)[rank]), budget)


def _resumed(piece: Piece | None) -> dict[str, int]:
    begun = None if piece is None else piece.begun
    return {
        "resumed_after_passes": 0 if piece is None else piece.progress.passes,
        "resumed_after_tiles": 0 if begun is None else begun.tiles,
        "resumed_after_parameters": 0 if begun is None else len(begun.done),
    }


def _begun(piece: Piece, layout: Layout) -> list[Pass]:
    """List passes that must be gone on with as they are, since something of their parameters' kernels is there."""
    left = piece.plan.passes[piece.progress.passes :]
    # More than one: a process takes over the passes of several that were killed.
    begun = [step for step in left if (step.tiles or step.done) and _tiles(step, layout) > 1]
    # Of parameters that plain autograd takes in slices, some slices may be done.
    sliced = [step for step in left if step.route == Route.AUTOGRAD]
    done = [step for step in piece.plan.passes[: piece.progress.passes] if step.route == Route.AUTOGRAD]
    return begun + (sliced if done else [])


def _settled(piece: Piece, layout: Layout) -> list[str]:
    """Names of parameters that are done, or will be by the passes that were begun."""
    done, left = piece.plan.passes[: piece.progress.passes], piece.plan.passes[piece.progress.passes :]
    steps = [*done, *_begun(piece, layout)]
    within = [name for step in left if step.done and _tiles(step, layout) == 1 for name in step.done]
    return [*piece.progress.earlier, *(name for step in steps for name in step.parameters), *within]


def _tiles(step: Pass, layout: Layout) -> int:
    return 1 if step.route == Route.AUTOGRAD else sum(len(block) for block in tiles_of(layout, step.columns, step.rows))
