"""The five methods: LP, FT, LP-FT, LoRA and LP-LoRA, from a pretrained classifier to a trained one."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from ntk_lpft.choices import LOGISTIC_SOLVERS
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.head import Head
from ntk_lpft.classifier.head_file import head_from_file
from ntk_lpft.classifier.head_weights import head_norm, initialise_head, scale_head, set_head
from ntk_lpft.classifier.lora import adapt
from ntk_lpft.classifier.prepare import check_finite
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.checkpoint import checkpoint_step, last_checkpoint, relocate
from ntk_lpft.finetuning.progress import Progress
from ntk_lpft.finetuning.settings import Method, MethodSettings
from ntk_lpft.finetuning.trainer import ClassifierTrainer
from ntk_lpft.library_errors import told_as_bad_input
from ntk_lpft.probing.probe import LinearProbe, linear_probe
from ntk_lpft.runs.finetuning import FinetuneRun
from ntk_lpft.tasks import EncodedSplit


@dataclass(frozen=True)
class HeadStart:
    """What a head begins with.

    Attributes:
        init: Where V begins where no probe makes it: ``random``, ``keep`` (as loaded), or a head's file.
        scale: α, which multiplies V before fine-tuning.
        scale_bias: Whether it multiplies b too.
        label_names: Classes of the data in the order of their numbers; empty where they do not matter.
    """

    init: str = "random"
    scale: float = 1.0
    scale_bias: bool = False
    label_names: tuple[str, ...] = ()

    def make(self, head: Head, seed: int, say: Callable[[str], object] = print) -> None:
        """Make V and b, not scaled yet.

        Args:
            head: The head, changed in place.
            seed: For a random one.
            say: Called with a line on how the classes of a head's file were matched.

        Raises:
            InputError: A head's file of another shape or of other classes.
        """
        if self.init == "random":
            initialise_head(head, seed)
        elif self.init != "keep":
            head_from_file(head, self.init, self.label_names or None, say)


@dataclass
class Start:
    """A classifier ready to be fine-tuned.

    Attributes:
        classifier: The classifier, with its head made and its adapters in place.
        norms: ‖V‖ before anything (``norm_before``), after the probe (``norm_after_lp``), at the start of
            fine-tuning, after scaling (``norm_at_start``).
        probe: The linear probe, where the method has one.
    """

    classifier: Classifier
    norms: dict[str, float] = field(default_factory=dict)
    probe: LinearProbe | None = None


def check_start(
    classifier: Classifier, splits: Mapping[str, EncodedSplit], settings: MethodSettings, head_start: HeadStart
) -> None:
    """Refuse what ``prepare_start`` and training would refuse only after long work; the model is not changed.

    Args:
        classifier: The pretrained classifier.
        splits: ``train`` and all others.
        settings: The method.
        head_start: What the head begins with.

    Raises:
        InputError: Rows that do not fit the model, a head's file of another shape, LoRA targets that match nothing.
    """
    for name, split in splits.items():
        classifier.rows(split, name)
    # A copy without weights, to try on what changes a model.
    model, name = classifier.module, classifier.head.name
    bare = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    skeleton = copy.deepcopy(model, bare)
    head = Head(name, cast(nn.Linear, skeleton.get_submodule(name)))
    if head_start.init != "random":
        head_start.make(head, 0, _say_nothing)
    if Method.of(settings.method).adapts:
        adapt(skeleton, head, settings)


def prepare_start(
    classifier: Classifier,
    splits: Mapping[str, EncodedSplit],
    settings: MethodSettings,
    head_start: HeadStart,
    seed: int,
    run: FinetuneRun | None,
    *,
    before_probe: Callable[[Classifier], None] | None = None,
) -> Start:
    """Make the head, and put adapters in: all that comes before fine-tuning.

    Args:
        classifier: The pretrained classifier; its module is changed.
        splits: ``train`` and ``validation`` at least.
        settings: The method.
        head_start: What the head begins with.
        seed: For a random head, the folds of the probe, and LoRA.
        run: Where the probe's head and path are written; None writes nothing, as in all processes but one.
        before_probe: Called with the classifier once its head is random or loaded.

    Returns:
        The classifier to fine-tune.

    Raises:
        InputError: A head's file of another shape, LoRA targets that match nothing, too few samples of some class.
    """
    method, head = Method.of(settings.method), classifier.head
    head_start.make(head, seed, _say_nothing if run is None else print)
    start = Start(classifier, {"norm_before": head_norm(head)})
    if before_probe is not None:
        before_probe(classifier)
    if method.probes:
        start.probe = _fit_probe(classifier, splits, settings, seed, run, head_start.label_names)
        set_head(head, start.probe.weight, start.probe.bias)
        start.norms["norm_after_lp"] = head_norm(head)
    scale_head(head, head_start.scale, bias=head_start.scale_bias)
    start.norms["norm_at_start"] = head_norm(head)
    if method.adapts:
        start.classifier = Classifier.of(adapt(classifier.module, head, settings, seed), splits["train"])
    return start


def _say_nothing(line: str) -> None:
    """Keep a line to itself."""


def _fit_probe(
    classifier: Classifier,
    splits: Mapping[str, EncodedSplit],
    settings: MethodSettings,
    seed: int,
    run: FinetuneRun | None,
    label_names: Sequence[str],
) -> LinearProbe:
    probe = linear_probe(
        classifier,
        splits["train"],
        classifier.head.module.out_features,
        solver=settings.lp_solver,
        validation=splits["validation"],
        iterations=None if settings.lp_solver in LOGISTIC_SOLVERS else settings.lp_iterations,
        fold_seed=seed,
        fold_draws=settings.fold_draws,
        path_file=None if run is None else run.file(run.PROBE_PATH),
        progress=run is not None,
    )
    if run is not None:
        probe.save(run.file(run.PROBE_HEAD), label_names)
    return probe


def fine_tune(
    start: Start,
    splits: Mapping[str, EncodedSplit],
    settings: MethodSettings,
    arguments: TrainingArguments,
    metric: str,
    *,
    resume: bool,
    callbacks: tuple[TrainerCallback, ...] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Train what has ``requires_grad``, and leave the model with the weights of its best validation epoch.

    Args:
        start: The classifier; its module is changed.
        splits: ``train`` and ``validation``.
        settings: The method.
        arguments: Settings of ``Trainer``; checkpoints go to ``output_dir``.
        metric: ``accuracy`` or ``matthews``.
        resume: Whether to go on from the last checkpoint, if there is one.
        callbacks: Such as the tracker.
        progress: Whether to show a progress bar.

    Returns:
        What Trainer says of the run: steps, best score and its step, seconds of this call.

    Raises:
        InputError: The loss is NaN or infinite at some step.
    """
    method = Method.of(settings.method)
    folder = Path(arguments.output_dir)
    checkpoint = last_checkpoint(folder) if resume else None
    if checkpoint is not None:
        relocate(checkpoint)
    classifier = start.classifier
    bar = Progress(method.name, method.stage, progress)
    with told_as_bad_input("training settings"):  # which are looked at nowhere else
        trainer = ClassifierTrainer(
            classifier,
            arguments,
            splits["train"],
            splits["validation"],
            metric=metric,
            callbacks=[*callbacks, bar],
        )
    try:
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else os.fspath(checkpoint))
    finally:
        bar.close()
    _leave_mixed_precision(trainer)
    try:
        check_finite(classifier.module)
    except InputError as error:
        raise InputError(
            f"training ended with weights that are NaN or infinite; lower --learning-rate (it is "
            f"{arguments.learning_rate:g})"
        ) from error
    classifier.module.eval()
    return {
        "steps": result.global_step,
        "best_validation": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "resumed_at_step": 0 if checkpoint is None else checkpoint_step(checkpoint),
        "seconds": round(float(result.metrics.get("train_runtime", 0.0)), 1),
    }


def _leave_mixed_precision(trainer: ClassifierTrainer) -> None:
    """Take off the autocast that accelerate has put around ``forward``, so that predictions are float32."""
    own: Any = vars(trainer.model)
    if own.pop("_original_forward", None) is not None:
        own.pop("forward", None)
