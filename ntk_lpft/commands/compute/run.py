"""What ``python -m ntk_lpft.compute`` does."""

from __future__ import annotations

from pathlib import Path

import torch

from ntk_lpft.classifier import head_norm
from ntk_lpft.commands.compute import report
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.compute.start import build_classifier, read_samples
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.commands.running import quiet_libraries
from ntk_lpft.devices import command_device
from ntk_lpft.kernel import KernelSettings, compute_train_eval_ntk, save_parts
from ntk_lpft.kernel.precision import resolve_precision
from ntk_lpft.options import part_of
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
    resolve_precision(options.precision, command_device(options.device))
    run = KernelRun(options.folder())
    # An interrupted run leaves its partial kernel, to the very end; what else is there it will write again.
    run.open(overwrite=options.overwrite or run.interrupted)
    samples = read_samples(options)
    print(f"data:   {samples.task.name} from {samples.task.source}; {report.describe(samples.train)} × itself and "
          f"× {report.describe(samples.evaluation)}")  # fmt: skip
    start = build_classifier(options, samples)
    classifier = start.classifier
    print(f"model:  {report.describe_model(options.model, classifier.module)}")
    if options.overwrite:
        run.drop_partial_kernel()
    parts = compute_train_eval_ntk(
        classifier,
        samples.train,
        samples.evaluation,
        settings=part_of(options, KernelSettings, device=str(classifier.device)),
        checkpoint=run.file(run.PARTIAL_KERNEL),
        progress=True,
        report=lambda line: print(f"kernel: {line}"),
    )
    run.clear()
    save_parts(run.path, parts)
    run.write_config(
        {
            "options": stored_options(options),
            "versions": versions(),
            "data": {"train": samples.train.description(), "eval": samples.evaluation.description()},
            "label_names": list(samples.task.label_names),
            "source": samples.task.source,
        }
    )
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
        head_norm=head_norm(classifier.head),
        probe=start.probe,
    )
    run.seal()
    run.drop_partial_kernel()
    report.show(run, results, parts, start.probe)
    return run.path
