"""Carries a plan out, pass by pass, whichever engine the gradients come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ntk_lpft.classifier.rows import Batch
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.autograd import equal_length_batches, functional_gradients, sample_gradients, single_batches
from ntk_lpft.kernel.capture import ShapeMismatch, capture
from ntk_lpft.kernel.checkpoint import Checkpoint
from ntk_lpft.kernel.contract import Workspace, contract
from ntk_lpft.kernel.headview import HeadView
from ntk_lpft.kernel.memory import Pass, Plan
from ntk_lpft.kernel.problem import Problem
from ntk_lpft.kernel.records import Record, is_zero
from ntk_lpft.kernel.sites import Route, Site

Notice = Callable[[str], None]

# Samples that torch.func is given at a time on the functional engine.
_FUNCTIONAL_BATCH = 8


class Runner:
    """Accumulates the kernels of all parameter groups of one problem.

    Args:
        problem: What to compute.
        plan: In which passes.
        engine: "structured", "functional" or "per_example"; the latter two decide how dense gradients are made.
        merge: Whether all groups are added into one kernel.
        progress: Whether a progress bar is shown.
        report: Called with a line of text for each thing worth knowing.
    """

    def __init__(
        self, problem: Problem, plan: Plan, engine: str, *, merge: bool, progress: bool, report: Notice
    ) -> None:
        self.problem = problem
        self.plan = plan
        self.engine = engine
        self.merge = merge
        self.workspace = Workspace(plan.chunk_bytes)
        self.sites = {site.name: site for site in problem.sites}
        self.max_cells = plan.max_cells
        names = ["body"] if merge and problem.sites else list(problem.groups)
        self.kernels = {name: problem.layout.zeros(problem.precision.kernel, problem.device) for name in names}
        self.seen: dict[str, Tensor] = {}
        self.progress = progress
        self.report = report
        self.rerouted: list[str] = []

    def run(self, checkpoint: Checkpoint, done: int, partial: dict[str, Tensor], self_check: dict[str, Any]) -> None:
        """Do the passes that are not done yet, and write the partial kernels after each one.

        Args:
            checkpoint: Where partial kernels go.
            done: Number of passes that ``partial`` already holds.
            partial: Partial kernels of a run that was interrupted.
            self_check: Stored beside the partial kernels.
        """
        for name, value in partial.items():
            kind, _, rest = name.partition("/")
            if kind == "kernel":
                self.kernels[rest].copy_(value)
            else:
                # A copy, since a tensor of a file may lie unaligned, and products then round otherwise.
                self.seen[rest] = value.clone().to(self.problem.device)
        samples = self.problem.layout.samples
        total = sum(samples + len(p.sites) * samples for p in self.plan.passes)
        finished = sum(samples + len(p.sites) * samples for p in self.plan.passes[:done])
        bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"
        with tqdm(total=total, initial=finished, delay=1, disable=not self.progress, bar_format=bar_format) as bar:
            for number, step in enumerate(self.plan.passes[done:], start=done + 1):
                bar.set_description(f"kernel, pass {number} of {len(self.plan.passes)}", refresh=False)
                if step.route == Route.AUTOGRAD:
                    self._dense_pass(step, bar)
                else:
                    self._structured_pass(step, bar)
                state = {f"kernel/{name}": value for name, value in self.kernels.items()}
                state |= {f"head/{name}": value for name, value in self.seen.items()}
                checkpoint.save(number, self.plan, state, self_check)

    def features(self) -> tuple[Tensor, Tensor]:
        """φ and f0 of all samples, in internal order; a pass of their own only where no other one showed them.

        Raises:
            InputError: Some are NaN or infinite.
        """
        if not self.seen:
            self.seen = dict(zip(("features", "logits"), self.problem.features(), strict=True))
        self.problem.check_finite(self.seen["features"], self.seen["logits"])
        return self.seen["features"], self.seen["logits"]

    def _kernel(self, name: str) -> Tensor:
        return self.kernels["body" if self.merge else self.problem.group_of[name]]

    def _structured_pass(self, step: Pass, bar: tqdm) -> None:
        sites = [self.sites[name] for name in step.sites]
        records = self._capture(sites, 1 if step.route == Route.SINGLE else None, bar)
        for site in sites:
            parts = records.pop(site.name)
            if parts is None:
                self._by_autograd(site)
            elif parts:
                self._contract(site, parts)
            bar.update(self.problem.layout.samples)

    def _by_autograd(self, site: Site) -> None:
        """Compute a site whose rule turned out not to hold, in slices of a quarter of the budget."""
        self.report(
            f"notice: computed by plain autograd: {site.name} (some samples use it in a way not checked before)"
        )
        self.rerouted.append(site.name)
        layout, entries = self.problem.layout, site.parameter.numel()
        row = layout.samples * layout.channels * self.problem.precision.model.itemsize
        columns = max(1, self.plan.budget // 4 // row)
        for begin in range(0, entries, columns):
            self._dense_pass(Pass(Route.AUTOGRAD, [site.name], [(begin, min(begin + columns, entries))]), None)

    def _capture(self, sites: Sequence[Site], max_rows: int | None, bar: tqdm) -> dict[str, list[Record] | None]:
        """Capture all samples; where a GPU's memory runs out, again with batches of half the size.

        Returns:
            Records of each site, or None where its rule does not hold for some sample.
        """
        problem = self.problem
        view = HeadView(problem.head.module)
        while True:
            records: dict[str, list[Record] | None] = {site.name: [] for site in sites}
            reached = 0
            view.clear()
            try:
                for batch in problem.batches(self.max_cells, max_rows):
                    with view:
                        found = capture(problem.model, sites, batch, problem.seeds, problem.precision.product)
                    for name, record in found.items():
                        held = records[name]
                        if isinstance(record, ShapeMismatch) or not (self.sites[name].verified or is_zero(record)):
                            records[name] = None
                        elif held is not None:
                            held.append(record)
                    bar.update(batch.size)
                    reached += batch.size
                self.seen = self.seen or view.result(problem.layout.samples)
                return records
            except torch.OutOfMemoryError:
                if self.max_cells <= 1 or max_rows == 1:
                    raise
                self.max_cells //= 2
                bar.update(-reached)
            del records
            torch.cuda.empty_cache()

    def _contract(self, site: Site, records: Sequence[Record]) -> None:
        """Add one parameter's kernel, whole or not at all; with smaller chunks where a GPU's memory runs out."""
        problem = self.problem
        while True:
            try:
                block = problem.layout.zeros(problem.precision.kernel, problem.device)
                contract(block, problem.layout, records, self.workspace)
                self._kernel(site.name).add_(block)
                return
            except torch.OutOfMemoryError:
                if not self.workspace.halve():
                    raise
            torch.cuda.empty_cache()

    def _dense_pass(self, step: Pass, bar: tqdm | None) -> None:
        problem, layout = self.problem, self.problem.layout
        widths = [end - begin for begin, end in step.slices]
        jacobians = [
            torch.empty((layout.samples, layout.channels, width), dtype=problem.precision.model, device=problem.device)
            for width in widths
        ]
        for batch in self._dense_batches():
            rows = slice(batch.start, batch.start + batch.size)
            for jacobian, gradient, (begin, end) in zip(
                jacobians, self._dense_gradients(step, batch), step.slices, strict=True
            ):
                jacobian[rows] = gradient[..., begin:end]
            if bar is not None:
                bar.update(batch.size)
        for name, jacobian in zip(step.sites, jacobians, strict=True):
            layout.add_gram_(self._kernel(name), layout.matrix(jacobian.to(problem.precision.product)))
            if bar is not None:
                bar.update(layout.samples)

    def _dense_batches(self) -> Any:
        problem = self.problem
        if self.engine == "functional":
            return equal_length_batches(problem.rows, _FUNCTIONAL_BATCH, problem.pad_id, problem.device)
        return single_batches(problem.rows, problem.pad_id, problem.device)

    def _dense_gradients(self, step: Pass, batch: Batch) -> list[Tensor]:
        """(n, k, p) for each parameter of the pass."""
        problem = self.problem
        if self.engine == "functional":
            try:
                return functional_gradients(problem.model, step.sites, batch, problem.seeds)
            except RuntimeError as failure:
                raise InputError(
                    f"torch.func cannot differentiate this model ({str(failure).splitlines()[0]}); "
                    "use engine structured or per_example"
                ) from failure
        parameters = [self.sites[name].parameter for name in step.sites]
        return [g[None] for g in sample_gradients(problem.model, parameters, batch, problem.seeds)]
