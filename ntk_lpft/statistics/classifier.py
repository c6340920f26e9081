"""The kernel classifier: how well logistic regression on the rows of a kernel predicts the labels."""

import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.matrix import as_matrix, check_labels

_STRENGTHS = 10  # values of C on scikit-learn's logarithmic grid from 1e-4 to 1e4
_FOLDS = 5


@dataclass(frozen=True)
class KernelClassifierResult:
    """How a kernel classifier did, and how its fit went.

    Accuracies are fractions from 0 to 1.

    Attributes:
        train_pair_accuracy: The accuracy over pairs (sample, class) of the training samples, as in the paper.
        eval_pair_accuracy: The same for the evaluation samples; None without them.
        train_accuracy: The plain accuracy of the training samples: the class of the highest decision value.
        eval_accuracy: The same for the evaluation samples; None without them.
        base_rate: (C − 1) / C, the accuracy over pairs of the answer "no" to every pair.
        regularisation: The C that cross-validation chose: the inverse strength of the L2 penalty.
        folds: The number of cross-validation folds, 5 where there are 5 samples or more.
        converged: Whether every fit, those of the cross-validation included, met lbfgs's tolerance.
        unconverged_fits: How many of the fits did not.
        n_iter: The most iterations that a fit of the cross-validation took.
    """

    train_pair_accuracy: float
    eval_pair_accuracy: float | None
    train_accuracy: float
    eval_accuracy: float | None
    base_rate: float
    regularisation: float
    folds: int
    converged: bool
    unconverged_fits: int
    n_iter: int


@checked
def kernel_classifier(
    train_kernel: Float[Tensor, "n c n c"],
    train_labels: Int[Tensor, " n"],
    eval_kernel: Float[Tensor, "m c n c"] | None = None,
    eval_labels: Int[Tensor, " m"] | None = None,
    *,
    max_iter: int = 10_000,
) -> KernelClassifierResult:
    """Fit the paper's kernel classifier and score it.

    The logits are treated as independent: each pair (sample, class) is one case, its features are its row of the NC×NC
    kernel, and its target is 1 if the class is the sample's label, else 0. The model is scikit-learn's
    `LogisticRegressionCV` with its defaults: L2 penalty, lbfgs, ten strengths, the accuracy over unshuffled stratified
    folds. The rows are not scaled, and one intercept serves all classes.

    The accuracies over pairs have a base rate of (C − 1) / C. Beside them stands the plain accuracy: per sample, the
    class with the highest decision value, the lowest such class in a tie.

    lbfgs is slow on the unscaled rows of P, whose spectrum falls off fast: with 250 samples of 3 classes about 80
    seconds, with a part of the fits stopped at 10,000 iterations, against about 15 for an F that has the scale of
    full fine-tuning. A lower `max_iter` is quicker and departs from the published procedure.

    Source: Tomihari and Sato (2024), the table of kernel statistics.

    Args:
        train_kernel: The kernel of the training samples against themselves, of shape (N, C, N, C).
        train_labels: Their classes, of shape (N,).
        eval_kernel: The kernel of evaluation rows × training columns, of shape (M, C, N, C).
        eval_labels: The classes of the evaluation samples, of shape (M,).
        max_iter: The most iterations of lbfgs in each of the fits; the paper's is 10,000.

    Returns:
        Accuracies, the strength chosen and how the fits went. scikit-learn's warnings on convergence are reported
        here alone.

    Raises:
        InputError: The shapes do not fit each other, a kernel is not finite, a label is out of range, there are fewer
            than two samples or two classes, or only one of `eval_kernel` and `eval_labels` is given.
    """
    n, c = _check_train(train_kernel)
    if max_iter < 1:
        raise InputError(f"max_iter is {max_iter}; at least one iteration is needed")
    train_rows = _rows(train_kernel, "train_kernel")
    train_classes = check_labels(train_labels, n, c, "train_labels").numpy()
    if (eval_kernel is None) != (eval_labels is None):
        raise InputError("pass eval_kernel and eval_labels together, or neither")
    eval_rows = eval_classes = None
    if eval_kernel is not None and eval_labels is not None:
        if eval_kernel.ndim != 4 or tuple(eval_kernel.shape[1:]) != (c, n, c):
            raise InputError(
                f"eval_kernel has shape {tuple(eval_kernel.shape)}; expected (M, {c}, {n}, {c}): evaluation rows, "
                "training columns"
            )
        eval_rows = _rows(eval_kernel, "eval_kernel")
        eval_classes = check_labels(eval_labels, eval_kernel.shape[0], c, "eval_labels").numpy()

    folds = min(_FOLDS, n)  # each fold needs one of the N positive pairs
    model = cross_validated_regression(Cs=_STRENGTHS, cv=folds, solver="lbfgs", tol=1e-4, max_iter=max_iter)
    unconverged = fit_and_count(model, train_rows, _one_hot(train_classes, c).ravel())
    train_pair_accuracy, train_accuracy = _score(model, train_rows, train_classes, c)
    eval_pair_accuracy = eval_accuracy = None
    if eval_rows is not None and eval_classes is not None:
        eval_pair_accuracy, eval_accuracy = _score(model, eval_rows, eval_classes, c)
    return KernelClassifierResult(
        train_pair_accuracy=train_pair_accuracy,
        eval_pair_accuracy=eval_pair_accuracy,
        train_accuracy=train_accuracy,
        eval_accuracy=eval_accuracy,
        base_rate=(c - 1) / c,
        regularisation=float(np.ravel(model.C_)[0]),
        folds=folds,
        converged=unconverged == 0,
        unconverged_fits=unconverged,
        n_iter=int(np.max(model.n_iter_)),
    )


