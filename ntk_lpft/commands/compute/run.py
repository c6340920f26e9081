"""What ``python -m ntk_lpft.compute`` does."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ntk_lpft.classifier import Classifier, head_norm
from ntk_lpft.commands.compute import report
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.compute.start import KernelSamples, KernelStart, build_classifier, read_samples, settle_head
from ntk_lpft.commands.data import data_lines, task_of
from ntk_lpft.commands.launched import meeting
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.commands.running import quiet_libraries
from ntk_lpft.devices import command_device
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import plain
from ntk_lpft.kernel import KernelSettings, NTKDecomposition, compute_train_eval_ntk, price_ntk, save_parts
from ntk_lpft.kernel.engine import kernel_identity
from ntk_lpft.kernel.precision import resolve_precision
from ntk_lpft.kernel.processes import Processes
from ntk_lpft.options import inputs_of, part_of
from ntk_lpft.provenance import versions
from ntk_lpft.runs import KernelRun


def compute(options: ComputeOptions) -> Path:
    """Compute a kernel, say what it means, and write both.

    Args:
        options: Resolved options.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the data or the model.
    """
    quiet_libraries()
    resolve_precision(options.precision, command_device(options.device))  # before anything is loaded
    with meeting(options.device) as group:
        return _compute_with(options, Processes(group), group)


def _compute_with(options: ComputeOptions, processes: Processes, group: Any) -> Path:
    """Do the same in each of the processes that share the work; the first one alone writes and speaks."""
    first = processes.rank == 0
    with ExitStack() as folder:
        with processes.together("reading its options"):
            task = task_of(options)
            options = settle_head(options, task)
            run = KernelRun(options.folder())
            # An interrupted run leaves its partial kernel, to the very end; what else is there it will write again.
            replaces = options.overwrite or run.interrupted
        with processes.together("opening the folder of results"):
            if first and not options.dry_run:
                more = [name for name in run.partial_kernels(processes.count) if name not in run.SCRATCH]
                opened = run.opened(
                    overwrite=replaces, more=more, inputs=inputs_of(options), options=stored_options(options)
                )
                folder.enter_context(opened)
        with processes.together("reading data"):
            samples = read_samples(options, task)
            print(f"data:   {samples.task.name} from {samples.task.source}; {report.describe(samples.train)} × itself "
                  f"and × {report.describe(samples.evaluation)}")  # fmt: skip
            for line in data_lines(samples.task):
                print(line)
        start = _start(options, samples, processes)
        print(f"model:  {report.describe_model(options.model, start.classifier.module)}")
        if options.dry_run:
            with processes.together("pricing the kernel"):
                _price(options, samples, start, processes.count)
            return run.path
        finished = processes.flags(["finished"], ["finished"] if first and run.finished and not replaces else [])
        if finished:
            with processes.together("comparing settings"):
                _check_same(run, options, samples, start.classifier)
            print(f"{run.path} holds a finished run of these settings")
        else:
            _compute(run, options, samples, start, processes, group)
        with processes.together("showing results"):
            if first:
                report.show(run)
    return run.path


def _start(options: ComputeOptions, samples: KernelSamples, processes: Processes) -> KernelStart:
    """Build the classifier: first in the first process, whose linear probe the others then find in the cache."""
    start: KernelStart | None = None
    for others in (False, True):
        with processes.together("building the classifier"):
            if (processes.rank > 0) is others:
                start = build_classifier(options, samples)
    assert start is not None
    for parameter in start.classifier.head.parameters:
        # Fitted on another machine, it could differ in the last bit.
        parameter.data.copy_(processes.of_first(parameter.data))
    return start


def _price(options: ComputeOptions, samples: KernelSamples, start: KernelStart, processes: int) -> None:
    price = price_ntk(
        start.classifier,
        samples.train,
        samples.evaluation,
        settings=_settings(options, start.classifier),
        processes=processes,
    )
    for line in price.lines():
        print(line)


def _settings(options: ComputeOptions, classifier: Classifier) -> KernelSettings:
    return part_of(options, KernelSettings, device=str(classifier.device))


def _config(options: ComputeOptions, samples: KernelSamples) -> dict[str, Any]:
    return {
        "options": stored_options(options),
        "versions": versions(),
        "data": {"train": samples.train.description(), "eval": samples.evaluation.description()},
        "label_names": list(samples.task.label_names),
        "source": samples.task.source,
    }


def _check_same(run: KernelRun, options: ComputeOptions, samples: KernelSamples, classifier: Classifier) -> None:
    """Refuse a finished run of the same options whose data, weights or versions were others, or that is damaged."""
    again = "choose another --output-dir, or give --overwrite"
    now = kernel_identity(classifier, samples.train, samples.evaluation, settings=_settings(options, classifier))
    then = NTKDecomposition.load(run.path, "train").metadata
    changed = [name for name in now if then.get(name) != now[name]]
    content = run.config()
    changed += [name for name, value in _config(options, samples).items() if content.get(name) != plain(value)]
    if changed:
        raise InputError(
            f"output folder {run.path} already holds a finished run of these options, in which "
            f"{', '.join(changed)} differed; {again}"
        )


def _compute(
    run: KernelRun,
    options: ComputeOptions,
    samples: KernelSamples,
    start: KernelStart,
    processes: Processes,
    group: Any,
) -> None:
    """Compute the kernel, and write all that there is to say about it."""
    classifier, first = start.classifier, processes.rank == 0
    with processes.together("beginning"):
        if first:
            run.claim()
            if options.overwrite:
                run.drop_partial_kernels()
    parts = compute_train_eval_ntk(
        classifier,
        samples.train,
        samples.evaluation,
        settings=_settings(options, classifier),
        checkpoint=run.file(run.PARTIAL_KERNEL),
        process_group=group,
        progress=first,
        report=lambda line: print(f"kernel: {line}"),
    )
    with processes.together("writing results"):
        if first:
            _write(run, options, samples, start, parts)


def _write(
    run: KernelRun,
    options: ComputeOptions,
    samples: KernelSamples,
    start: KernelStart,
    parts: Mapping[str, NTKDecomposition],
) -> None:
    run.clear()
    run.write_config(_config(options, samples))
    save_parts(run.path, parts)
    labels = torch.tensor(samples.train.labels)
    results = report.analyse(
        parts,
        labels,
        torch.tensor(samples.evaluation.labels),
        kernel_classifier=options.kernel_classifier,
        max_iter=options.max_iter,
    )
    report.write(
        run,
        results,
        parts,
        labels,
        samples.task.label_names,
        head_norm=head_norm(start.classifier.head),
        probe=start.probe,
    )
    run.seal()
    run.drop_partial_kernels()
