"""How a memory budget is shared out between captured layers, graphs, chunks and kernels."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ntk_lpft.byte_sizes import format_bytes
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import syrk
from ntk_lpft.kernel.body_parameters import Route
from ntk_lpft.kernel.layout import Layout

# Memory beyond this goes to captured layers: on a CPU, batches of 512 to 2048 took the same time within the noise.
_MOST_CELLS = {"cpu": 1024, "cuda": 16384}
_MOST_CHUNK = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}

# Batches hold samples of similar, not equal, length.
_PADDING_ALLOWANCE = 1.05

# Tiles of fewer samples would spend their time on making gradients again.
_LEAST_TILE = 16


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
        chunk_bytes: Bytes of one output feature's gradients, of one sample: the least that a chunk can be.
        flops: Floating-point operations of its contraction, over all samples.
        sample_flops: Those of one sample's gradients, which are made again for each tile.
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
    sample_flops: float = 0.0


@dataclass(frozen=True)
class Work:
    """All that a plan is made from.

    Attributes:
        costs: What each parameter costs.
        layout: Rows and columns of the kernel.
        lengths: Positions of each sample, in internal order.
        graph_bytes_per_cell: Bytes that autograd keeps for each sample and position of a batch.
        forward_flops_per_cell: Floating-point operations of the forward pass, likewise.
        depth: Number of moments at which the forward pass reaches a parameter, also of other processes.
        kernels: Number of kernels that are accumulated.
        kernel_itemsize: Bytes of one of their entries.
        itemsize: Bytes of a captured number.
        device_type: "cpu" or "cuda".
        threads: Threads that multiply.
        product_bytes: Bytes that a product needs beside its factors.
        widened_bytes: Bytes of the frozen weights that a layer has just widened.
    """

    costs: Sequence[ParameterCost]
    layout: Layout
    lengths: Sequence[int]
    graph_bytes_per_cell: float
    forward_flops_per_cell: float
    depth: int
    kernels: int
    kernel_itemsize: int
    itemsize: int
    device_type: str
    threads: int = 1
    product_bytes: int = 0
    widened_bytes: int = 0

    @property
    def longest(self) -> int:
        """Positions of the longest sample."""
        return max(self.lengths)

    def capture_of(self, order: int) -> float:
        """Operations of one pass: forward through all layers, and backward down to the lowest that is captured.

        Args:
            order: When the forward pass first reaches that layer.

        Returns:
            Floating-point operations over all samples.
        """
        forward = self.forward_flops_per_cell * sum(self.lengths)
        return forward * (1 + self.layout.channels * (1 - order / self.depth))

    def products_of(self, cost: ParameterCost) -> float:
        """Operations of one parameter's products, and of making its gradients once."""
        products = cost.flops + cost.sample_flops * self.layout.samples
        # Plain autograd runs the model again for each sample.
        return products + (self.capture_of(0) if cost.route == Route.AUTOGRAD else 0.0)

    def held(self, columns: int, rows: int) -> tuple[int, int]:
        """Bound the samples and positions of a tile, with an allowance for padding.

        Args:
            columns: Most column samples of a tile.
            rows: Most further row samples of a tile.

        Returns:
            Most samples, and most positions, that a tile has; of one that is the whole kernel all.
        """
        own, others = self.lengths[: self.layout.columns], self.lengths[self.layout.columns :]
        spans = [own[:columns]]
        # Each part is in order of length, so that its first samples are its longest; rows are of one of the two.
        further = [own[:rows]] if self.layout.symmetric and columns < len(own) else []
        further.append(others[:rows])
        spans.append(max(further, key=sum))
        lengths = [length for span in spans for length in span]
        samples = columns + max(len(span) for span in further)
        return samples, min(math.ceil(sum(lengths) * _PADDING_ALLOWANCE), max(lengths) * samples)