def cross_validated_regression(**settings: Any) -> LogisticRegressionCV:
    """Make scikit-learn's cross-validated logistic regression, L2-penalised and scored by accuracy.

    Args:
        **settings: What it is to be told besides.

    Returns:
        The model, to be fitted.
    """
    # Release 1.8 renamed the L2 penalty and warns where a default is about to change.
    if "use_legacy_attributes" in inspect.signature(LogisticRegressionCV).parameters:
        settings |= {"l1_ratios": (0.0,), "use_legacy_attributes": False}
    return LogisticRegressionCV(scoring="accuracy", **settings)


def fit_and_count(
    model: LogisticRegression | LogisticRegressionCV,
    rows: Float64[np.ndarray, "n p"],
    targets: Shaped[np.ndarray, " n"],
) -> int:
    """Fit a logistic regression, and count what did not converge in place of warnings.

    Args:
        model: The model, fitted in place.
        rows: One case a row.
        targets: The class of each.

    Returns:
        How many of its fits stopped before they converged.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rows, targets)
    unconverged = [
        entry
        for entry in caught
        if issubclass(entry.category, ConvergenceWarning) or "Line Search failed" in str(entry.message)
    ]
    for entry in caught:
        if entry not in unconverged:
            warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
    return len(unconverged)


def _check_train(kernel: Tensor) -> tuple[int, int]:
    """Return N and C of a train × train kernel, two or more each."""
    if kernel.ndim != 4 or tuple(kernel.shape[:2]) != tuple(kernel.shape[2:]):
        raise InputError(f"train_kernel has shape {tuple(kernel.shape)}; expected (N, C, N, C)")
    n, c = kernel.shape[:2]
    if n < 2 or c < 2:
        raise InputError(f"the kernel classifier needs two samples and two classes or more; got {n} and {c}")
    return n, c


def _rows(kernel: Tensor, name: str) -> Float64[np.ndarray, "nc mc"]:
    return as_matrix(kernel, name).detach().cpu().to(torch.float64).numpy()


def _one_hot(classes: Int[np.ndarray, " n"], num_classes: int) -> Bool[np.ndarray, "n c"]:
    return classes[:, None] == np.arange(num_classes)


def _score(
    model: LogisticRegressionCV, rows: Float64[np.ndarray, "nc mc"], classes: Int[np.ndarray, " n"], num_classes: int
) -> tuple[float, float]:
    """Return the accuracy over pairs (sample, class) and the plain accuracy."""
    # Decision values rank the classes as probabilities do, and do not tie where probabilities round to 0 or 1.
    decisions = model.decision_function(rows).reshape(-1, num_classes)
    pairs = (decisions > 0) == _one_hot(classes, num_classes)
    return float(pairs.mean()), float((decisions.argmax(axis=1) == classes).mean())
