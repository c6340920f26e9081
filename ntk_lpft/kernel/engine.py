"""The kernel engines behind one function: from a classifier and two sets of samples to an ``NTKDecomposition``."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ntk_lpft.byte_sizes import format_bytes, parse_bytes
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.rows import Row
from ntk_lpft.devices import float32_products
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.body_parameters import Route
from ntk_lpft.kernel.checkpoint import Checkpoint
from ntk_lpft.kernel.cost import work_of
from ntk_lpft.kernel.decomposition import NTKDecomposition
from ntk_lpft.kernel.free_memory import default_budget
from ntk_lpft.kernel.head_check import feature_gram
from ntk_lpft.kernel.passes import PassRunner
from ntk_lpft.kernel.precision import Precision
from ntk_lpft.kernel.processes import Processes
from ntk_lpft.kernel.rank_form import RankFormGroups
from ntk_lpft.kernel.record import described, identity_of, metadata_of
from ntk_lpft.kernel.resumption import Start, set_out
from ntk_lpft.kernel.selfcheck import run_self_check
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.kernel.setup import KernelSetup, find_classifier, set_up


def compute_ntk(
    model: nn.Module | Classifier,
    inputs: Any,
    other: Any = None,
    *,
    engine: str = "structured",
    precision: str | None = None,
    outputs: str = "full",
    groups: bool = True,
    rank_form: bool = True,
    memory_budget: int | str | None = None,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    process_group: Any = None,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
) -> NTKDecomposition:
    """Compute the empirical NTK of a classifier's logits, split into P and F.

    Θ(x, x') = P(x, x') + F(x, x') (Tomihari and Sato, NeurIPS 2024): the Gram matrix of the logits' gradients with
    respect to the parameters with ``requires_grad``, exactly. P comes from the last linear layer, F from all before
    it. The result does not depend on padding, batch size, memory budget or order, but for rounding.

    Args:
        model: Any sequence classifier of transformers, PEFT-wrapped or not, or this project's own. It is not changed.
        inputs: Rows: a mapping of (N, T) tensors (``input_ids``, ``attention_mask`` and what else the model takes) in
            any padding, as tokenizers return and data frames hold; a sequence of rows or of batches, such as a
            ``datasets.Dataset``; a ``DataLoader`` that does not shuffle; or token ids alone, where the model's padding
            token at either end counts as padding.
        other: Columns, likewise; None for ``inputs`` again.
        engine: ``structured`` (hooks, no dense Jacobian), ``functional`` (``torch.func``) or ``per_example`` (plain
            autograd); all agree to rounding.
        precision: ``float32``, ``float64``, ``tf32`` (CUDA), ``bfloat16`` (products only; accumulates float32), or
            ``bfloat16x6`` or ``bfloat16x3``: each product of the contraction as the sum of six or three bfloat16
            products, for tensor cores, as exact as float32 or to about 2⁻¹⁵. None takes float64 for a model of that
            dtype and float32 for any other.
        outputs: ``full``, ``class_trace`` or ``pseudo``; see ``NTKDecomposition``.
        groups: Whether F is split by parameter group, or kept as one sum, ``body``.
        rank_form: Whether F is computed for the r = rank(V) combinations of the logits that the head can reach, and
            expanded to all C of them when it is asked for. Exact: F = V Θ^φ Vᵀ. The structured engine alone does it; a
            head from logistic regression has r = C − 1. False differentiates every logit.
        memory_budget: Bytes besides the model, or text such as ``4GiB``; None takes a share of what is free.
        device: A torch device; None takes the one the model is on.
        checkpoint: File for the partial kernel. A run that was interrupted goes on from it. It stays until you
            delete it, once the result is safe; until then the same call returns at once.
        process_group: A group of ``torch.distributed`` whose processes share the work; each calls this function with
            the same arguments and gets the same kernel. With a checkpoint on a disk that all of them see, a broken-off
            run can be gone on with by another number of processes. None for this process alone.
        progress: Whether to show a progress bar.
        report: Called with a line of text for each thing worth knowing (plan, self-check, notices).

    Returns:
        The kernel, on the CPU.

    Raises:
        InputError: Bad inputs or settings, a model without a linear head or trainable parameters, a memory budget
            too small for one layer, a checkpoint of another computation, or processes that were given different things
            or of which one failed.
    """
    settings = KernelSettings(
        engine=engine,
        precision=precision,
        outputs=outputs,
        groups=groups,
        rank_form=rank_form,
        memory_budget=memory_budget,
        device=device,
    )
    how = _How(checkpoint, progress, report, process_group)
    if other is None:
        return _compute(model, {"inputs": inputs}, True, settings, how)["train"]
    return _compute(model, {"other": other, "inputs": inputs}, False, settings, how)["eval"]


def compute_train_eval_ntk(
    model: nn.Module | Classifier,
    train: Any,
    evaluation: Any = None,
    *,
    settings: KernelSettings | None = None,
    checkpoint: str | Path | None = None,
    process_group: Any = None,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
) -> dict[str, NTKDecomposition]:
    """Compute train × train and eval × train kernels from one capture of the gradients.

    Args:
        model: As for ``compute_ntk``.
        train: Columns of both kernels, rows of the first.
        evaluation: Rows of the second; None for no second one.
        settings: How.
        checkpoint: As for ``compute_ntk``.
        process_group: As for ``compute_ntk``.
        progress: Whether to show a progress bar.
        report: As for ``compute_ntk``.

    Returns:
        ``{"train": (N, C, N, C), "eval": (M, C, N, C)}``.

    Raises:
        InputError: As for ``compute_ntk``.
    """
    if not isinstance(settings, KernelSettings | None):
        raise InputError(f"settings is of type {type(settings).__name__}; pass KernelSettings(...)")
    rows = {"train": train} if evaluation is None else {"train": train, "evaluation": evaluation}
    how = _How(checkpoint, progress, report, process_group)
    return _compute(model, rows, True, settings or KernelSettings(), how)


def kernel_identity(
    model: nn.Module | Classifier, train: Any, evaluation: Any, *, settings: KernelSettings | None = None
) -> dict[str, Any]:
    """Return all that the kernels of ``compute_train_eval_ntk`` depend on, which is stored with them.

    Args:
        model: As for ``compute_ntk``.
        train: Columns of both kernels, rows of the first.
        evaluation: Rows of the second.
        settings: How.

    Returns:
        Settings, versions, and digests of weights, structure and rows, by the names that a kernel's ``metadata`` has.

    Raises:
        InputError: As for ``compute_ntk``.
    """
    job = prepare_job(model, {"train": train, "evaluation": evaluation}, True, settings or KernelSettings())
    return described(job.identity)


class KernelJob(NamedTuple):
    """What is to be computed, read and checked, before anything is.

    Attributes:
        classifier: The classifier.
        columns: Samples that are columns.
        extra: Samples that are rows only.
        precision: dtypes.
        identity: See `identity_of`.
    """

    classifier: Classifier
    columns: list[Row]
    extra: list[Row]
    precision: Precision
    identity: dict[str, Any]


def prepare_job(
    model: nn.Module | Classifier, inputs: dict[str, Any], symmetric: bool, settings: KernelSettings
) -> KernelJob:
    """Read and check a model and samples.

    Args:
        model: As for ``compute_ntk``.
        inputs: Columns and, where there are some, further rows, under the names that messages call them by.
        symmetric: Whether the columns are rows as well.
        settings: How.

    Returns:
        What is to be computed.

    Raises:
        InputError: Bad settings, samples or model.
    """
    settings.check()
    classifier, columns, extra, precision = find_classifier(model, inputs, settings.precision, settings.device)
    settings = replace(settings, precision=precision.name)
    identity = identity_of(classifier, columns, extra, symmetric, settings)
    return KernelJob(classifier, columns, extra, precision, identity)


@dataclass(frozen=True)
class _How:
    """How a computation is run, apart from what it computes."""

    checkpoint: str | Path | None
    progress: bool
    report: Callable[[str], None] | None
    process_group: Any

    def say(self, line: str) -> None:
        if self.report is not None:
            self.report(line)

    def check(self) -> None:
        if self.report is not None and not callable(self.report):
            raise InputError(
                f"report is of type {type(self.report).__name__}; pass a function of one line of text, such as print"
            )
        if not isinstance(self.checkpoint, str | Path | None):
            raise InputError(f"checkpoint is of type {type(self.checkpoint).__name__}; pass a path")


def _compute(
    model: nn.Module | Classifier, inputs: dict[str, Any], symmetric: bool, settings: KernelSettings, how: _How
) -> dict[str, NTKDecomposition]:
    """Compute a kernel whose columns are the first of the inputs, and whose further rows, if any, are the second."""
    how.check()
    processes = Processes(how.process_group)
    with processes.together("reading the model and its inputs"):
        classifier, columns, extra, precision, identity = prepare_job(model, inputs, symmetric, settings)
        path = None if how.checkpoint is None else Path(how.checkpoint)
        store = Checkpoint(path, identity, processes.rank, processes.count)
        store.check_place()
    processes.check_same("models, samples or settings", json.dumps(identity, sort_keys=True))
    store.sharing = (
        processes.common_name()
    )  # not below, where a process that fails would leave the others to wait for it
    settings, device = replace(settings, precision=precision.name), classifier.device
    began = time.monotonic()
    with classifier.opened(), float32_products(precision.tf32):
        with processes.together("checking the model"):
            pieces = store.pieces()
            setup = set_up(
                classifier,
                columns,
                extra,
                symmetric=symmetric,
                outputs=settings.outputs,
                precision=precision,
                rank_form=settings.rank_form and settings.engine == "structured",
            )
            # Only now, as the model in its dtype and place takes memory as well.
            given = settings.memory_budget
            budget = default_budget(device, processes.neighbours) if given is None else parse_bytes(given)
            check = route_parameters(setup, settings.engine, budget)
            for notice in check.get("notices", []):
                how.say(f"notice: {notice}")
            kernels = len(setup.groups) if settings.groups else 1
            start = set_out(store, pieces, setup.layout, lambda: work_of(setup, kernels), budget, processes)
            if setup.frozen_weights:
                held, wide = ", ".join(setup.frozen_weights), str(precision.model).removeprefix("torch.")
                how.say(f"frozen weights: kept in {held}, widened to {wide} where used")
            _announce(how.say, setup, settings, check, start, processes)
            runner = PassRunner(
                setup, start, settings.engine, merge=not settings.groups, progress=how.progress, report=how.say
            )
        with processes.together("computing its share"):
            runner.run(store)
            outputs = runner.outputs()
        for kernel in runner.kernels.values():
            processes.add_up_(kernel)
        names = [parameter.name for parameter in setup.parameters]
        check["rerouted"] = processes.flags(names, runner.progress.rerouted)
        parts = _assemble(
            setup, runner.kernels, processes.of_first(outputs.features), processes.of_first(outputs.logits), settings
        )
    metadata = metadata_of(setup, identity, check, start, processes.count, time.monotonic() - began)
    for part in parts.values():
        part.metadata.update(metadata)
    return parts


def route_parameters(setup: KernelSetup, engine: str, budget: int) -> dict[str, Any]:
    """Choose the way for every parameter: by the self-check, or all by the reference engine that was asked for.

    Args:
        setup: The setup; its parameters are changed.
        engine: The engine.
        budget: Bytes that the check may take.

    Returns:
        What the self-check found; nothing where there was none.
    """
    if engine == "structured":
        return asdict(run_self_check(setup, budget))
    for parameter in setup.parameters:
        parameter.route, parameter.reason = Route.AUTOGRAD, f"engine {engine}"
    return {}


def _announce(
    say: Callable[[str], None],
    setup: KernelSetup,
    settings: KernelSettings,
    check: dict[str, Any],
    start: Start,
    processes: Processes,
) -> None:
    if check:
        say(
            f"self-check: {check['parameters']} of {check['parameters']} trainable body parameters agree with plain "
            f"autograd on two samples, relative error {check['error']:.1e} (largest {check['worst']:.1e})"
        )
        if check["split"] is not None:
            found = check["split"]
            say(
                f"self-check: {settings.precision} products of the two samples' gradients err by "
                f"{found['sum_error']:.1e} of their size at most (bound {found['sum_bound']:.1e})"
            )
    if setup.basis is not None and setup.head_rank is not None:
        k, c = len(setup.seeds), len(setup.basis)
        rank = setup.head_rank.rank
        say(f"rank form: the head has rank {rank}, so F is computed for {k} of {c} combinations of the logits")
    plan, tile = start.plan, start.plan.largest_tile
    shared = "" if processes.count == 1 else f"process {processes.rank + 1} of {processes.count}, "
    tiles = f" in tiles of {tile['columns']} samples" if 0 < tile["columns"] < setup.layout.columns else ""
    say(
        f"plan: {shared}engine {settings.engine}, precision {settings.precision}, passes over the data: "
        f"{len(plan.passes)}{tiles}, predicted peak {format_bytes(plan.predicted_peak)} of "
        f"{format_bytes(plan.budget)} besides the model"
    )
    if start.tensors:
        done = [f"{count} {name.removeprefix('resumed_after_')}" for name, count in start.resumed.items() if count]
        say(f"going on after {', '.join(done) or 'the start'} of an interrupted run")


def _assemble(
    setup: KernelSetup, kernels: dict[str, Tensor], features: Tensor, logits: Tensor, settings: KernelSettings
) -> dict[str, NTKDecomposition]:
    """Cut kernels in internal order into the parts that the caller asked for, in the caller's order."""
    layout, w = setup.layout, setup.layout.width
    m = layout.columns
    gram = feature_gram(setup.classifier.head, features if layout.symmetric else features[m:], features[:m])
    feature_kernels = setup.external(gram.to(setup.precision.kernel), 1)
    scale = 1.0 / setup.seeds.shape[1] if layout.traced else 1.0
    blocks: dict[str, dict[str, Tensor]] = {part: {} for part in feature_kernels}
    # One by one, so that each is freed once it has been put in order.
    for name in list(kernels):
        for part, block in setup.external(layout.complete_(kernels.pop(name)).mul_(scale), w).items():
            shape = (block.shape[0] // w, w, block.shape[1] // w, w)
            blocks[part][name] = block.view(shape) if settings.outputs == "full" else block
    by_part = setup.by_part(logits.cpu())
    groups = setup.groups if settings.groups else {"body": [n for names in setup.groups.values() for n in names]}
    return {
        part: NTKDecomposition(
            feature_kernel=feature_kernel,
            ft_groups=_groups(blocks[part], setup, part == "train"),
            row_logits=by_part[part],
            column_logits=by_part["train"],
            outputs=settings.outputs,
            symmetric=part == "train",
            parameter_groups={name: list(groups[name]) for name in blocks[part]},
        )
        for part, feature_kernel in feature_kernels.items()
    }


def _groups(blocks: dict[str, Tensor], setup: KernelSetup, symmetric: bool) -> Mapping[str, Tensor]:
    """Return F by group, in rank form where it was computed so."""
    if setup.basis is None or not blocks or setup.layout.traced:
        return blocks
    return RankFormGroups(setup.basis, blocks, symmetric=symmetric)
