"""Measures of features, against loops, scikit-learn and the definition by HSIC."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.statistics.features import (
    feature_difference,
    feature_norm,
    fisher_discriminant_ratio,
    linear_cka,
    mean_cosines,
    reference_cosine_similarity,
    sample_cosine_similarity,
    sample_feature_differences,
    trace_ratio,
)

ALONE: dict[str, Callable[[Tensor], float]] = {"cs": sample_cosine_similarity, "norm": feature_norm}
PAIRED: dict[str, Callable[[Tensor, Tensor], float]] = {
    "difference": feature_difference,
    "reference cosine": reference_cosine_similarity,
    "cka": linear_cka,
}
LABELLED: dict[str, Callable[[Tensor, Tensor], float]] = {"fdr": fisher_discriminant_ratio, "trace": trace_ratio}


def draw(seed: int, n: int, h: int, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Features far from the origin with some class structure, features near to them, and labels of unequal counts."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.minimum(np.arange(n) % (classes + 1), classes - 1))
    features = random.normal(size=(n, h)) @ random.normal(size=(h, h)) + 2 + random.normal(size=(classes, h))[labels]
    reference = features + 0.3 * random.normal(size=(n, h))
    return torch.from_numpy(features), torch.from_numpy(reference), torch.from_numpy(labels)


def scatters(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h = features.shape[1]
    between, within = np.zeros((h, h)), np.zeros((h, h))
    for c in set(labels.tolist()):
        own = [f for f, y in zip(features, labels, strict=True) if y == c]
        mean = sum(own) / len(own)
        shift = mean - features.mean(axis=0)
        between += len(own) * np.outer(shift, shift)
        for f in own:
            within += np.outer(f - mean, f - mean)
    return between, within


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True))) / math.sqrt(float(a @ a)) / math.sqrt(float(b @ b))


@pytest.mark.parametrize(("n", "h"), [(2, 5), (7, 4), (9, 1), (30, 6)])
def test_measures_of_one_model_by_loops(n: int, h: int) -> None:
    features, _, _ = draw(n, n, h)
    phi = features.numpy()
    pairs = [cosine(phi[i], phi[j]) for i in range(n) for j in range(n) if i != j]
    assert sample_cosine_similarity(features) == pytest.approx(sum(pairs) / len(pairs), rel=1e-10)
    norms = [math.sqrt(sum(x * x for x in row)) for row in phi.tolist()]
    assert feature_norm(features) == pytest.approx(sum(norms) / n, rel=1e-12)


@pytest.mark.parametrize(("n", "h"), [(1, 3), (7, 4), (30, 6)])
def test_measures_of_two_models_by_loops(n: int, h: int) -> None:
    features, reference, _ = draw(n, n, h)
    rows = list(zip(features.tolist(), reference.tolist(), strict=True))
    lengths = [math.dist(a, b) for a, b in rows]
    assert feature_difference(features, reference) == pytest.approx(sum(lengths) / n, rel=1e-12)
    cosines = [cosine(np.array(a), np.array(b)) for a, b in rows]
    assert reference_cosine_similarity(features, reference) == pytest.approx(sum(cosines) / n, rel=1e-10)


def test_the_norm_of_the_difference_is_not_the_difference_of_norms() -> None:
    assert feature_difference(torch.tensor([[3.0, 4.0]]), torch.tensor([[-3.0, -4.0]])) == 10


@pytest.mark.parametrize(("n", "h"), [(4, 9), (8, 8), (30, 6)])
@pytest.mark.parametrize("other_width", [2, 6, 11])
def test_cka_by_hsic(n: int, h: int, other_width: int) -> None:
    features, _, _ = draw(n, n, h)
    reference = torch.cat([features, features.sin(), features.cos()], dim=1)[:, -other_width:]
    centring = np.eye(n) - np.ones((n, n)) / n

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        return float(np.trace(k @ centring @ m @ centring)) / (n - 1) ** 2

    k, m = (side.numpy() @ side.numpy().T for side in (features, reference))
    expected = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    assert 0 < expected < 1
    assert linear_cka(features, reference) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_fdr_by_linear_discriminant_analysis(classes: int) -> None:
    features, _, labels = draw(classes, 60, 7, classes)
    y = labels.numpy()
    scores = LinearDiscriminantAnalysis(solver="svd").fit(features.numpy(), y).transform(features.numpy())
    assert scores.shape[1] == classes - 1
    between, within = scatters(scores, y)
    # The scores are uncorrelated within and between classes, so that each has a ratio of its own.
    np.testing.assert_allclose(within, within[0, 0] * np.eye(classes - 1), atol=1e-8 * within[0, 0])
    expected = (np.diag(between) / np.diag(within)).sum()
    assert fisher_discriminant_ratio(features, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "h"), [(40, 5), (12, 9), (9, 12), (9, 40), (6, 6)])
def test_ratios_by_scatter_matrices(n: int, h: int) -> None:
    features, _, labels = draw(n + h, n, h)
    between, within = scatters(features.numpy(), labels.numpy())
    expected = np.trace(np.linalg.pinv(within, rcond=1e-11, hermitian=True) @ between)
    assert fisher_discriminant_ratio(features, labels) == pytest.approx(expected, rel=1e-6)
    assert trace_ratio(features, labels) == pytest.approx(np.trace(between) / np.trace(within), rel=1e-10)


def test_fdr_of_features_without_class_structure() -> None:
    """The mean that the docstring gives, by which samples of different size are to be compared."""
    n, h, classes = 40, 12, 3
    random = np.random.default_rng(0)
    labels = torch.arange(n) % classes
    drawn = [fisher_discriminant_ratio(torch.from_numpy(random.normal(size=(n, h))), labels) for _ in range(400)]
    expected = (classes - 1) * h / (n - classes - h - 1)
    assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / 20)
    assert np.std(drawn) / 20 < 0.05 * expected


def test_labels_as_numpy_and_class_numbers_that_do_not_matter() -> None:
    features, _, labels = draw(0, 20, 4)
    frozen = labels.numpy().copy()
    frozen.setflags(write=False)
    for function in LABELLED.values():
        value = function(features, labels)
        assert function(features, frozen) == value
        assert function(features, 7 * (2 - labels).to(torch.int32) - 3) == pytest.approx(value, rel=1e-12)


def test_float32_features_are_computed_with_in_float64() -> None:
    features, reference, labels = draw(0, 20, 4)
    features, reference = (side.float() + 1000 for side in (features, reference))
    for function in PAIRED.values():
        assert function(features, reference) == function(features.double(), reference.double())
    for function in LABELLED.values():
        assert function(features, labels) == function(features.double(), labels)
    for function in ALONE.values():
        assert function(features) == function(features.double())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 14), h=st.integers(2, 16), exponent=st.integers(-30, 30))
def test_invariants(seed: int, n: int, h: int, exponent: int) -> None:
    features, reference, labels = draw(seed, n, h)
    random = np.random.default_rng(seed)
    rotation = torch.from_numpy(np.linalg.qr(random.normal(size=(h, h)))[0])
    order = torch.from_numpy(random.permutation(n))
    scale = 2.0**exponent
    for name, one in ALONE.items():
        value = one(features)
        assert one(features @ rotation) == pytest.approx(value, rel=1e-9)
        assert one(features[order]) == pytest.approx(value, rel=1e-9)
        assert one(scale * features) == pytest.approx(scale * value if name == "norm" else value, rel=1e-9)
    for name, pair in PAIRED.items():
        value = pair(features, reference)
        assert pair(features @ rotation, reference @ rotation) == pytest.approx(value, rel=1e-9)
        assert pair(features[order], reference[order]) == pytest.approx(value, rel=1e-9)
        assert pair(reference, features) == pytest.approx(value, rel=1e-9)
        expected = scale * value if name == "difference" else value
        assert pair(scale * features, scale * reference) == pytest.approx(expected, rel=1e-9)
    for classified in LABELLED.values():
        value = classified(features, labels)
        for changed in (features @ rotation, scale * features, features + 5):
            assert classified(changed, labels) == pytest.approx(value, rel=1e-5)
        assert classified(features[order], labels[order]) == pytest.approx(value, rel=1e-5)
    assert linear_cka(features @ rotation, scale * (reference + 3)) == pytest.approx(
        linear_cka(features, reference), rel=1e-9
    )
    assert linear_cka(features, features) == pytest.approx(1)
    assert reference_cosine_similarity(features, features) == pytest.approx(1)
    assert feature_difference(features, features) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 20), h=st.integers(1, 10))
def test_ranges(seed: int, n: int, h: int) -> None:
    features, reference, labels = draw(seed, n, h)
    assert -1 / (n - 1) - 1e-12 <= sample_cosine_similarity(features) <= 1 + 1e-12
    assert -1e-12 <= linear_cka(features, reference) <= 1 + 1e-12
    for function in LABELLED.values():
        value = function(features, labels)
        assert value >= 0 or math.isnan(value)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_fdr_forgets_any_linear_map(seed: int) -> None:
    features, _, labels = draw(seed, 30, 5)
    stretch = torch.diag(torch.tensor([1.0, 30.0, 0.02, 4.0, 0.5], dtype=torch.float64))
    value = fisher_discriminant_ratio(features, labels)
    assert fisher_discriminant_ratio(features @ stretch, labels) == pytest.approx(value, rel=1e-6)
    assert trace_ratio(features @ stretch, labels) != pytest.approx(trace_ratio(features, labels), rel=1e-6)


def test_collapsed_classes_are_separated_without_bound() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])
    points = torch.tensor([[0.1, 0.7, 0.3], [0.9, 0.1, 0.1], [1e5, 0.1, 0.3]])[labels]
    for function in LABELLED.values():
        assert function(points, labels) == math.inf
        noisy = points + 1e-3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        assert 1e3 < function(noisy, labels) < math.inf


def test_classes_that_differ_where_none_of_them_has_spread() -> None:
    """Such a direction is left out of FDR, and counts for the trace ratio."""
    labels = torch.tensor([0, 0, 1, 1])
    features = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0], [9.0, -1.0, 0.0], [9.0, 2.0, 0.0]])
    # Along the second axis alone: the means are 0 and 1/2, the scatter is 2 + 9/2.
    assert fisher_discriminant_ratio(features, labels) == pytest.approx(0.25 / 6.5)
    assert trace_ratio(features, labels) == pytest.approx((0.25 + 81) / 6.5)


@pytest.mark.parametrize("function", LABELLED.values())
def test_ratios_that_are_undefined(function: Callable[[Tensor, Tensor], float]) -> None:
    features, _, labels = draw(0, 6, 3)
    assert math.isnan(function(features, torch.zeros(6, dtype=torch.int64)))  # one class
    assert math.isnan(function(features[:1], labels[:1]))  # one sample
    assert math.isnan(function(torch.full((6, 3), 0.1), labels))  # all alike
    assert function(features[:2], torch.tensor([0, 1])) == math.inf  # a point each


def test_other_degenerate_features() -> None:
    features, reference, _ = draw(0, 6, 3)
    assert math.isnan(sample_cosine_similarity(features[:1]))
    assert math.isnan(linear_cka(features[:1], reference[:1]))
    assert math.isnan(linear_cka(torch.full((6, 3), 0.1), reference))
    assert math.isnan(linear_cka(features, torch.zeros(6, 2)))
    zero = torch.zeros(2, 3)
    assert feature_norm(zero) == sample_cosine_similarity(zero) == reference_cosine_similarity(zero, zero) == 0
    # A zero feature counts as orthogonal: one pair of three has cosine 1.
    assert sample_cosine_similarity(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])) == pytest.approx(1 / 3)
    assert reference_cosine_similarity(torch.tensor([[1.0], [0.0]]), torch.ones(2, 1)) == 0.5


def test_equal_features_have_cosine_one_whatever_their_size() -> None:
    for size in (1e-200, 1.0, 1e200):
        features = torch.full((4, 3), size, dtype=torch.float64)
        assert sample_cosine_similarity(features) == pytest.approx(1)
        assert reference_cosine_similarity(features, features) == pytest.approx(1)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_have_no_measure(broken: float) -> None:
    features, reference, labels = draw(0, 8, 3)
    bad = features.clone()
    bad[2, 1] = broken
    for one in ALONE.values():
        assert math.isnan(one(bad))
    for pair in PAIRED.values():
        assert math.isnan(pair(bad, reference))
        assert math.isnan(pair(features, bad))
    for classified in LABELLED.values():
        assert math.isnan(classified(bad, labels))


@pytest.mark.unchecked
def test_what_is_refused() -> None:
    features, reference, labels = draw(0, 6, 3)
    for one in ALONE.values():
        with pytest.raises(InputError, match=r"features have shape \(6,\)"):
            one(features[:, 0])
        with pytest.raises(InputError, match=r"shape \(0, 3\)"):
            one(features[:0])
    with pytest.raises(InputError, match="int64"):
        feature_norm(labels[:, None])
    for pair in PAIRED.values():
        with pytest.raises(InputError, match="features"):
            pair(features, reference[:4])
    for classified in LABELLED.values():
        with pytest.raises(InputError, match=r"labels have shape \(5,\)"):
            classified(features, labels[:5])
        with pytest.raises(InputError, match="expected"):
            classified(features, labels.double())


def test_measures_of_rows_are_written_out_and_have_the_measures_as_means() -> None:
    features, reference, _ = draw(3, 7, 4)
    x, y = features.double(), reference.double()
    differences, cosines = sample_feature_differences(features, reference), mean_cosines(features)
    for i in range(7):
        assert float(differences[i]) == pytest.approx(math.dist(x[i].tolist(), y[i].tolist()))
        others = [float(x[i] @ x[j] / (x[i].norm() * x[j].norm())) for j in range(7) if j != i]
        assert float(cosines[i]) == pytest.approx(sum(others) / 6)
    assert float(differences.mean()) == feature_difference(features, reference)
    assert float(cosines.mean()) == pytest.approx(sample_cosine_similarity(features))
    assert mean_cosines(features[:1]).isnan().all()
