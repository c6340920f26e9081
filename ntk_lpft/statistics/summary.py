"""The table of kernel statistics: one row each for P, F and P + F."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.rank_form import expand
from ntk_lpft.statistics.classifier import KernelClassifierResult
from ntk_lpft.statistics.classifier import kernel_classifier as fit_kernel_classifier
from ntk_lpft.statistics.matrix import as_matrix, check_feature_kernel, check_labels, pretrain_effective
from ntk_lpft.statistics.rank_form import ft_effective_spectrum, total_spectrum
from ntk_lpft.statistics.residual import sample_ft_ratios
from ntk_lpft.statistics.spectrum import Spectrum, kernel_spectrum, pretrain_effective_spectrum, sum_spectrum
from ntk_lpft.statistics.target_alignment import (
    alignment,
    centred_alignment,
    pretrain_effective_alignment,
    pretrain_effective_centred_alignment,
)

_COMPONENTS = ("P", "F", "P+F")
_OF_SPECTRUM = ("rank", "effective_rank", "frobenius_norm", "trace_norm", "smallest_eigenvalue", "condition_number")


@dataclass(frozen=True, eq=False)
class KernelStatistics:
    """The statistics of one kernel of the training samples: a row of the paper's table, and more.

    Attributes:
        kernel: "P", "F" or "P+F".
        spectrum: The spectrum, with rank, effective rank, norms, eigenvalues and condition number.
        alignment: The kernel-target alignment.
        centred_alignment: The centred kernel-target alignment.
        ft_ratio: The FT ratio, in the row of F alone; None elsewhere, without a residual, and where nothing moves.
        median_ft_ratio: The median over samples of what the FT ratio is the mean of: a sample at which P and F nearly
            cancel may carry the mean away.
        classifier: The kernel classifier's result; None where it was skipped.
    """

    kernel: str
    spectrum: Spectrum
    alignment: float
    centred_alignment: float
    ft_ratio: float | None = None
    median_ft_ratio: float | None = None
    classifier: KernelClassifierResult | None = None


@checked
def summarise(
    feature_kernel: Float[Tensor, "n n"],
    ft_effective: Float[Tensor, "n r n r"],
    labels: Int[Tensor, " n"],
    *,
    residual: Float[Tensor, "n c"] | None = None,
    eval_feature_kernel: Float[Tensor, "m n"] | None = None,
    eval_ft_effective: Float[Tensor, "m r n r"] | None = None,
    eval_labels: Int[Tensor, " m"] | None = None,
    head_basis: Float[Tensor, "c r"] | None = None,
    computed_in: torch.dtype | None = None,
    features_computed_in: torch.dtype | None = None,
    kernel_classifier: bool = True,
    max_iter: int = 10_000,
    progress: bool = False,
) -> list[KernelStatistics]:
    """Compute the statistics of P, F and P + F.

    Ranks of P and F are counted as the paper counts them, by `numerical_rank_tolerance` of each. P's is C times that of
    the feature kernel, P = k ⊗ I_C; that of P + F is no smaller than either, see `sum_spectrum`.

    Args:
        feature_kernel: k of the training samples, of shape (N, N), symmetric.
        ft_effective: F of the training samples, of shape (N, C, N, C), symmetric, with at least two classes; or, with
            ``head_basis``, F_r, of shape (N, r, N, r).
        labels: The class of each training sample, of shape (N,).
        residual: δ of the training samples, of shape (N, C), for the FT ratio.
        eval_feature_kernel: k of evaluation rows × training columns, of shape (M, N), for the kernel classifier.
        eval_ft_effective: F of evaluation rows × training columns, of shape (M, C, N, C), or F_r, (M, r, N, r).
        eval_labels: The class of each evaluation sample, of shape (M,).
        head_basis: Q, of shape (C, r), where the kernels above are those of the r combinations Qᵀf, F = Q F_r Qᵀ; see
            `NTKDecomposition.head_basis`. Spectra are then taken from the small form, which is exact.
        computed_in: The dtype in which F was computed, which sets the rank tolerance; by default its own. A kernel
            computed in bfloat16 is stored wider, see `NTKDecomposition.rounding`.
        features_computed_in: The same for the feature kernel; by default as for F.
        kernel_classifier: Whether to fit the kernel classifier, which takes far longer than all the rest.
        max_iter: The most iterations in each fit of the kernel classifier.
        progress: Whether to show a progress bar.

    Returns:
        The rows P, F and P+F.

    Raises:
        InputError: The shapes do not fit each other, a tensor is not finite, a kernel is not symmetric, a label is
            out of range, or only some of the three evaluation arguments are given.
    """
    reduced: Tensor | None = None
    if head_basis is not None:
        reduced, ft_effective = ft_effective, expand(ft_effective, head_basis, symmetric=True)
        if eval_ft_effective is not None:
            eval_ft_effective = expand(eval_ft_effective, head_basis)
    _check_train(feature_kernel, ft_effective, labels, residual)
    given = [part is not None for part in (eval_feature_kernel, eval_ft_effective, eval_labels)]
    if any(given) and not all(given):
        raise InputError("pass eval_feature_kernel, eval_ft_effective and eval_labels together, or none of them")
    if eval_feature_kernel is not None and eval_ft_effective is not None and eval_labels is not None:
        _check_evaluation(ft_effective, eval_feature_kernel, eval_ft_effective, eval_labels)

    rows: list[KernelStatistics] = []
    with tqdm(
        total=6 if kernel_classifier else 3, desc="Kernel statistics", unit="step", delay=1, disable=not progress
    ) as bar:
        for name in _COMPONENTS:
            bar.set_postfix_str(f"{name}, spectrum", refresh=False)
            rounding = (features_computed_in or computed_in) if name == "P" else computed_in
            row = _statistics(name, feature_kernel, ft_effective, reduced, labels, rounding)
            if name == "P+F":
                row = replace(row, spectrum=sum_spectrum(row.spectrum, *(part.spectrum for part in rows)))
            if name == "F" and residual is not None:
                mean, median = _ft_ratios(feature_kernel, ft_effective, residual)
                row = replace(row, ft_ratio=mean, median_ft_ratio=median)
            rows.append(row)
            bar.update()
        if not kernel_classifier:
            return rows
        # After the spectra, which refuse in a moment what the classifier would take minutes to get to.
        classified = []
        for row in rows:
            bar.set_postfix_str(f"{row.kernel}, classifier")
            train, evaluation = _component(row.kernel, feature_kernel, ft_effective), None
            if eval_feature_kernel is not None and eval_ft_effective is not None:
                evaluation = _component(row.kernel, eval_feature_kernel, eval_ft_effective)
            fitted = fit_kernel_classifier(train, labels, evaluation, eval_labels, max_iter=max_iter)
            classified.append(replace(row, classifier=fitted))
            bar.update()
    return classified


@checked
def statistics_table(rows: Iterable[KernelStatistics]) -> pd.DataFrame:
    """Lay the statistics out as a table.

    Args:
        rows: The rows of `summarise`.

    Returns:
        One row for each kernel. Norms and eigenvalues are in the kernel's units, accuracies fractions from 0 to 1. What
        a row does not have is missing (NaN).
    """
    table = pd.DataFrame([_table_row(row) for row in rows])
    # A column without any value would otherwise be one of objects.
    return table.astype({name: float for name in table.columns if table[name].dtype == object and name != "kernel"})


def _table_row(row: KernelStatistics) -> dict[str, object]:
    spectrum, fitted = row.spectrum, row.classifier
    return {
        "kernel": row.kernel,
        **{name: getattr(spectrum, name) for name in _OF_SPECTRUM},
        "alignment": row.alignment,
        "centred_alignment": row.centred_alignment,
        "train_pair_accuracy": fitted.train_pair_accuracy if fitted else None,
        "eval_pair_accuracy": fitted.eval_pair_accuracy if fitted else None,
        "pair_base_rate": fitted.base_rate if fitted else None,
        "train_accuracy": fitted.train_accuracy if fitted else None,
        "eval_accuracy": fitted.eval_accuracy if fitted else None,
        "unconverged_fits": fitted.unconverged_fits if fitted else None,
        "ft_ratio": row.ft_ratio,
        "median_ft_ratio": row.median_ft_ratio,
        "rank_tolerance": spectrum.rank_tolerance,
    }


def _check_train(feature_kernel: Tensor, ft_effective: Tensor, labels: Tensor, residual: Tensor | None) -> None:
    check_feature_kernel(feature_kernel)
    as_matrix(ft_effective, "ft_effective")
    n = feature_kernel.shape[0]
    c = ft_effective.shape[1]
    if tuple(feature_kernel.shape) != (n, n) or tuple(ft_effective.shape) != (n, c, n, c):
        raise InputError(
            f"shapes do not fit: feature kernel {tuple(feature_kernel.shape)}, F {tuple(ft_effective.shape)}; expected "
            "(N, N) and (N, C, N, C)"
        )
    if n < 2 or c < 2:
        raise InputError(f"the kernel statistics need two samples and two classes or more; got {n} and {c}")
    check_labels(labels, n, c)
    if residual is not None and tuple(residual.shape) != (n, c):
        raise InputError(f"residual has shape {tuple(residual.shape)}; expected ({n}, {c})")


def _check_evaluation(train: Tensor, feature_kernel: Tensor, ft_effective: Tensor, labels: Tensor) -> None:
    n, c = train.shape[:2]
    m = feature_kernel.shape[0]
    if tuple(feature_kernel.shape) != (m, n) or tuple(ft_effective.shape) != (m, c, n, c):
        raise InputError(
            f"evaluation kernels have shapes {tuple(feature_kernel.shape)} and {tuple(ft_effective.shape)}; expected "
            f"(M, {n}) and (M, {c}, {n}, {c}): evaluation rows, training columns"
        )
    check_feature_kernel(feature_kernel)
    as_matrix(ft_effective, "eval_ft_effective")
    check_labels(labels, m, c, "eval_labels")


def _component(name: str, feature_kernel: Tensor, ft_effective: Tensor) -> Tensor:
    """Return P, F or P + F, dense, of shape (N, C, M, C)."""
    if name == "F":
        return ft_effective
    pretrain = pretrain_effective(feature_kernel, ft_effective.shape[1])
    return pretrain if name == "P" else pretrain.to(ft_effective.device) + ft_effective


def _statistics(
    name: str,
    feature_kernel: Tensor,
    ft_effective: Tensor,
    reduced: Tensor | None,
    labels: Tensor,
    computed_in: torch.dtype | None,
) -> KernelStatistics:
    if name == "P":  # which is never built
        classes = ft_effective.shape[1]
        return KernelStatistics(
            name,
            pretrain_effective_spectrum(feature_kernel, classes, symmetric=True, computed_in=computed_in),
            pretrain_effective_alignment(feature_kernel, labels, classes, computed_in=computed_in),
            pretrain_effective_centred_alignment(feature_kernel, labels, classes, computed_in=computed_in),
        )
    kernel, classes = _component(name, feature_kernel, ft_effective), ft_effective.shape[1]
    if reduced is None:
        spectrum = kernel_spectrum(kernel, symmetric=True, computed_in=computed_in)
    elif name == "F":
        spectrum = ft_effective_spectrum(reduced, classes, symmetric=True, computed_in=computed_in)
    else:
        spectrum = total_spectrum(feature_kernel, reduced, classes, symmetric=True, computed_in=computed_in)
    return KernelStatistics(
        name,
        spectrum,
        alignment(kernel, labels, computed_in=computed_in),
        centred_alignment(kernel, labels, computed_in=computed_in),
    )


def _ft_ratios(
    feature_kernel: Tensor, ft_effective: Tensor, residual: Tensor
) -> tuple[float, float] | tuple[None, None]:
    """Compute mean and median, or None where nothing moves, which is no reason to lose the rest of the table."""
    ratios = sample_ft_ratios(feature_kernel, ft_effective, residual)
    defined = ratios[~ratios.isnan()]
    if not defined.numel():
        return None, None
    return float(defined.mean()), float(np.median(defined.cpu().numpy()))