@dataclass
class Pass:
    """One pass over the data: the parameters that it captures, or slices of parameters on the autograd route.

    Attributes:
        route: The way.
        parameters: Names of the parameters.
        slices: For the autograd route, (begin, end) in each flattened parameter.
        columns: Most column samples whose gradients are held at a time, see `tiles_of`.
        rows: The same of row samples.
        tiles: Number of its tiles that are done.
        done: Names of the parameters that are done in the tile after those.
    """

    route: Route
    parameters: list[str]
    slices: list[tuple[int, int]] = field(default_factory=list)
    columns: int = 0
    rows: int = 0
    tiles: int = 0
    done: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pass:
        """Make a pass of what ``dataclasses.asdict`` made of it, as JSON holds that."""
        slices = [(begin, end) for begin, end in data["slices"]]
        return cls(**{**data, "route": Route(data["route"]), "slices": slices})


@dataclass
class Plan:
    """Passes and sizes; with equal plans, equal inputs give equal bits.

    Attributes:
        passes: In order.
        max_cells: Most samples × positions of a batch.
        chunk_bytes: Most bytes of a chunk of materialised gradients.
        budget: Bytes allowed besides the model itself.
        predicted_peak: Bytes that the plan is expected to use.
        capture_flops: Floating-point operations of all forward and backward passes.
        contraction_flops: Those of products of gradients, and of making gradients for them.
    """

    passes: list[Pass]
    max_cells: int
    chunk_bytes: int
    budget: int
    predicted_peak: int
    capture_flops: float = 0.0
    contraction_flops: float = 0.0

    @property
    def largest_tile(self) -> dict[str, int]:
        """Most ``columns`` and ``rows`` of a tile, over all passes that have some."""
        return {name: max((getattr(step, name) for step in self.passes), default=0) for name in ("columns", "rows")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Make a plan of what ``dataclasses.asdict`` made of it, as JSON holds that."""
        return cls(**{**data, "passes": [Pass.from_json(step) for step in data["passes"]]})


def make_plan(work: Work, budget: int) -> Plan:
    """Share a memory budget out, so that as little as possible is computed twice.

    What is captured of all samples may not fit. Then either fewer parameters are captured at a time, and the model is
    run once for each such pass; or fewer samples, in tiles, and it is run for each block of columns on all rows.

    Args:
        work: What is to be computed.
        budget: Bytes allowed besides the model.

    Returns:
        The plan of the fewest operations; of equals that with the larger tiles.

    Raises:
        InputError: The budget is too small for one layer; the message says what would do.
    """
    grids = list(_grids(work.layout))
    plans = [plan for columns, rows in grids if (plan := _Grid(work, columns, rows).plan(budget)) is not None]
    if plans:
        return min(plans, key=lambda plan: plan.capture_flops + plan.contraction_flops)
    smallest = _Grid(work, *grids[-1])
    # Write it a little larger than it is, as it is rounded for people.
    needed = 1.02 * bisect_left(range(2**62), True, lo=budget, key=lambda total: smallest.plan(total) is not None)
    raise InputError(
        f"memory budget {format_bytes(budget)} is too small for one layer ({smallest.largest_name}); "
        f"give at least {format_bytes(needed)}, or fewer or shorter samples"
    )


def _grids(layout: Layout) -> Iterator[tuple[int, int]]:
    """Numbers of columns and of rows of a tile that are worth a look, from the largest on."""
    yield layout.columns, layout.samples
    blocks = 1
    while layout.samples // blocks > _LEAST_TILE:
        blocks += max(1, blocks // 3)
        held = -(-layout.samples // blocks)
        for share in (0.5, 0.67, 0.8):
            columns = min(layout.columns, max(_LEAST_TILE, int(held * share)))
            yield columns, max(_LEAST_TILE, held - columns)


class _Grid:
    """One way to cut the samples, for which passes are looked for."""

    def __init__(self, work: Work, columns: int, rows: int) -> None:
        self.work, self.columns, self.rows = work, columns, rows
        layout = work.layout
        self.samples, self.positions = work.held(columns, rows)
        # The gradients of a column block are captured once, those of its rows for each block; what is made of them in
        # chunks is made again for each tile.
        self.captured = self.remade = 0
        for begin in range(0, layout.columns, columns):
            width, above = min(columns, layout.columns - begin), begin if layout.symmetric else 0
            tiles = max(1, -(-above // rows) + -(-layout.extra // rows))
            self.captured += width + above + layout.extra
            self.remade += tiles * width + above + layout.extra
        w, size = layout.width, work.kernel_itemsize
        height = self.samples if layout.symmetric else self.samples - columns
        self.block_bytes = size * w * w * height * columns
        whole = size * layout.shape[0] * layout.shape[1]
        copies = min((work.threads - 1) * self.block_bytes, syrk.MOST_COPIES) if work.device_type == "cpu" else 0
        mirrored = size * min(512, layout.columns * w) ** 2
        # While gradients are multiplied, and while kernels are put in order one by one, with P in float64 beside.
        multiplying = self.block_bytes + copies + work.product_bytes
        self.kernel_bytes = work.kernels * whole + max(multiplying, whole + mirrored) + work.widened_bytes
        self.column_bytes = work.layout.samples * work.layout.channels * work.itemsize
        self.largest_name, self.largest = "the batch", 0
        for cost in work.costs:
            needed = self.column_bytes if cost.route == Route.AUTOGRAD else self.bytes([cost])
            if needed > self.largest:
                self.largest_name, self.largest = cost.name, needed

    def bytes(self, group: Sequence[ParameterCost]) -> int:
        """Bytes of what is captured of some parameters, of the largest tile."""
        shared = {p.input_key: p.input_position_bytes for p in group if p.input_key}
        own = sum(p.fixed_bytes * self.samples + p.position_bytes * self.positions for p in group)
        return int(own + sum(shared.values()) * self.positions)

    def plan(self, budget: int) -> Plan | None:
        """Fill passes, or return None where not even one parameter fits."""
        work = self.work
        chunk, cells, graph, room = self._shares(budget)
        if room < self.largest:
            return None
        passes, peak, capture = [], 0, 0.0
        for route in (Route.BATCHED, Route.SINGLE):
            members = sorted((p for p in work.costs if p.route == route), key=lambda p: p.order)
            for group in self._fill(members, room):
                passes.append(Pass(route, [p.name for p in group], [], self.columns, self.rows))
                peak = max(peak, self.bytes(group))
                capture += self._capture_flops(group[0].order)
        for names, slices in _slice([p for p in work.costs if p.route == Route.AUTOGRAD], room // self.column_bytes):
            passes.append(Pass(Route.AUTOGRAD, names, slices))
            peak = max(peak, sum(end - begin for begin, end in slices) * self.column_bytes)
            capture += self._capture_flops(0) * work.layout.samples / self.captured
        products = sum(p.flops + p.sample_flops * self.remade for p in work.costs)
        predicted = self.kernel_bytes + chunk + graph + peak
        return Plan(passes, cells, chunk, budget, predicted, capture, products)

    def _shares(self, budget: int) -> tuple[int, int, int, int]:
        """Chunk, cells of a batch, their graph, and what is left for captured layers."""
        work = self.work
        kind = work.device_type if work.device_type in _MOST_CELLS else "cuda"
        left = budget - self.kernel_bytes
        floor = self.samples * max((p.chunk_bytes for p in work.costs), default=0)
        chunk = max(floor, min(_MOST_CHUNK[kind], left // 8))
        # At least one sample must fit, and a batch takes at most a quarter of the budget.
        cells = max(work.longest, min(_MOST_CELLS[kind], int(left / 4 / max(work.graph_bytes_per_cell, 1.0))))
        graph = int(cells * work.graph_bytes_per_cell)
        return chunk, cells, graph, left - chunk - graph

    def _fill(self, members: Sequence[ParameterCost], room: int) -> list[list[ParameterCost]]:
        """Cut neighbours in the network into as few passes as fit."""
        groups: list[list[ParameterCost]] = []
        for cost in members:
            if groups and self.bytes([*groups[-1], cost]) <= room:
                groups[-1].append(cost)
            else:
                groups.append([cost])
        return groups

    def _capture_flops(self, order: int) -> float:
        return self.work.capture_of(order) * self.captured / self.work.layout.samples


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
