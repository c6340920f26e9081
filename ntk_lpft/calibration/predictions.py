"""What is measured: a classifier's probabilities on labelled samples, checked once and held in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer, Shaped
from torch import Tensor

from ntk_lpft.errors import InputError

Scores: TypeAlias = Float[Tensor, "n c"] | Float[np.ndarray, "n c"]
Labels: TypeAlias = Integer[Tensor, " n"] | Integer[np.ndarray, " n"]

# Rows of a softmax in half precision add up to one only so far.
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier with C classes on N samples, and their labels.

    Make them by `from_logits` or `from_probabilities`, which check them.

    Attributes:
        logits: f, of shape (N, C); None where only probabilities are known.
        probabilities: Of shape (N, C), rows of which sum to one.
        nll: −ln of the probability of each sample's class, in nats, of shape (N,); ∞ where that is 0.
        labels: The class of each sample, 0 … C − 1, of shape (N,).
        predicted: The class with the largest logit, the first of several, of shape (N,).
    """

    logits: Float64[np.ndarray, "n c"] | None
    probabilities: Float64[np.ndarray, "n c"]
    nll: Float64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    predicted: Int64[np.ndarray, " n"]

    @staticmethod
    def from_logits(logits: Scores, labels: Labels, name: str = "logits") -> Predictions:
        """Make predictions from logits.

        Args:
            logits: f, of shape (N, C).
            labels: The class of each sample, of shape (N,).
            name: What error messages call the logits.

        Returns:
            The predictions, in float64.

        Raises:
            InputError: The logits are no finite (N, C) numbers with C of 2 or more, or the labels do not fit them.
        """
        scores = check_scores(logits, name)
        checked = check_labels(labels, len(scores), scores.shape[1], f"labels of {name}")
        return _of_logits(scores, checked, scores.argmax(axis=1))

    @staticmethod
    def from_probabilities(probabilities: Scores, labels: Labels, name: str = "probabilities") -> Predictions:
        """Make predictions from probabilities.

        Args:
            probabilities: Of shape (N, C), rows of which sum to one.
            labels: The class of each sample, of shape (N,).
            name: What error messages call the probabilities.

        Returns:
            The predictions, in float64, without logits.

        Raises:
            InputError: As for `from_logits`; also entries outside [0, 1], or rows that do not sum to one.
        """
        scores = check_scores(probabilities, name)
        if scores.min() < 0 or scores.max() > 1 + _SUM_TOLERANCE:
            raise InputError(f"{name} run from {scores.min():.4g} to {scores.max():.4g}; pass softmax of the logits")
        off = float(np.abs(scores.sum(axis=1) - 1).max())
        if off > _SUM_TOLERANCE:
            raise InputError(f"rows of {name} do not sum to one (off by up to {off:.2g}); pass softmax of the logits")
        checked = check_labels(labels, len(scores), scores.shape[1], f"labels of {name}")
        with np.errstate(divide="ignore"):
            nll = -np.log(scores[np.arange(len(scores)), checked])
        return Predictions(None, scores, nll, checked, scores.argmax(axis=1))

    def scaled(self, temperature: float) -> Predictions:
        """Divide the logits by T.

        The predicted classes are carried over, so that rounding cannot change the accuracy.

        Args:
            temperature: T.

        Returns:
            The predictions with logits f/T.

        Raises:
            InputError: T is not positive, or there are no logits.
        """
        check_temperature(temperature)
        if self.logits is None:
            raise InputError("these predictions have no logits to divide by a temperature; make them from logits")
        return _of_logits(self.logits / temperature, self.labels, self.predicted)

    @property
    def num_samples(self) -> int:
        """N."""
        return self.probabilities.shape[0]

    @property
    def num_classes(self) -> int:
        """C."""
        return self.probabilities.shape[1]

    @cached_property
    def confidence(self) -> Float64[np.ndarray, " n"]:
        """The largest probability of each sample, of shape (N,)."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]

    @cached_property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Whether the predicted class is the sample's, of shape (N,)."""
        return self.predicted == self.labels


