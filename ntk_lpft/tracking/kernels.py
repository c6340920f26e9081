"""P and F at a few moments of training: size, FT ratio, distance from where they began, alignment with the labels."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.engine import compute_ntk
from ntk_lpft.runs.tracking_log import TRAIN, Measurement
from ntk_lpft.statistics import (
    alignment,
    initial_residual,
    pretrain_effective,
    pretrain_effective_alignment,
    sample_ft_ratios,
)
from ntk_lpft.storage import read_tensors, write_tensors
from ntk_lpft.tasks import EncodedSplit
from ntk_lpft.tracking.measures import weights_finite

FORMAT = "ntk_lpft tracked kernel 1"
MEASURES = (
    "kernel.P.frobenius_norm",
    "kernel.F.frobenius_norm",
    "kernel.ft_ratio",
    "kernel.P.distance",
    "kernel.F.distance",
    "kernel.P.alignment",
    "kernel.F.alignment",
    "kernel.total.alignment",
)


class Kernels(NamedTuple):
    """The kernels of one moment.

    Attributes:
        feature_kernel: k, (N, N), for P = k ⊗ I_C.
        ft_effective: F, (N, C, N, C); zero where no parameter of the body is trained.
        logits: f, (N, C).
    """

    feature_kernel: Float[Tensor, "n n"]
    ft_effective: Float[Tensor, "n c n c"]
    logits: Float[Tensor, "n c"]

    @property
    def finite(self) -> bool:
        """Whether no entry is NaN or infinite."""
        return all(bool(torch.isfinite(part).all()) for part in self)


class KernelTracker:
    """Computes the kernels of a training split's samples, and compares them with the first that it computed.

    Args:
        classifier: The classifier; it is not changed.
        split: A few training samples, best equally many of each class: F has (N C)² entries.
        first: File for the first kernels, so that a run that goes on compares with the same.
        resume: Whether the first kernels have been computed, and are to be read from there.

    Raises:
        InputError: Fewer than two samples, or ``resume`` and a file that is missing, damaged or of other samples.
    """

    def __init__(self, classifier: Classifier, split: EncodedSplit, first: Path, *, resume: bool = False) -> None:
        if len(split) < 2:
            raise InputError(f"the samples to track kernels on are {len(split)}; give 2 or more")
        self.classifier = classifier
        self.split = split
        self.file = first
        self._description = {"format": FORMAT, "rows": split.fingerprint}
        self.first: Kernels | None = self._read() if resume else None

    def measure(self) -> list[Measurement]:
        """Compute P and F on the model as it is, in eval mode, and what is said of them.

        For split ``train``: Frobenius norms of P and F, the FT ratio with the δ of this moment, the distance
        ‖K − K_first‖ / ‖K_first‖ of P and of F from the first moment, and the alignments with the labels of P, F and
        P + F (``total``). NaN stands for what is undefined: everything where the model is not finite, distances from a
        kernel that is zero (F of a frozen body), the FT ratio where no logit moves.

        Returns:
            One measurement for each of ``MEASURES``.
        """
        kernels = self._compute()
        if kernels is None or not kernels.finite:
            return [Measurement(TRAIN, measure, math.nan) for measure in MEASURES]
        if self.first is None:
            write_tensors(self.file, kernels._asdict(), self._description)
            self.first = kernels
        values = _values(kernels, self.first, torch.from_numpy(self.split.labels.copy()))
        return [Measurement(TRAIN, measure, value) for measure, value in zip(MEASURES, values, strict=True)]

    def _compute(self) -> Kernels | None:
        """Return the kernels, or None for a model that is not finite, which the engines refuse."""
        if not weights_finite(self.classifier.module):
            return None
        if not all(bool(torch.isfinite(part).all()) for part in self.classifier.run(self.split)):
            return None
        precision = str(self.classifier.dtype).removeprefix("torch.")
        ntk = compute_ntk(self.classifier, self.split, precision=precision, groups=False)
        return Kernels(ntk.feature_kernel, ntk.ft_effective, ntk.row_logits)

    def _read(self) -> Kernels:
        tensors, description = read_tensors(self.file)
        if description != self._description:
            raise InputError(f"{self.file} holds no kernels of this run's samples; start anew with --overwrite")
        return Kernels(**tensors)


def _values(now: Kernels, first: Kernels, labels: Tensor) -> tuple[float, ...]:
    """Compute the values of ``MEASURES``."""
    classes = now.logits.shape[1]
    ratios = sample_ft_ratios(now.feature_kernel, now.ft_effective, initial_residual(now.logits, labels))
    total = pretrain_effective(now.feature_kernel, classes) + now.ft_effective
    return (
        math.sqrt(classes) * _norm(now.feature_kernel),
        _norm(now.ft_effective),
        float(ratios.nanmean()),
        _distance(now.feature_kernel, first.feature_kernel),
        _distance(now.ft_effective, first.ft_effective),
        pretrain_effective_alignment(now.feature_kernel, labels, classes),
        alignment(now.ft_effective, labels),
        alignment(total, labels),
    )


def _norm(kernel: Tensor) -> float:
    return float(torch.linalg.vector_norm(kernel, dtype=torch.float64))


def _distance(kernel: Tensor, first: Tensor) -> float:
    """‖K − K_first‖ / ‖K_first‖, NaN for a zero K_first; of P it is that of the feature kernels."""
    size = _norm(first)
    return _norm(kernel.double() - first.double()) / size if size > 0 else math.nan
