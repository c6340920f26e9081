"""Carries a plan out, pass by pass, whichever engine the gradients come from."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ntk_lpft.classifier.classifier import Outputs
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.autograd import equal_length_batches, functional_gradients, sample_gradients
from ntk_lpft.kernel.body_parameters import BodyParameter, Route
from ntk_lpft.kernel.capture import CaptureError, capture
from ntk_lpft.kernel.checkpoint import Checkpoint
from ntk_lpft.kernel.contract import Workspace, contract
from ntk_lpft.kernel.gradients import SampleGradients, has_gradient
from ntk_lpft.kernel.head_observer import HeadObserver
from ntk_lpft.kernel.memory import Pass
from ntk_lpft.kernel.resumption import Start
from ntk_lpft.kernel.setup import KernelSetup, check_finite_outputs
from ntk_lpft.kernel.tiles import Tile, tiles_of
from ntk_lpft.library_errors import lacks_memory

Notice = Callable[[str], None]

# Samples that torch.func is given at a time on the functional engine.
_FUNCTIONAL_BATCH = 8


class Captured(NamedTuple):
    """What was captured of some samples.

    Attributes:
        records: Gradients by parameter, or None where its rule does not hold for some sample.
        outputs: φ and f0 of the samples, where they were seen.
    """

    records: dict[str, list[SampleGradients] | None]
    outputs: dict[str, Tensor]


class PassRunner:
    """Accumulates the kernels of all parameter groups of one setup.

    Args:
        setup: What to compute.
        start: In which passes, and what of that is done.
        engine: "structured", "functional" or "per_example"; the latter two decide how dense gradients are made.
        merge: Whether all groups are added into one kernel.
        progress: Whether a progress bar is shown.
        report: Called with a line of text for each thing worth knowing.
    """

    def __init__(
        self, setup: KernelSetup, start: Start, engine: str, *, merge: bool, progress: bool, report: Notice
    ) -> None:
        self.setup = setup
        self.plan = plan = start.plan
        self.engine = engine
        self.workspace = Workspace(plan.chunk_bytes)
        self.parameters = {parameter.name: parameter for parameter in setup.parameters}
        self.max_cells = plan.max_cells
        self.group_of = {name: "body" if merge else group for group, names in setup.groups.items() for name in names}
        names = dict.fromkeys(self.group_of.values())
        self.kernels = {name: setup.layout.zeros(setup.precision.kernel, setup.classifier.device) for name in names}
        self.seen: dict[str, Tensor] = {}
        self.shows = progress
        self.report = report
        self.progress = start.progress
        for name, value in start.tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "kernel":
                self.kernels[rest].copy_(value)
            else:
                # A copy, since a tensor of a file may lie unaligned, and products then round otherwise.
                self.seen[rest] = value.clone().to(setup.classifier.device)

    def run(self, checkpoint: Checkpoint) -> None:
        """Do what is not done yet, and write the partial kernels after each pass, and within long ones.

        Args:
            checkpoint: Where partial kernels go.
        """
        begun = self.progress.passes
        samples = self.setup.layout.samples
        work = [samples + len(step.parameters) * samples for step in self.plan.passes]
        bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"
        with tqdm(
            total=sum(work), initial=sum(work[:begun]), delay=1, disable=not self.shows, bar_format=bar_format
        ) as bar:
            for number, step in enumerate(self.plan.passes[begun:], start=begun + 1):
                bar.set_description(f"kernel, pass {number} of {len(self.plan.passes)}", refresh=False)
                if step.route == Route.AUTOGRAD:
                    self._dense_pass(step, bar)
                else:
                    self._structured_pass(step, bar, checkpoint)
                self.progress.passes = number
                self._save(checkpoint)

    def _save(self, checkpoint: Checkpoint) -> None:
        state = {f"kernel/{name}": value for name, value in self.kernels.items()}
        checkpoint.save(self.progress, self.plan, state | {f"head/{name}": value for name, value in self.seen.items()})

    def outputs(self) -> Outputs:
        """φ and f0 of all samples, in internal order; a pass of their own only where no other one showed them.

        Returns:
            φ, of shape (S, h), and f0, of shape (S, C), of the S samples.

        Raises:
            InputError: Some are NaN or infinite.
        """
        if not self.seen:
            self.seen = self.setup.outputs()._asdict()
        outputs = Outputs(**self.seen)
        check_finite_outputs(outputs)
        return outputs

    def _kernel(self, name: str) -> Tensor:
        return self.kernels[self.group_of[name]]

    def _structured_pass(self, step: Pass, bar: tqdm, checkpoint: Checkpoint) -> None:
        """Capture and contract block of columns by block of columns, and in each the tiles of its rows."""
        parameters = [self.parameters[name] for name in step.parameters]
        most = 1 if step.route == Route.SINGLE else None
        layout, begun = self.setup.layout, step.tiles
        blocks = list(tiles_of(layout, step.columns, step.rows))
        # The bar counts samples captured, and samples contracted for each parameter; with tiles, their share of it.
        cells = sum(tile.width + tile.height for block in blocks for tile in block)
        number = 0
        for block in blocks:
            if number + len(block) <= begun:
                number += len(block)
                continue
            columns = self._capture(parameters, block[0].columns, 0, most)
            for tile in block:
                number += 1
                if number <= begun:
                    continue
                rows = self._capture(parameters, tile.rows, tile.width, most) if tile.height else None
                share = layout.samples * (tile.width + tile.height) / cells
                bar.update(share)
                self._notice_outputs(tile, columns, rows)
                last = tile is block[-1]
                for parameter in parameters:
                    if parameter.name not in step.done:
                        self._add(parameter, tile, columns, rows)
                        step.done.append(parameter.name)
                        if checkpoint.due:
                            self._save(checkpoint)
                    for captured in [columns, rows] if last else [rows]:
                        if captured is not None:
                            captured.records.pop(parameter.name)  # let go of each as soon as it is used up
                    bar.update(share)
                step.tiles, step.done = number, []

    def _notice_outputs(self, tile: Tile, columns: Captured, rows: Captured | None) -> None:
        """Keep φ and f0 where a tile of all samples showed them."""
        if not self.seen and tile.covers(self.setup.layout):
            views = [columns.outputs] + ([] if rows is None else [rows.outputs])
            if all(views):
                self.seen = {name: torch.cat([view[name] for view in views]) for name in views[0]}

    def _add(self, parameter: BodyParameter, tile: Tile, columns: Captured, rows: Captured | None) -> None:
        """Add one parameter's kernel of one tile."""
        parts = columns.records[parameter.name]
        if rows is not None and parts is not None:
            others = rows.records[parameter.name]
            parts = None if others is None else [*parts, *others]
        if (
            parts is None
            or parameter.name in self.progress.rerouted
            or (parts and not self._contract(parameter, tile, parts))
        ):
            self._by_autograd(parameter, tile)

    def _by_autograd(self, parameter: BodyParameter, tile: Tile) -> None:
        """Compute a tile of a parameter whose rule turned out not to hold, in slices of a quarter of the budget."""
        if parameter.name not in self.progress.rerouted:
            why = "some samples use it in a way not checked before"
            self.report(f"notice: computed by plain autograd: {parameter.name} ({why})")
            self.progress.rerouted.append(parameter.name)
        entries = parameter.tensor.numel()
        layout = tile.layout(self.setup.layout)
        row = layout.samples * layout.channels * self.setup.precision.model.itemsize
        columns = max(1, self.plan.budget // 4 // row)
        for begin in range(0, entries, columns):
            piece = Pass(Route.AUTOGRAD, [parameter.name], [(begin, min(begin + columns, entries))])
            self._dense_tile(piece, tile, tqdm(disable=True))

    def _capture(
        self, parameters: Sequence[BodyParameter], span: tuple[int, int], start: int, max_rows: int | None
    ) -> Captured:
        """Capture some samples; where a GPU's memory runs out, again with batches of half the size.

        Args:
            parameters: The parameters whose gradients are captured.
            span: First sample and the one behind the last, by internal numbers.
            start: What the records call the first of them.
            max_rows: Most samples of a batch; None leaves its size to ``max_cells``.

        Returns:
            Records of each parameter, or None where its rule does not hold for some sample.
        """
        while True:
            try:
                return self._captured(parameters, span, start, max_rows)
            except torch.OutOfMemoryError:
                if self.max_cells <= 1 or max_rows == 1:
                    raise
                self.max_cells //= 2
            # By now nothing holds what was captured before it failed.
            torch.cuda.empty_cache()

    def _captured(
        self, parameters: Sequence[BodyParameter], span: tuple[int, int], start: int, max_rows: int | None
    ) -> Captured:
        """Capture some samples, in batches of the size that fits as far as is known."""
        setup = self.setup
        view = HeadObserver(setup.classifier.head.module, setup.classifier.device)
        records: dict[str, list[SampleGradients] | None] = {parameter.name: [] for parameter in parameters}
        surprising: dict[str, list[Tensor]] = {}
        for batch in setup.batches(self.max_cells, max_rows, span, start):
            with view.installed():
                captured = capture(setup.classifier.module, parameters, batch, setup.seeds, setup.precision.product)
            for name, record in captured.items():
                held = records[name]
                if isinstance(record, CaptureError):
                    records[name] = None
                elif held is not None:
                    held.append(record)
                    if not self.parameters[name].verified:
                        surprising.setdefault(name, []).append(has_gradient(record))
        if surprising:  # asked for all of them at once, as each answer has to be waited for
            answers = torch.stack([torch.stack(some).any() for some in surprising.values()]).tolist()
            records |= {name: None for name, found in zip(surprising, answers, strict=True) if found}
        return Captured(records, view.result(span[1] - span[0]))

    def _contract(self, parameter: BodyParameter, tile: Tile, records: Sequence[SampleGradients]) -> bool:
        """Add one parameter's kernel of a tile, with smaller chunks where a GPU's memory runs out.

        Args:
            parameter: The parameter.
            tile: The tile.
            records: Its gradients of the tile's samples.

        Returns:
            Whether it was added; else nothing was, as the records do not fit each other.
        """
        setup = self.setup
        layout = tile.layout(setup.layout)
        while True:
            try:
                block = layout.zeros(setup.precision.kernel, setup.classifier.device)
                contract(block, layout, records, self.workspace)
                tile.add_(self._kernel(parameter.name), block, setup.layout)
                return True
            except torch.OutOfMemoryError:
                if not self.workspace.halve():
                    raise
            except (RuntimeError, ValueError, IndexError) as error:
                if lacks_memory(error):
                    raise
                return False
            torch.cuda.empty_cache()

    def _dense_pass(self, step: Pass, bar: tqdm) -> None:
        layout = self.setup.layout
        self._dense_tile(step, Tile((0, layout.columns), (layout.columns, layout.samples), layout.symmetric), bar)

    def _dense_tile(self, step: Pass, tile: Tile, bar: tqdm) -> None:
        """Add the kernel of some entries of some parameters on the samples of one tile."""
        setup, layout = self.setup, tile.layout(self.setup.layout)
        device = setup.classifier.device
        jacobians = [
            torch.empty((layout.samples, layout.channels, end - begin), dtype=setup.precision.model, device=device)
            for begin, end in step.slices
        ]
        for batch in self._dense_batches(tile):
            rows = slice(batch.start, batch.start + batch.size)
            for jacobian, gradient, (begin, end) in zip(
                jacobians, self._dense_gradients(step, batch), step.slices, strict=True
            ):
                jacobian[rows] = gradient[..., begin:end]
            bar.update(batch.size)
        for name, jacobian in zip(step.parameters, jacobians, strict=True):
            factor = layout.matrix(jacobian.to(setup.precision.product))
            if tile.covers(setup.layout):
                layout.add_gram_(self._kernel(name), factor)
            else:
                block = layout.zeros(setup.precision.kernel, device)
                layout.add_gram_(block, factor)
                tile.add_(self._kernel(name), block, setup.layout)
            bar.update(layout.samples)

    def _dense_batches(self, tile: Tile) -> Iterator[Batch]:
        setup = self.setup
        rows = [*setup.rows[slice(*tile.columns)], *setup.rows[slice(*tile.rows)]]
        if self.engine == "functional":
            return equal_length_batches(setup.classifier, rows, _FUNCTIONAL_BATCH)
        return setup.classifier.batches(rows, max_cells=1, max_rows=1)

    def _dense_gradients(self, step: Pass, batch: Batch) -> list[Tensor]:
        """(n, k, p) for each parameter of the pass."""
        setup = self.setup
        if self.engine == "functional":
            try:
                return functional_gradients(setup.classifier.module, step.parameters, batch, setup.seeds)
            except RuntimeError as failure:
                raise InputError(
                    f"torch.func cannot differentiate this model ({str(failure).splitlines()[0]}); "
                    "use engine structured or per_example"
                ) from failure
        parameters = [self.parameters[name].tensor for name in step.parameters]
        return [g[None] for g in sample_gradients(setup.classifier.module, parameters, batch, setup.seeds)]
