"""What ``python -m ntk_lpft.finetune`` does: one run, or one for each head scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments, set_seed

from ntk_lpft.classifier import Classifier, head_norm, load_tokenizer
from ntk_lpft.classifier.classes import names_of_classes
from ntk_lpft.classifier.saving import save_classifier
from ntk_lpft.classifier.trained_head import trained_head
from ntk_lpft.commands.data import data_lines, model_checksums, model_of
from ntk_lpft.commands.finetune import report
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.finetune.training import SECRET, RunSettings
from ntk_lpft.commands.running import quiet_libraries
from ntk_lpft.disk_errors import named_disk_errors
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.checkpoint import checkpoint_step, last_checkpoint, remove_checkpoints
from ntk_lpft.finetuning.evaluation import encoded_splits, predict_splits, split_metrics
from ntk_lpft.finetuning.methods import HeadStart, Start, check_start, fine_tune, prepare_start
from ntk_lpft.finetuning.settings import Method
from ntk_lpft.prediction import compare_with_training
from ntk_lpft.probing import cached_features
from ntk_lpft.probing.cache import Say
from ntk_lpft.provenance import versions
from ntk_lpft.runs import FinetuneRun, HeadScaleGrid, TrackingLog
from ntk_lpft.tasks import EncodedSplit, Task
from ntk_lpft.tracking import ProbeSet, Tracker, measure_classifier
from ntk_lpft.tracking.measures import probe_features


def finetune(settings: RunSettings, task: Task) -> Path:
    """Run the command.

    Args:
        settings: What to do.
        task: The data.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the data or the model.
    """
    quiet_libraries()
    factors = settings.options.head_scale
    if len(factors) == 1:
        return train_one(settings, task)
    writes = settings.arguments().process_index == 0
    grid = HeadScaleGrid(settings.path)
    members = [settings.member(grid, factor) for factor in factors]
    # Where every run is there or goes on, so does the table of all.
    replaces = settings.options.overwrite or settings.options.resume
    replaces = replaces or all(member.run.holds(member.to_json()) for member in members)
    with grid.opened(overwrite=replaces, inputs=settings.inputs()) if writes else nullcontext():
        for member in members if writes else ():
            member.run.check_to_train(**member.of_its_folder())
        for member in members:
            train_one(member, task)
        if writes:
            grid.clear()
            grid.write_config({"options": settings.to_json(), "versions": _versions()})
            report.write_grid(grid, factors)
    return grid.path


def train_one(settings: RunSettings, task: Task) -> Path:
    """Train one classifier, and write all that there is to say about it."""
    with named_disk_errors(settings.path):  # transformers and peft write files as well
        return _train_one(settings, task)


def _train_one(settings: RunSettings, task: Task) -> Path:
    arguments = settings.arguments()
    set_seed(arguments.seed)
    run = settings.run
    with run.opened_to_train(**settings.of_its_folder()) if arguments.process_index == 0 else nullcontext():
        _train_inside(settings, task, run, arguments)
    return run.path


def _train_inside(settings: RunSettings, task: Task, run: FinetuneRun, arguments: TrainingArguments) -> None:
    options = settings.options
    writes = arguments.process_index == 0
    say: Say = print if writes else lambda line: None  # the other processes of a distributed run say nothing
    done = run.finished and not options.overwrite
    if writes and options.resume:
        run.check_same({"options": settings.to_json()}, ["options"], SECRET)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    with arguments.main_process_first(desc="reading data"):
        splits = encoded_splits(
            task, tokenizer, options.max_length, n_train=options.n_train, n_eval=options.n_eval, seed=arguments.seed
        )
    _check_sizes(task, splits)
    config = _config(settings, task, splits)
    if done:
        if writes:
            run.check_same(config, ["data", "model"])
            remove_checkpoints(run.file(run.CHECKPOINTS))  # in case that it was killed just before its end
            print(f"{run.path} holds a finished run of these settings")
            report.show(run)
        return
    if options.resume and writes:
        run.check_same(config, ["data", "model", "versions"])
        run.claim()
    say(f"data:   {task.name} from {task.source}; {report.describe(splits)}")
    _say_what_is_dropped(options, task, say)
    for line in data_lines(task):
        say(line)
    classifier = _load(settings, task, tokenizer, splits, arguments, say)
    head_start = HeadStart(options.head_init, options.head_scale[0], options.scale_bias, task.label_names)
    check_start(classifier, splits, options, head_start)
    samples = _ProbeSamples.draw(options, splits, arguments.seed)
    if writes and not options.resume:
        run.clear()
        run.write_config(config)
    with arguments.main_process_first(desc="features of the pretrained model"):
        reference = {
            name: cached_features(classifier, split, progress=writes, say=say).features
            for name, split in splits.items()
        }
    method = Method.of(options.method)
    around = _AroundProbe(run, samples.measured, options) if options.track and writes and not method.trains else None
    start = prepare_start(
        classifier,
        splits,
        options,
        head_start,
        arguments.seed,
        run if writes else None,
        before_probe=None if around is None else around.measure,
    )
    say(report.describe_start(options, start, arguments))
    facts: dict[str, Any] = {}
    if options.predict and writes:
        facts["prediction"] = _compare(run, start.classifier, samples)
    if method.trains:
        facts["training"] = _train(settings, start, splits, task.metric, arguments, samples)
    elif around is not None:
        around.measure(start.classifier)
    if writes:
        _finish(settings, start, splits, reference, task, tokenizer, facts)


def _say_what_is_dropped(options: FinetuneOptions, task: Task, say: Say) -> None:
    """Say so where a trained head gives way to a random one, from which training begins unless it is told otherwise."""
    found = trained_head(options.model) if options.head_init == "random" else None
    if found is not None and found.num_labels == task.num_labels and not Method.of(options.method).probes:
        say(
            f"notice: {options.model} has a trained head, in whose place a random one is trained; --head {found.kind} "
            "--head-init keep keeps it"
        )


def _check_sizes(task: Task, splits: Mapping[str, EncodedSplit]) -> None:
    count = len(splits["validation"])
    if count < 2:
        raise InputError(
            f"{task.name} has {count} validation {'row' if count == 1 else 'rows'}, too few to choose an epoch; give "
            "more training rows, or a --validation-file"
        )


def _versions() -> dict[str, str]:
    return versions() | {name: version(name) for name in ("peft", "accelerate")}


def _config(settings: RunSettings, task: Task, splits: Mapping[str, EncodedSplit]) -> dict[str, Any]:
    return {
        "options": settings.to_json(),
        "versions": _versions(),
        "data": {
            name: {"fingerprint": split.fingerprint, "rows": len(split), "truncated": split.n_truncated}
            for name, split in splits.items()
        },
        "model": model_checksums(settings.options),
        "label_names": list(task.label_names),
        "source": task.source,
        "metric": task.metric,
    }


def _load(
    settings: RunSettings,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, EncodedSplit],
    arguments: TrainingArguments,
    say: Callable[[str], object],
) -> Classifier:
    options = settings.options
    keep_head = options.head_init == "keep"
    model = model_of(options, task.label_names, arguments.seed, arguments.device, keep_head=keep_head, say=say)
    # A decoder's native head looks for the last token that is no padding.
    config: Any = model.config
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    return Classifier.of(model, splits["train"], what="train")


@dataclass(frozen=True)
class _ProbeSamples:
    """Samples of the splits on which a run is measured.

    Attributes:
        measured: Of each split, for what is tracked.
        kernel: Of the training split, for tracked kernels.
        predicted: Of training and validation, for the comparison of theory with practice.
    """

    measured: ProbeSet
    kernel: EncodedSplit
    predicted: tuple[EncodedSplit, EncodedSplit]

    @classmethod
    def draw(cls, options: FinetuneOptions, splits: Mapping[str, EncodedSplit], seed: int) -> _ProbeSamples:
        train, validation = splits["train"], splits["validation"]
        return cls(
            ProbeSet({name: _draw(split, options.probe_size, seed) for name, split in splits.items()}),
            _draw(train, options.kernel_size, seed),
            (_draw(train, options.predict_size, seed), validation.subsample(options.predict_size, seed, False)),
        )


def _draw(split: EncodedSplit, size: int, seed: int) -> EncodedSplit:
    """Draw rows, class-balanced where there is room for every class."""
    return split.subsample(size, seed, balanced=size >= len(set(split.labels.tolist())))


class _AroundProbe:
    """Measures before (step 0) and after (step 1) a probe that no training follows."""

    def __init__(self, run: FinetuneRun, probe_set: ProbeSet, options: FinetuneOptions) -> None:
        self.log = TrackingLog(run.file(run.TRACKING), resume_step=0 if options.resume else None)
        self.probe_set = probe_set
        self.reference: Mapping[str, Tensor] | None = None

    def measure(self, classifier: Classifier) -> None:
        self.reference = self.reference or probe_features(classifier, self.probe_set)
        step = len(self.log.steps)
        self.log.append(step, float(step), measure_classifier(classifier, self.probe_set, self.reference))


def _compare(run: FinetuneRun, classifier: Classifier, samples: _ProbeSamples) -> dict[str, Any]:
    """Set what the kernel predicts beside real steps, and write it down."""
    comparison = compare_with_training(classifier, *samples.predicted, progress=True)
    run.write_comparison(comparison.one_step, comparison.flow)
    report.draw_comparison(run, comparison)
    return comparison.summary


def _train(
    settings: RunSettings,
    start: Start,
    splits: Mapping[str, EncodedSplit],
    metric: str,
    arguments: TrainingArguments,
    samples: _ProbeSamples,
) -> dict[str, Any]:
    options, run = settings.options, settings.run
    checkpoint = last_checkpoint(run.file(run.CHECKPOINTS)) if options.resume else None
    # With --resume but no checkpoint yet, training begins anew, and so does the log.
    resume_step = (checkpoint_step(checkpoint) if checkpoint else 0) if options.resume else None
    callbacks: tuple[TrainerCallback, ...] = ()
    if options.track and arguments.process_index == 0:
        tracker = Tracker(
            start.classifier,
            samples.measured,
            TrackingLog(run.file(run.TRACKING), resume_step),
            kernel_moments=options.track_kernel,
            kernel_probe=samples.kernel,
        )
        callbacks = (tracker,)
    return fine_tune(start, splits, options, arguments, metric, resume=options.resume, callbacks=callbacks)


def _finish(
    settings: RunSettings,
    start: Start,
    splits: Mapping[str, EncodedSplit],
    reference: Mapping[str, Tensor],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    facts: Mapping[str, Any],
) -> None:
    run, options = settings.run, settings.options
    module = start.classifier.module
    kept = names_of_classes(module.config) if options.head_init == "keep" else None
    save_classifier(module, run, tokenizer, kept or task.label_names, options.model)
    outputs = predict_splits(start.classifier, splits, progress=True)
    description = {"method": options.method, "dataset": task.name, "seed": settings.training["seed"]}
    labels = {name: torch.from_numpy(split.labels.copy()) for name, split in splits.items()}
    run.write_predictions({name: part.logits for name, part in outputs.items()}, labels, description)
    metrics = {
        **description,
        "model": options.model,
        "metric": task.metric,
        "head": {**start.norms, "norm_after": head_norm(start.classifier.head)},
        "splits": {
            name: {"rows": len(split), **split_metrics(outputs[name], reference[name], split.labels, task.metric)}
            for name, split in splits.items()
        },
        **facts,
    }
    if start.probe is not None:
        metrics["probe"] = {"solver": start.probe.solver, **start.probe.settings, "accuracy": start.probe.accuracies}
    report.draw(run, options.method)
    run.write_metrics(report.without_nan(metrics))
    remove_checkpoints(run.file(run.CHECKPOINTS))
    report.show(run)
