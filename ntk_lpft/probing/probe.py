"""Linear probing: a linear head for a frozen body, by the paper's logistic regression or along a gradient path."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ntk_lpft.choices import LOGISTIC, LOGISTIC_SOLVERS, SOLVERS
from ntk_lpft.classifier.classifier import Classifier, require_labels
from ntk_lpft.classifier.head_file import save_head, with_class_names
from ntk_lpft.classifier.prepare import plain_arithmetic
from ntk_lpft.errors import InputError
from ntk_lpft.probing.cache import Say, cached_features, cached_logistic_heads
from ntk_lpft.probing.path import LabelledFeatures, PathSettings, gradient_path
from ntk_lpft.probing.spread import FoldSpread
from ntk_lpft.provenance import versions
from ntk_lpft.runs.tracking_log import ALL, TRAIN
from ntk_lpft.tasks import EncodedSplit

_LOGISTIC_ITERATIONS = 5000


@dataclass(frozen=True)
class LinearProbe:
    """A head fitted to a frozen body's features.

    Attributes:
        weight: V, (C, h), on the CPU.
        bias: b, (C), or None where the model's head has none.
        solver: ``logistic``, ``logistic-published``, ``adam`` or ``lbfgs``.
        settings: Of the solver, and what came of them: whether it converged, of a logistic regression also the strength
            that cross-validation chose, its curve, and ``fold_draws``, what other shuffles of the folds led to.
        accuracies: By split, ``train`` among them.
        path: What a gradient path passed, as ``gradient_path`` records it; None for a logistic regression.
        metadata: Where the head comes from; goes into its file.
    """

    weight: Float[Tensor, "c h"]
    bias: Float[Tensor, " c"] | None
    solver: str
    settings: dict[str, Any]
    accuracies: dict[str, float]
    path: pd.DataFrame | None
    metadata: dict[str, str]

    @property
    def train_accuracy(self) -> float:
        """Accuracy on the samples that the head was fitted on."""
        return self.accuracies[TRAIN]

    def save(self, path: str | Path, label_names: Sequence[str] = ()) -> Path:
        """Write the head as ``save_head`` does, and return the file.

        Args:
            path: The file, or a folder.
            label_names: Classes in the order of the rows, to be matched by name where the head is used; none are
                written where this is empty.

        Returns:
            The file.
        """
        return save_head(path, self.weight, self.bias, with_class_names(self.metadata, label_names))


def linear_probe(
    model: nn.Module | Classifier,
    train: EncodedSplit,
    num_labels: int,
    *,
    solver: str = LOGISTIC,
    validation: EncodedSplit | None = None,
    others: Mapping[str, EncodedSplit] | None = None,
    iterations: int | None = None,
    settings: PathSettings | None = None,
    fold_seed: int = 0,
    fold_draws: int = 1,
    path_file: Path | None = None,
    cache: Path | None = None,
    progress: bool = False,
    say: Say = print,
) -> LinearProbe:
    """Fit a linear head to a model's features; the model is not changed.

    ``logistic`` is the paper's probe, cross-validated logistic regression, whatever head the model has;
    ``logistic-published`` scales binary heads as the published code does (see ``fit_logistic_head``).
    ``adam`` and ``lbfgs`` start from the model's own head and record each iteration.

    Source: Tomihari and Sato, NeurIPS 2024, experimental settings.

    Args:
        model: The classifier.
        train: The whole training split.
        num_labels: C.
        solver: ``logistic``, ``logistic-published``, ``adam`` or ``lbfgs``.
        validation: A split to measure on.
        others: Further splits to measure on, by name.
        iterations: Most iterations; by default 5000 of each logistic regression, and those of the settings for a
            gradient path.
        settings: How a gradient path is trained otherwise; its solver is the one named here.
        fold_seed: What shuffles samples into folds, for a logistic regression.
        fold_draws: How many shuffles to try, the seed's own among them, to see what depends on it; each costs as much.
        path_file: Where the table is written, also where the path breaks off.
        cache: Where features and logistic heads are kept; None takes the cache folder.
        progress: Whether to show progress bars.
        say: Called with each notice, one line.

    Returns:
        The head, with its accuracies and, along a gradient path, all iterations.

    Raises:
        InputError: An unknown solver, bad inputs, a model whose head has another number of classes, too few samples of
            a class for a logistic regression, or a gradient path that runs into NaN.
    """
    if solver not in SOLVERS:
        raise InputError(f"unknown solver {solver!r} of the linear probe; choose one of {', '.join(SOLVERS)}")
    if iterations is not None and iterations < 1:
        raise InputError(f"the linear probe's {iterations} iterations are not positive")
    if solver in LOGISTIC_SOLVERS and settings is not None:
        raise InputError(f"settings of a gradient path mean nothing to solver {solver!r}; leave them out")
    if fold_draws < 1:
        raise InputError(f"{fold_draws} shuffles of the folds are not positive")
    splits = {TRAIN: train, **({} if validation is None else {"validation": validation})}
    clash = sorted({*splits, ALL} & set(others or {}))
    if clash:
        raise InputError(f"a further split cannot be called {clash[0]!r}; choose another name")
    splits |= others or {}
    classifier = Classifier.of(model, train)
    require_labels(classifier, num_labels)
    outputs = {
        name: cached_features(classifier, split, cache=cache, progress=progress, say=say)
        for name, split in splits.items()
    }
    head = classifier.head.module
    samples = {
        name: LabelledFeatures(outputs[name].features, torch.tensor(split.labels, device="cpu"))
        for name, split in splits.items()
    }
    if solver in LOGISTIC_SOLVERS:
        most = _LOGISTIC_ITERATIONS if iterations is None else iterations
        seeds = range(fold_seed, fold_seed + fold_draws)
        fitted = cached_logistic_heads(
            classifier, train, num_labels, seeds, solver=solver, max_iter=most, cache=cache, progress=progress, say=say
        )
        own, spread = fitted[0], FoldSpread.of(fitted)
        if own.shortfall() is not None:
            say(f"notice: {own.shortfall()}")
        facts = {"iterations": most, **own.facts(), "fold_draws": spread.facts()}
        return _probe(own.weight, own.bias, solver, facts, samples, train, None)
    settings = dataclasses.replace(settings or PathSettings(), solver=solver)
    if iterations is not None:
        settings = dataclasses.replace(settings, iterations=iterations)
    # A path runs where its features are; devices other than these may lack float64.
    device = head.weight.device if head.weight.device.type == "cuda" else torch.device("cpu")
    placed = {name: LabelledFeatures(sample.features.to(device), sample.labels) for name, sample in samples.items()}
    path = gradient_path(
        head.weight, head.bias, placed.pop(TRAIN), settings, others=placed, file=path_file, progress=progress
    )
    facts = {**dataclasses.asdict(settings), "learning_rate": settings.step_size, "converged": path.converged}
    bias = None if path.bias is None else path.bias.cpu()
    return _probe(path.weight.cpu(), bias, solver, facts, samples, train, path.table)


def _probe(
    weight: Float[Tensor, "c h"],
    bias: Float[Tensor, " c"] | None,
    solver: str,
    facts: dict[str, Any],
    samples: Mapping[str, LabelledFeatures],
    train: EncodedSplit,
    path: pd.DataFrame | None,
) -> LinearProbe:
    accuracies = {}
    for name, (features, labels) in samples.items():
        with plain_arithmetic(features.device):
            logits = nn.functional.linear(features.to(weight.dtype), weight, bias)
        accuracies[name] = float((logits.argmax(1) == labels).double().mean())
    metadata = {
        "solver": solver,
        "settings": json.dumps(facts, sort_keys=True),
        "accuracies": json.dumps(accuracies, sort_keys=True),
        "train": train.fingerprint,
        "versions": json.dumps(versions(), sort_keys=True),
    }
    return LinearProbe(weight, bias, solver, facts, accuracies, path, metadata)
