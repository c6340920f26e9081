"""Following a classifier while ``Trainer`` trains it."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.head import number_of_labels
from ntk_lpft.errors import InputError
from ntk_lpft.runs.finetuning import FinetuneRun
from ntk_lpft.runs.tracking_log import TRAIN, TrackingLog
from ntk_lpft.storage import read_tensors, write_tensors
from ntk_lpft.tasks import EncodedSplit
from ntk_lpft.tracking.kernels import KernelTracker
from ntk_lpft.tracking.measures import ProbeSet, measure_classifier, probe_features
from ntk_lpft.tracking.schedule import kernel_steps, tracking_steps

FORMAT = "ntk_lpft reference features 1"


class Tracker(TrainerCallback):
    """Measures a classifier on a fixed probe set: at step 0, at powers of two, at each epoch, and at the end.

    At K moments, spread evenly from the start to the end of training, the kernels are measured too. A moment is on the
    disk before ``Trainer`` writes the checkpoint of its step, so a run that goes on from a checkpoint has a whole log.
    Beside the log lie the pretrained features and the first kernels, which such a run compares with. Training itself
    is not changed in any bit: neither the model, nor its gradients, nor the generators of random numbers.

    Args:
        model: The classifier that will be trained, PEFT-wrapped or not, as ``Trainer`` or as ``Classifier.of`` has it.
        probe: The samples to measure on.
        log: Where the rows go.
        reference: The pretrained features, (N, h), by split of the probe set; None for those of the model as it is
            now, or, where the log has rows to go on from, for the stored ones.
        kernel_moments: K; 0 for no kernels.
        kernel_probe: A few training samples, best equally many of each class, for the kernels.

    Raises:
        InputError: Rows that the model cannot take, labels that it does not have, reference features that do not fit,
            kernels without samples, or stored files that are missing or belong to other samples.
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        probe: ProbeSet,
        log: TrackingLog,
        *,
        reference: Mapping[str, Float[Tensor, "n h"]] | None = None,
        kernel_moments: int = 0,
        kernel_probe: EncodedSplit | None = None,
    ) -> None:
        kernel_steps(0, kernel_moments)  # refuses a negative number now
        if kernel_moments and kernel_probe is None:
            raise InputError(f"kernels at {kernel_moments} moments were asked for, but no samples were given")
        _check_labels(model.module if isinstance(model, Classifier) else model, probe, kernel_probe)
        self.classifier = Classifier.of(model, probe.splits[TRAIN])
        self.probe = probe
        self.log = log
        self.reference = self._features_to_compare(reference)
        self.kernel_moments = kernel_moments
        self.kernels: KernelTracker | None = None
        if kernel_moments and kernel_probe is not None:
            first = log.path.with_name(FinetuneRun.TRACKED_KERNEL)
            self.kernels = KernelTracker(self.classifier, kernel_probe, first, resume=bool(log.steps))
        self._steps: set[int] = set()
        self._kernel_steps: set[int] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Plan the moments, and measure the first, or the one that a run that goes on starts from."""
        batches = len(kwargs["train_dataloader"])
        per_epoch = max(1, -(-batches // args.gradient_accumulation_steps))
        self._kernel_steps = kernel_steps(state.max_steps, self.kernel_moments)
        self._steps = self._kernel_steps | tracking_steps(state.max_steps, per_epoch)
        if state.global_step in self._steps or state.global_step == self.log.to_repeat:
            self._measure(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Measure where planned."""
        if state.global_step in self._steps:
            self._measure(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Measure an epoch that was broken off; any other ended with a planned step."""
        self._measure(state)

    def _measure(self, state: TrainerState) -> None:
        if not state.is_world_process_zero or state.global_step in self.log.steps:
            return
        rows = measure_classifier(self.classifier, self.probe, self.reference)
        if self.kernels is not None and state.global_step in self._kernel_steps:
            rows += self.kernels.measure()
        self.log.append(state.global_step, float(state.epoch or 0.0), rows)

    def _features_to_compare(self, given: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        """Return the pretrained features, given, stored beside a log with rows, or the model's own, and store them."""
        file = self.log.path.with_name(FinetuneRun.REFERENCE_FEATURES)
        description = {"format": FORMAT, "rows": self.probe.fingerprints}
        if given is None and self.log.steps:
            given, saved = read_tensors(file)
            if saved != description:
                raise InputError(f"{file} holds no features of this run's probe set; start anew with --overwrite")
        reference = probe_features(self.classifier, self.probe) if given is None else given
        width = self.classifier.head.module.in_features
        for name, split in self.probe.splits.items():
            shape = tuple(reference[name].shape) if name in reference else None
            if shape != (len(split), width):
                raise InputError(f"reference features of {name} have shape {shape}; expected ({len(split)}, {width})")
        if not self.log.steps:
            write_tensors(file, {name: reference[name] for name in self.probe.splits}, description)
        return reference


def _check_labels(model: nn.Module, probe: ProbeSet, kernel_probe: EncodedSplit | None = None) -> None:
    known = number_of_labels(model)
    splits = dict(probe.splits) if kernel_probe is None else {**probe.splits, "the kernels' samples": kernel_probe}
    for name, split in splits.items():
        if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < known:
            raise InputError(f"probe set, {name}: a label lies outside 0…{known - 1}; the model has {known} classes")
