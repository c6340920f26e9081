"""Measures of features φ(x): of one model on a set of samples, and of two models on the same samples.

All compute in float64. Where features hold a NaN or infinite value, the measure is NaN, so that a run that diverges can
still be followed.

Source of their names: Tomihari and Sato, NeurIPS 2024, tables 1, 11 and 12. The paper prints no formula for CS and FDR;
what is computed here is said at each.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError

_EPSILON = torch.finfo(torch.float64).eps


@checked
def measure_features(
    features: Float[Tensor, "n h"], reference: Float[Tensor, "n h"], labels: Int[Tensor, " n"] | Int[np.ndarray, " n"]
) -> dict[str, float]:
    """Compute every measure of this file, by the name that tracking and ``metrics.json`` give it.

    Args:
        features: φ, of shape (N, h).
        reference: The pretrained features of the same samples, of shape (N, h).
        labels: The class of each sample, of shape (N,).

    Returns:
        The measures.

    Raises:
        InputError: The features are no matrices of one shape, or empty, or the labels do not fit them.
    """
    return {
        "feature_difference": feature_difference(features, reference),
        "cosine_similarity": sample_cosine_similarity(features),
        "reference_cosine_similarity": reference_cosine_similarity(features, reference),
        "feature_norm": feature_norm(features),
        "fisher_discriminant_ratio": fisher_discriminant_ratio(features, labels),
        "trace_ratio": trace_ratio(features, labels),
        "linear_cka": linear_cka(features, reference),
    }


@checked
def sample_cosine_similarity(features: Float[Tensor, "n h"]) -> float:
    """Compute CS, the mean of cos(φ(x), φ(x')) over all pairs of different samples.

    The mean over the ordered pairs is (‖Σ_i u_i‖² − Σ_i ‖u_i‖²) / (N (N − 1)) with u_i = φ(x_i) / ‖φ(x_i)‖. It is near
    1 where all features point the same way, as those of a pretrained Transformer do, and at least −1 / (N − 1).

    Args:
        features: φ, of shape (N, h).

    Returns:
        CS, from −1 to 1. A zero feature has cosine 0 with every other. NaN for a single sample.

    Raises:
        InputError: The features are no matrix, or empty.
    """
    unit = _directions(_checked(features))
    n = len(unit)
    if n < 2:
        return math.nan
    return float((unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1)))


@checked
def mean_cosines(features: Float[Tensor, "n h"]) -> Float64[Tensor, " n"]:
    """Compute of each sample the mean of cos(φ(x), φ(x')) over all others, whose mean is CS.

    Args:
        features: φ, of shape (N, h).

    Returns:
        The means, of shape (N,); NaN for a single sample.

    Raises:
        InputError: The features are no matrix, or empty.
    """
    unit = _directions(_checked(features))
    return (unit @ unit.sum(dim=0) - unit.square().sum(dim=1)) / (len(unit) - 1)


@checked
def feature_norm(features: Float[Tensor, "n h"]) -> float:
    """Compute the mean over the samples of ‖φ(x)‖.

    Args:
        features: φ, of shape (N, h).

    Returns:
        The mean norm.

    Raises:
        InputError: The features are no matrix, or empty.
    """
    return _finite(torch.linalg.vector_norm(_checked(features), dim=1).mean())


@checked
def fisher_discriminant_ratio(
    features: Float[Tensor, "n h"], labels: Int[Tensor, " n"] | Int[np.ndarray, " n"]
) -> float:
    """Compute FDR, tr(S_W⁺ S_B): between-class over within-class scatter, each direction measured by its own spread.

    S_B = Σ_c n_c (μ_c − μ)(μ_c − μ)ᵀ, S_W = Σ_c Σ_{i in c} (φ_i − μ_c)(φ_i − μ_c)ᵀ, and ⁺ is the pseudo-inverse. For
    non-singular S_W this is the sum of the eigenvalues that linear discriminant analysis maximises, and no
    invertible linear map of the features changes it.

    Of the readings of "between-class over within-class scatter" it is the one that fits the paper's numbers: on
    SemEval and SST-5 the pretrained features of another body (MiniLM) give 1.3 to 2.5, as the paper has 1.24 and more,
    and 0.01 for `trace_ratio`. Compare samples of one size only. Features without any class structure have the mean
    (C − 1) h / (N − C − h − 1), which for the paper's h = 768 is 0.08 on SemEval, 0.4 on Dynasent and 5.2 on SST-5;
    that is how the pretrained 1.24, 1.94 and 16.9 of table 11 differ. Values on no more samples than h + C (CB and
    RTE, up to 10⁸ in the paper) depend on how a singular S_W is inverted, which the paper does not say: compare their
    order only. Here the parts of μ_c − μ in which no class has any spread are left out.

    Source: Fukunaga (1990), "Introduction to Statistical Pattern Recognition", section 10.2, criterion J_1.

    Args:
        features: φ, of shape (N, h).
        labels: The class of each sample, of shape (N,).

    Returns:
        FDR, 0 or more. NaN where all samples are of one class, or all features are equal; infinite where every class
        is a single point, and not all of them are the same.

    Raises:
        InputError: The features are no matrix, or empty, or the labels do not fit them.
    """
    between, within, floor = _scatter(features, labels)
    if not _usable(between, within):
        return math.nan
    # The triangular factor has the same singular values and directions, and no more rows than columns.
    _, spread, directions = torch.linalg.svd(torch.linalg.qr(within, mode="r").R, full_matrices=False)
    # Rounding is no spread, neither that of the features' entries nor that of the decomposition.
    kept = spread > max(floor, max(within.shape) * _EPSILON * float(spread[0]))
    if not kept.any():
        return math.inf if float(torch.linalg.matrix_norm(between)) > floor else math.nan
    return float((between @ directions[kept].T / spread[kept]).square().sum())


@checked
def trace_ratio(features: Float[Tensor, "n h"], labels: Int[Tensor, " n"] | Int[np.ndarray, " n"]) -> float:
    """Compute tr(S_B) / tr(S_W), between-class over within-class scatter with all directions weighed alike.

    Σ_c n_c ‖μ_c − μ‖² / Σ_c Σ_{i in c} ‖φ_i − μ_c‖². Unlike `fisher_discriminant_ratio` it is well defined for any
    number of samples, and changes with the scale of single directions; rotations and a common scale leave it alone.

    Source: Fukunaga (1990), "Introduction to Statistical Pattern Recognition", section 10.2, criterion J_4.

    Args:
        features: φ, of shape (N, h).
        labels: The class of each sample, of shape (N,).

    Returns:
        The ratio; NaN and infinity as for `fisher_discriminant_ratio`.

    Raises:
        InputError: As for `fisher_discriminant_ratio`.
    """
    between, within, floor = _scatter(features, labels)
    if not _usable(between, within):
        return math.nan
    over, under = (float(torch.linalg.matrix_norm(part)) for part in (between, within))
    if under <= floor:
        return math.inf if over > floor else math.nan
    return (over / under) ** 2


@checked
def feature_difference(features: Float[Tensor, "n h"], reference: Float[Tensor, "n h"]) -> float:
    """Compute Diff, the mean over the samples of ‖φ(x) − φ_ref(x)‖.

    The paper's caption says "difference in norms"; its values fit the norm of the difference.

    Args:
        features: φ, of shape (N, h).
        reference: The pretrained features of the same samples, of shape (N, h).

    Returns:
        Diff, in the unit of the features.

    Raises:
        InputError: The features are no matrices of one shape, or empty.
    """
    return _finite(sample_feature_differences(features, reference).mean())


@checked
def sample_feature_differences(
    features: Float[Tensor, "n h"], reference: Float[Tensor, "n h"]
) -> Float64[Tensor, " n"]:
    """Compute ‖φ(x) − φ_ref(x)‖ of each sample, whose mean is Diff.

    Args:
        features: φ, of shape (N, h).
        reference: The pretrained features of the same samples, of shape (N, h).

    Returns:
        The norms, of shape (N,).

    Raises:
        InputError: The features are no matrices of one shape, or empty.
    """
    now, before = _pair(features, reference)
    return torch.linalg.vector_norm(now - before, dim=1)


@checked
def reference_cosine_similarity(features: Float[Tensor, "n h"], reference: Float[Tensor, "n h"]) -> float:
    """Compute the mean over the samples of cos(φ(x), φ_ref(x)).

    Args:
        features: φ, of shape (N, h).
        reference: The pretrained features of the same samples, of shape (N, h).

    Returns:
        The mean cosine, from −1 to 1. A zero feature has cosine 0 with any other.

    Raises:
        InputError: The features are no matrices of one shape, or empty.
    """
    now, before = _pair(features, reference)
    return _finite((_directions(now) * _directions(before)).sum(dim=1).mean())


@checked
def linear_cka(features: Float[Tensor, "n h"], reference: Float[Tensor, "n k"]) -> float:
    """Compute the linear centred kernel alignment ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features X and Y.

    Norms are Frobenius's. Neither a rotation, nor a common scale, nor a shift of either side changes it.

    Source: Kornblith, Norouzi, Lee and Hinton (2019), "Similarity of Neural Network Representations Revisited",
    equation 4 and section 3.

    Args:
        features: φ, of shape (N, h).
        reference: Features of the same samples, of shape (N, k).

    Returns:
        CKA, from 0 to 1. NaN where all features of one side are equal, so that nothing is left of them when centred.

    Raises:
        InputError: The features are no matrices of equally many rows, or empty.
    """
    sides = [_checked(features), _checked(reference, "reference")]
    if len(sides[0]) != len(sides[1]):
        raise InputError(f"{len(sides[0])} features and {len(sides[1])} reference features; give one pair a sample")
    unit = []
    for side in sides:
        centred = side - side.mean(dim=0)
        size = torch.linalg.matrix_norm(centred)
        if not size > _rounding(side):
            return math.nan
        # CKA does not depend on the scale, whose fourth power could leave the range of float64.
        unit.append(centred / size)
    x, y = unit
    if len(x) <= max(x.shape[1], y.shape[1]):
        # The same three norms from N×N matrices, the smaller ones here.
        gram_x, gram_y = x @ x.T, y @ y.T
        norms = torch.linalg.matrix_norm(gram_x) * torch.linalg.matrix_norm(gram_y)
        return _finite((gram_x * gram_y).sum() / norms)
    norms = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    return _finite((y.T @ x).square().sum() / norms)


def _checked(features: Tensor, name: str = "features") -> Float64[Tensor, "n h"]:
    if features.ndim != 2 or features.numel() == 0 or not features.is_floating_point():
        raise InputError(
            f"{name} have shape {tuple(features.shape)} and dtype {features.dtype}; expected (N, h) floating-point"
        )
    return features.detach().cpu().double()


def _pair(features: Tensor, reference: Tensor) -> tuple[Float64[Tensor, "n h"], Float64[Tensor, "n h"]]:
    if features.shape != reference.shape:
        raise InputError(
            f"features have shape {tuple(features.shape)} and reference features {tuple(reference.shape)}; "
            "give features of the same samples and of one width"
        )
    return _checked(features), _checked(reference, "reference")


def _finite(value: Tensor) -> float:
    number = float(value)
    return number if math.isfinite(number) else math.nan


def _directions(features: Float64[Tensor, "n h"]) -> Float64[Tensor, "n h"]:
    """Divide each row by its norm; a zero row stays."""
    # By the largest entry first, so that no square leaves the range of float64.
    largest = features.abs().amax(dim=1, keepdim=True)
    scaled = torch.where(largest > 0, features / largest, features)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return torch.where(largest > 0, scaled / norms, scaled)


def _rounding(features: Float64[Tensor, "n h"]) -> float:
    """Bound what is left by rounding alone when equal rows are centred."""
    return max(features.shape) * _EPSILON * float(torch.linalg.matrix_norm(features))


def _scatter(
    features: Tensor, labels: Tensor | np.ndarray
) -> tuple[Float64[Tensor, "c h"], Float64[Tensor, "n h"], float]:
    """Return factors of S_B = BᵀB and S_W = WᵀW, for the classes that occur, and the size of rounding."""
    phi = _checked(features)
    classes = labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    classes = classes.detach().cpu()
    if classes.shape != phi.shape[:1] or classes.is_floating_point() or classes.dtype == torch.bool:
        raise InputError(
            f"labels have shape {tuple(classes.shape)} and dtype {classes.dtype}; expected ({len(phi)},) integers"
        )
    _, member, counts = torch.unique(classes, return_inverse=True, return_counts=True)
    means = torch.zeros(len(counts), phi.shape[1], dtype=phi.dtype).index_add_(0, member, phi) / counts[:, None]
    between = counts[:, None].double().sqrt() * (means - phi.mean(dim=0))
    return between, phi - means[member], _rounding(phi)


def _usable(between: Float64[Tensor, "c h"], within: Float64[Tensor, "n h"]) -> bool:
    """Whether there are two classes or more, and only finite values."""
    return len(between) > 1 and bool(torch.isfinite(within).all()) and bool(torch.isfinite(between).all())