def _of_logits(
    logits: Float64[np.ndarray, "n c"], labels: Int64[np.ndarray, " n"], predicted: Int64[np.ndarray, " n"]
) -> Predictions:
    logarithms = torch.log_softmax(torch.from_numpy(logits), dim=1)  # torch's runs on all cores
    nll = -logarithms.gather(1, torch.from_numpy(labels)[:, None])[:, 0].numpy()
    return Predictions(logits, logarithms.exp_().numpy(), nll, labels, predicted)


def check_scores(scores: Scores, name: str) -> Float64[np.ndarray, "n c"]:
    """Check logits or probabilities, and turn them into float64.

    Args:
        scores: Of shape (N, C), in any floating or integer dtype.
        name: What error messages call them.

    Returns:
        The same numbers.

    Raises:
        InputError: They are no numbers of shape (N, C) with N of 1 and C of 2 or more, or not finite.
    """
    array = to_array(scores)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} have dtype {array.dtype}; pass real numbers")
    if array.ndim != 2:
        raise InputError(f"{name} have shape {array.shape}; expected (N, C), one row a sample, one column a class")
    if array.shape[1] < 2:
        raise InputError(
            f"{name} have {array.shape[1]} column; softmax needs one a class (for a binary logit z, pass 0 and z)"
        )
    if array.shape[0] == 0:
        raise InputError(f"{name} have no rows; pass at least one sample")
    values = array.astype(np.float64, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite.all(axis=1)))
        raise InputError(f"{name} have {int((~finite).sum())} entries that are NaN or infinite, the first in row {row}")
    return values


def are_probabilities(scores: Shaped[np.ndarray, "..."]) -> bool:
    """Whether two or more rows of numbers, all from 0 to 1, sum to one each, which logits do not by chance."""
    return (
        scores.ndim == 2
        and len(scores) > 1
        and scores.shape[1] > 1
        and scores.dtype.kind == "f"
        and bool((scores >= 0).all())
        and bool((np.abs(scores.astype(np.float64).sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    )


def check_labels(labels: Labels, num_samples: int, num_classes: int, name: str = "labels") -> Int64[np.ndarray, " n"]:
    """Check class indices against the samples and classes that they belong to.

    Args:
        labels: The class of each sample, of shape (N,).
        num_samples: N.
        num_classes: C.
        name: What error messages call them.

    Returns:
        The labels as int64.

    Raises:
        InputError: They are no integers, not one a sample, or outside 0 … C − 1.
    """
    array = to_array(labels)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} have dtype {array.dtype}; pass class indices as integers")
    if array.ndim != 1:
        raise InputError(f"{name} have shape {array.shape}; expected ({num_samples},), one a sample")
    if len(array) != num_samples:
        raise InputError(f"there are {len(array)} {name} for {num_samples} rows; pass one label a row, in their order")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= num_classes:
        raise InputError(f"{name} run from {low} to {high}; expected class indices from 0 to {num_classes - 1}")
    return array.astype(np.int64)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is no positive number.

    Args:
        temperature: T.

    Raises:
        InputError: It is not.
    """
    if not isinstance(temperature, int | float | np.number) or not 0 < temperature < math.inf:
        raise InputError(f"temperature {temperature!r:.60} is no positive number")


def to_array(values: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "..."]:
    """Return a tensor's numbers as a numpy array, in float64 if they are floating."""
    if isinstance(values, Tensor):
        if values.is_meta or values.layout != torch.strided:
            raise InputError("what is to be an array is a tensor that is sparse or holds no data; give a dense one")
        plain = values.detach().cpu()
        # numpy has no bfloat16.
        return plain.to(torch.float64).numpy() if plain.is_floating_point() else plain.numpy()
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise InputError(f"what is to be an array is none ({' '.join(str(error).split())})") from error
