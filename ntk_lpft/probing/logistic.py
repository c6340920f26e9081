"""The paper's linear probe: logistic regression on frozen features, as a linear head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.statistics.classifier import fit_cross_validated


@dataclass(frozen=True)
class LogisticHead:
    """A linear head fitted by logistic regression.

    Attributes:
        weight: V, (C, h), float64.
        bias: b, (C).
        strength: The regularisation C that cross-validation chose (inverse of the L2 penalty).
        train_accuracy: Accuracy on the samples it was fitted on.
        folds: Number of cross-validation folds.
        converged: Whether every fit converged.
    """

    weight: Float[Tensor, "c h"]
    bias: Float[Tensor, " c"]
    strength: float
    train_accuracy: float
    folds: int
    converged: bool


def fit_logistic_head(
    features: Float[Tensor, "n h"], labels: Int[np.ndarray, " n"], num_labels: int, *, max_iter: int = 5000
) -> LogisticHead:
    """Fit the paper's LP head: L2, multinomial, ten strengths, five stratified folds, tolerance 1e-4.

    A binary solution w, b becomes the rows −w/2, +w/2 and biases −b/2, +b/2, which give the same probabilities.

    Source: Tomihari and Sato, NeurIPS 2024, experimental settings.

    Args:
        features: φ of the whole training split.
        labels: Classes, 0…C−1.
        num_labels: C.
        max_iter: Most iterations of a fit.

    Returns:
        The head.

    Raises:
        InputError: Some class has no sample, or fewer than two.
    """
    counts = np.bincount(labels, minlength=num_labels)
    if len(counts) > num_labels or counts.min() < 2:
        raise InputError(
            f"the logistic-regression head needs 2 or more samples of each of {num_labels} classes; got "
            f"{counts.tolist()} (give more training samples, or --head-init random)"
        )
    folds = int(min(5, counts.min()))
    x = features.double().cpu().numpy()
    model, unconverged = fit_cross_validated(x, labels, folds, max_iter)
    weight, bias = torch.tensor(model.coef_), torch.tensor(np.atleast_1d(model.intercept_))
    if num_labels == 2:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return LogisticHead(
        weight, bias, float(np.ravel(model.C_)[0]), float(model.score(x, labels)), folds, not unconverged
    )
