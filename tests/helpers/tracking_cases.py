"""Small classifiers, probe sets and training runs for the tests of tracking, and a referee that measures naively."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from helpers.zoo import ZOO, Row, ragged_rows
from ntk_lpft.classifier import Classifier, LinearHeadClassifier
from ntk_lpft.finetuning.trainer import ClassifierTrainer
from ntk_lpft.tasks import EncodedSplit
from ntk_lpft.tracking import ProbeSet

CLASSES = 3


def classifier(seed: int = 0, dtype: torch.dtype = torch.float64) -> LinearHeadClassifier:
    """One linear layer on the zoo's BERT, with dropout where BERT has it."""
    body = ZOO["bert"].build(seed=seed, dtype=dtype).base_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LinearHeadClassifier(body, CLASSES, "first").to(dtype)


def split_of(rows: Sequence[Row], name: str, shift: int = 0) -> EncodedSplit:
    """Rows with labels that go round."""
    labels = (np.arange(len(rows)) + shift) % CLASSES
    return EncodedSplit(tuple(rows), labels, np.arange(len(rows)), f"{name}, {len(rows)} rows, {shift}", 0, 20, name)


def train_split(n: int = 10, entry: str = "bert") -> EncodedSplit:
    """Make samples to train on."""
    return split_of(ragged_rows(ZOO[entry], n=n, seed=1), "train")


def probe_set(entry: str = "bert") -> ProbeSet:
    """Make a few samples of three splits, of different numbers."""
    train, validation, other = (ragged_rows(ZOO[entry], n=n, seed=n) for n in (7, 5, 6))
    return ProbeSet(
        {
            "train": split_of(train, "train"),
            "validation": split_of(validation, "validation", shift=1),
            "ood.reviews": split_of(other, "reviews", shift=2),
        }
    )


def classifier_of(model: nn.Module, probe: ProbeSet | None = None) -> Classifier:
    """Look for head and padding of a model before it is trained; by default on samples of the zoo's BERT."""
    return Classifier.of(model, (probe or probe_set()).splits["train"])


def naive_features(model: nn.Module, head: nn.Linear, split: EncodedSplit) -> tuple[Tensor, Tensor]:
    """φ and f, sample by sample, without padding."""
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = [model(**_one(row)).logits[0] for row in split.rows]
    hook.remove()
    # Decoders apply the head to every position; the last one counts.
    return torch.stack([phi[0] if phi.dim() == 2 else phi[0, -1] for phi in seen]), torch.stack(logits)


def _one(row: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {name: torch.tensor([list(values)]) for name, values in row.items()}


def naive_moment(
    model: nn.Module, head: nn.Linear, probe: ProbeSet, reference: Mapping[str, Tensor]
) -> dict[tuple[str, str], float]:
    """Measure what `measure_classifier` does, by formulas written down once more.

    Args:
        model: A classifier in evaluation mode whose gradients may be overwritten.
        head: Its head.
        probe: The samples.
        reference: The pretrained features.

    Returns:
        Values by split and measure.
    """
    weight = head.weight.detach().numpy()
    values: dict[tuple[str, str], float] = {("all", "head_norm"): math.sqrt((weight**2).sum())}
    for c, row in enumerate(weight):
        values["all", f"head_norm.class_{c}"] = math.sqrt((row**2).sum())
    values["all", "head_bias_norm"] = 0.0 if head.bias is None else math.sqrt((head.bias.detach().numpy() ** 2).sum())
    for name, split in probe.splits.items():
        phi, logits = (part.numpy() for part in naive_features(model, head, split))
        of_split = _of_features(phi, reference[name].numpy(), split.labels) | _of_logits(logits, split.labels)
        values |= {(name, measure): value for measure, value in of_split.items()}
    own = {id(p) for p in head.parameters()}
    squares = dict.fromkeys(("head", "body"), 0.0)
    for p, gradient in _naive_gradient(model, probe.splits["train"]):
        squares["head" if id(p) in own else "body"] += float((gradient**2).sum())
    return values | {("train", f"gradient_norm.{part}"): math.sqrt(value) for part, value in squares.items()}


def _of_features(phi: np.ndarray, before: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    n = len(phi)
    norm, norm_before = np.linalg.norm(phi, axis=1), np.linalg.norm(before, axis=1)
    cosines = (phi @ phi.T) / np.outer(norm, norm)
    means = np.stack([phi[labels == y].mean(axis=0) for y in labels])
    within, between = phi - means, means - phi.mean(axis=0)
    k, m = (side - side.mean(axis=0) for side in (phi, before))
    k, m = k @ k.T, m @ m.T
    return {
        "feature_difference": float(np.mean([math.dist(a, b) for a, b in zip(phi, before, strict=True)])),
        "cosine_similarity": float(np.mean([cosines[i, j] for i in range(n) for j in range(i)])),
        "reference_cosine_similarity": float(np.mean((phi * before).sum(axis=1) / (norm * norm_before))),
        "feature_norm": float(norm.mean()),
        "fisher_discriminant_ratio": float(
            np.trace(np.linalg.pinv(within.T @ within, rcond=1e-12, hermitian=True) @ between.T @ between)
        ),
        "trace_ratio": float((between**2).sum() / (within**2).sum()),
        "linear_cka": float((k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())),
    }


def _of_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    exponentials = np.exp(logits)
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    right = p.argmax(axis=1) == labels
    bins: dict[int, list[float]] = {}
    for top, hit in zip(p.max(axis=1), right, strict=True):
        bins.setdefault(math.ceil(top * 15), []).append(float(hit) - top)
    return {
        "accuracy": float(right.mean()),
        "loss": float(-np.log(p[np.arange(len(p)), labels]).mean()),
        "residual_norm": float(np.mean([math.dist(np.eye(CLASSES)[y], q) for y, q in zip(labels, p, strict=True)])),
        "ece": sum(abs(sum(gaps)) for gaps in bins.values()) / len(p),
    }


def _naive_gradient(model: nn.Module, split: EncodedSplit) -> list[tuple[nn.Parameter, Tensor]]:
    model.zero_grad()
    for row, label in zip(split.rows, split.labels, strict=True):
        logits = model(**_one(row)).logits[0]
        (torch.logsumexp(logits, 0) - logits[label]).backward()
    return [(p, p.grad / len(split)) for p in model.parameters() if p.grad is not None]


class Photographer(TrainerCallback):
    """Keeps the weights of every step, and what a file holds whenever a checkpoint has been written."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.epochs: dict[int, float] = {}
        self.at_save: dict[int, str] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._keep(state, kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._keep(state, kwargs["model"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.file is not None:
            self.at_save[state.global_step] = self.file.read_text()

    def _keep(self, state: TrainerState, model: nn.Module) -> None:
        self.weights[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}
        self.epochs[state.global_step] = float(state.epoch or 0)


class Stop(TrainerCallback):
    """Breaks training off as Ctrl-C does, once so many steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def train(
    model: nn.Module, folder: Path, callbacks: Sequence[TrainerCallback], *, resume: str | None = None, **options: Any
) -> None:
    """Train on ten rows in batches of three: four steps an epoch, two epochs unless told otherwise."""
    settings: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 3,
        "learning_rate": 5e-3,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        "seed": 0,
    }
    arguments = TrainingArguments(output_dir=str(folder / "checkpoints"), **settings | options)
    split = train_split()
    trainer = ClassifierTrainer(classifier_of(model), arguments, split, split, metric="accuracy", callbacks=callbacks)
    gc.freeze()  # Trainer collects garbage first, which takes longer than these runs with all that tests import
    trainer.train(resume_from_checkpoint=resume)
