import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import (
    alignment,
    centred_alignment,
    pretrain_effective_alignment,
    pretrain_effective_centred_alignment,
)


def frobenius_product(a, b):
    return sum(
        x * y for row_a, row_b in zip(a.tolist(), b.tolist(), strict=True) for x, y in zip(row_a, row_b, strict=True)
    )


def by_definition(matrix, labels, num_classes, centred):
    y = np.eye(num_classes)[labels].reshape(-1)
    target = np.outer(y, y)
    if centred:
        h = np.eye(len(y)) - np.ones((len(y), len(y))) / len(y)
        matrix, target = h @ matrix @ h, h @ target @ h
    norms = math.sqrt(frobenius_product(matrix, matrix) * frobenius_product(target, target))
    return frobenius_product(matrix, target) / norms


@pytest.mark.parametrize(("function", "centred"), [(alignment, False), (centred_alignment, True)])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_dense_kernels_by_definition(make_case, function, centred, num_classes):
    case = make_case(c=num_classes)
    expected = by_definition(case.f.reshape(7 * num_classes, -1), case.labels, num_classes, centred)
    value = function(torch.from_numpy(case.f), torch.from_numpy(case.labels))
    assert value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("function", "centred"), [(pretrain_effective_alignment, False), (pretrain_effective_centred_alignment, True)]
)
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_pretrain_effective_by_definition_on_the_dense_matrix(make_case, function, centred, num_classes):
    case = make_case(c=num_classes)
    expected = by_definition(case.p_matrix, case.labels, num_classes, centred)
    value = function(torch.from_numpy(case.k), torch.from_numpy(case.labels), num_classes)
    assert value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("function", [alignment, centred_alignment])
def test_the_target_itself_is_aligned_perfectly(function):
    labels = torch.tensor([0, 2, 1, 1])
    y = torch.nn.functional.one_hot(labels, 3).double()
    assert function(torch.einsum("nc,md->ncmd", y, y), labels) == pytest.approx(1)


def test_the_identity_has_the_alignment_of_its_size():
    # ⟨I, y yᵀ⟩ = N and ‖I‖ = √(NC): N / (√(NC) N).
    assert pretrain_effective_alignment(torch.eye(4), torch.tensor([0, 1, 2, 0]), 3) == pytest.approx(1 / math.sqrt(12))


@pytest.mark.parametrize("function", [alignment, centred_alignment])
def test_the_zero_kernel_is_aligned_with_nothing(function):
    assert function(torch.zeros(3, 2, 3, 2), torch.tensor([0, 1, 1])) == 0


@pytest.mark.parametrize("samples", [3, 7, 11])
def test_a_constant_kernel_centres_to_zero(samples):
    # Means of 0.1 over 21 or 33 entries are not exact: rounding noise must not pass for a centred kernel.
    labels, kernel = torch.arange(samples) % 3, torch.full((samples, 3, samples, 3), 0.1, dtype=torch.float64)
    assert centred_alignment(kernel, labels) == 0
    assert alignment(kernel, labels) == pytest.approx(1 / 3)


def test_the_zero_feature_kernel():
    labels = torch.tensor([0, 1, 1])
    assert pretrain_effective_alignment(torch.zeros(3, 3), labels, 2) == 0
    assert pretrain_effective_centred_alignment(torch.zeros(3, 3), labels, 2) == 0


@pytest.mark.unchecked
@pytest.mark.parametrize("function", [alignment, centred_alignment])
@pytest.mark.parametrize(
    ("kernel", "labels", "words"),
    [
        (torch.eye(3), [0, 1, 1], "shape"),
        (torch.ones(3, 2, 4, 2), [0, 1, 1], "6×8"),
        (torch.arange(36.0).reshape(3, 2, 3, 2), [0, 1, 1], "not symmetric"),
        (torch.ones(3, 2, 3, 2), [0, 1, 2], "from 0 to 2"),
        (torch.ones(3, 2, 3, 2), [0, 1], "one a sample"),
    ],
)
@pytest.mark.unchecked
def test_dense_kernels_refused(function, kernel, labels, words):
    with pytest.raises(InputError, match=words):
        function(kernel, torch.tensor(labels))


@pytest.mark.unchecked
@pytest.mark.parametrize("function", [pretrain_effective_alignment, pretrain_effective_centred_alignment])
def test_feature_kernels_refused(function):
    labels = torch.tensor([0, 1, 1])
    with pytest.raises(InputError, match="shape"):
        function(torch.ones(3, 2, 3, 2), labels, 2)
    with pytest.raises(InputError, match="not symmetric"):
        function(torch.arange(9.0).reshape(3, 3), labels, 2)
    with pytest.raises(InputError, match="num_classes"):
        function(torch.eye(3), labels, 0)


def test_a_single_class_cannot_be_centred():
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match="two classes"):
        centred_alignment(torch.ones(3, 1, 3, 1), labels)
    with pytest.raises(InputError, match="two classes"):
        pretrain_effective_centred_alignment(torch.eye(3), labels, 1)


def test_the_allowed_asymmetry_is_that_of_the_dtype_computed_in(make_case):
    case = make_case()
    kernel, labels = torch.from_numpy(case.f), torch.from_numpy(case.labels)
    kernel[0, 0, 1, 1] *= 1 + 1e-6
    with pytest.raises(InputError, match="not symmetric"):
        alignment(kernel, labels)
    exact = alignment(torch.from_numpy(case.f), labels)
    assert alignment(kernel, labels, computed_in=torch.float32) == pytest.approx(exact, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-60, 60), shift=st.floats(-5, 5))
def test_invariants(make_case, seed, exponent, shift):
    case = make_case(seed, n=5, c=2)
    kernel, labels = torch.from_numpy(case.f), torch.from_numpy(case.labels)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(5))
    permuted = kernel[order][:, :, order]
    for function in (alignment, centred_alignment):
        value = function(kernel, labels)
        assert 0 <= value <= 1  # positive semi-definite
        assert function(2.0**exponent * kernel, labels) == pytest.approx(value, rel=1e-9)
        assert function(permuted, labels[order]) == pytest.approx(value, rel=1e-9)
    # Centring forgets a constant.
    assert centred_alignment(kernel + shift, labels) == pytest.approx(centred_alignment(kernel, labels), rel=1e-9)
