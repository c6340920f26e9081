"""Memory: how much may be used, and how it is shared out between captured layers, graphs and chunks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from ntk_lpft.byte_sizes import format_bytes
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.body_parameters import Route

# Memory beyond this goes to captured layers: on a CPU, batches of 512 to 2048 took the same time within the noise.
_MOST_CELLS = {"cpu": 1024, "cuda": 16384}
_MOST_CHUNK = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}


def default_budget(device: torch.device) -> int:
    """Take a quarter of the free memory of a CPU, which others use as well, or 80 % of that of a GPU."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return psutil.virtual_memory().available // 4


@dataclass(frozen=True)
class ParameterCost:
    """What one parameter costs, measured on one sample of the greatest length.

    Attributes:
        name: The parameter's name.
        route: The way by which its kernel is computed.
        order: When the forward pass first reaches it.
        fixed_bytes: Bytes for each captured sample whatever its length.
        position_bytes: Bytes for each captured position.
        input_key: Which tensor its input is; parameters with one key share it. Empty where nothing is shared.
        input_position_bytes: Bytes of that tensor for each position.
        entries: Entries of the parameter (for the autograd route).
        chunk_bytes: Bytes of one output feature's gradients, of all samples: the least that a chunk can be.
        flops: Floating-point operations of its contraction, over all samples.
    """

    name: str
    route: Route
    order: int
    fixed_bytes: float = 0.0
    position_bytes: float = 0.0
    input_key: str = ""
    input_position_bytes: float = 0.0
    entries: int = 0
    chunk_bytes: int = 0
    flops: float = 0.0


@dataclass
class Pass:
    """One pass over the data: the parameters that it captures, or slices of parameters on the autograd route.

    Attributes:
        route: The way.
        parameters: Names of the parameters.
        slices: For the autograd route, (begin, end) in each flattened parameter.
    """

    route: Route
    parameters: list[str]
    slices: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Plan:
    """Passes and sizes; with equal plans, equal inputs give equal bits.

    Attributes:
        passes: In order.
        max_cells: Most samples × positions of a batch.
        chunk_bytes: Most bytes of a chunk of materialised gradients.
        budget: Bytes allowed besides the model itself.
        predicted_peak: Bytes that the plan is expected to use.
    """

    passes: list[Pass]
    max_cells: int
    chunk_bytes: int
    budget: int
    predicted_peak: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Make a plan of what ``dataclasses.asdict`` made of it, as JSON holds that."""
        passes = [
            Pass(Route(p["route"]), p["parameters"], [(begin, end) for begin, end in p["slices"]])
            for p in data["passes"]
        ]
        return cls(**{**data, "passes": passes})


def make_plan(
    costs: Sequence[ParameterCost],
    *,
    samples: int,
    positions: int,
    longest: int,
    channels: int,
    graph_bytes_per_cell: float,
    kernel_bytes: int,
    itemsize: int,
    budget: int,
    device_type: str,
) -> Plan:
    """Share a memory budget out.

    Args:
        costs: What each parameter costs.
        samples: Number of samples.
        positions: Total number of positions of all samples, padding within batches included.
        longest: Positions of the longest sample.
        channels: Backward passes for each sample.
        graph_bytes_per_cell: Bytes that autograd keeps for each sample and position of a batch.
        kernel_bytes: Bytes of all kernels that are accumulated.
        itemsize: Bytes of a captured number.
        budget: Bytes allowed besides the model.
        device_type: "cpu" or "cuda".

    Returns:
        The plan.

    Raises:
        InputError: The budget is too small for one layer; the message says what would do.
    """
    kind = device_type if device_type in _MOST_CELLS else "cuda"
    floor_chunk = max((p.chunk_bytes for p in costs), default=0)

    def shares(total: int) -> tuple[int, int, int, int]:
        """Chunk, cells of a batch, their graph, and what is left for captured layers."""
        left = total - kernel_bytes
        chunk = max(floor_chunk, min(_MOST_CHUNK[kind], left // 8))
        # At least one sample must fit, and a batch takes at most a quarter of the budget.
        cells = max(longest, min(_MOST_CELLS[kind], int(left / 4 / max(graph_bytes_per_cell, 1.0))))
        graph = int(cells * graph_bytes_per_cell)
        return chunk, cells, graph, left - chunk - graph

    column = samples * channels * itemsize
    dense = [p for p in costs if p.route == Route.AUTOGRAD]
    needed_by = {
        p.name: column if p.route == Route.AUTOGRAD else _capture_bytes([p], samples, positions) for p in costs
    }
    largest = max(needed_by.values(), default=0)
    chunk, cells, graph, room = shares(budget)
    if room < largest:
        # Write it a little larger than it is, as it is rounded for people.
        needed = 1.02 * bisect_left(range(2**62), True, lo=budget, key=lambda total: shares(total)[3] >= largest)
        raise InputError(
            f"memory budget {format_bytes(budget)} is too small for one layer "
            f"({max(needed_by, key=lambda n: needed_by[n], default='the batch')}); "
            f"give at least {format_bytes(needed)}, or fewer or shorter samples"
        )
    columns = room // column
    passes = []
    peak = 0
    for route in (Route.BATCHED, Route.SINGLE):
        members = sorted((p for p in costs if p.route == route), key=lambda p: p.order)
        for group in _fill(members, samples, positions, room):
            passes.append(Pass(route, [p.name for p in group]))
            peak = max(peak, _capture_bytes(group, samples, positions))
    for names, slices in _slice(dense, columns):
        passes.append(Pass(Route.AUTOGRAD, names, slices))
        peak = max(peak, sum(end - begin for begin, end in slices) * column)
    return Plan(passes, cells, chunk, budget, kernel_bytes + chunk + graph + peak)


def _capture_bytes(group: Sequence[ParameterCost], samples: int, positions: int) -> int:
    shared = {p.input_key: p.input_position_bytes for p in group if p.input_key}
    own = sum(p.fixed_bytes * samples + p.position_bytes * positions for p in group)
    return int(own + sum(shared.values()) * positions)


def _fill(members: Sequence[ParameterCost], samples: int, positions: int, room: int) -> list[list[ParameterCost]]:
    """Cut neighbours in the network into as few passes as fit."""
    groups: list[list[ParameterCost]] = []
    for cost in members:
        if groups and _capture_bytes([*groups[-1], cost], samples, positions) <= room:
            groups[-1].append(cost)
        else:
            groups.append([cost])
    return groups


def _slice(dense: Sequence[ParameterCost], columns: int) -> list[tuple[list[str], list[tuple[int, int]]]]:
    """Cut flattened parameters into passes of at most ``columns`` entries."""
    passes: list[tuple[list[str], list[tuple[int, int]]]] = []
    used = columns
    for cost in dense:
        begin = 0
        while begin < cost.entries:
            if used >= columns:
                passes.append(([], []))
                used = 0
            end = min(cost.entries, begin + columns - used)
            passes[-1][0].append(cost.name)
            passes[-1][1].append((begin, end))
            used += end - begin
            begin = end
    return passes
