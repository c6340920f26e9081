import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import (
    kernel_spectrum,
    numerical_rank_tolerance,
    pretrain_effective_spectrum,
    sum_spectrum,
)


def test_a_diagonal_kernel_has_the_statistics_of_its_diagonal():
    spectrum = kernel_spectrum(torch.diag(torch.tensor([1.0, -4.0, 2.0, 1.0], dtype=torch.float64)))
    np.testing.assert_allclose(spectrum.singular_values, [4, 2, 1, 1], rtol=1e-15)
    np.testing.assert_allclose(spectrum.eigenvalues, [2, 1, 1, -4], rtol=1e-15)
    assert spectrum.rank == 4
    assert spectrum.frobenius_norm == pytest.approx(math.sqrt(22))
    assert spectrum.trace_norm == pytest.approx(8)
    assert spectrum.trace == pytest.approx(0, abs=1e-14)
    assert spectrum.spectral_norm == pytest.approx(4)
    assert spectrum.largest_eigenvalue == pytest.approx(2)
    assert spectrum.smallest_eigenvalue == pytest.approx(-4)
    assert spectrum.condition_number == pytest.approx(4)
    # Normalised values 1/2, 1/4, 1/8, 1/8 have the entropy 7/4 · ln 2.
    assert spectrum.effective_rank == pytest.approx(2**1.75)


@pytest.mark.parametrize("n", [1, 5])
def test_the_identity_has_full_effective_rank(n):
    spectrum = kernel_spectrum(torch.eye(n, dtype=torch.float64))
    assert spectrum.effective_rank == pytest.approx(n)
    assert spectrum.condition_number == pytest.approx(1)


def test_a_rank_one_kernel_has_effective_rank_one():
    v = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    spectrum = kernel_spectrum(torch.einsum("nc,md->ncmd", v, v))
    assert spectrum.rank == 1
    assert spectrum.effective_rank == pytest.approx(1, abs=1e-10)
    assert spectrum.condition_number == math.inf
    assert spectrum.trace == pytest.approx(91)


def test_the_zero_kernel():
    spectrum = kernel_spectrum(torch.zeros(2, 3, 2, 3))
    assert (spectrum.rank, spectrum.effective_rank, spectrum.frobenius_norm) == (0, 0.0, 0.0)
    assert spectrum.condition_number == math.inf


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 9), (9, 5)])
def test_agrees_with_numpy_on_kernels_of_any_shape(make_case, n, m):
    case = make_case(n=max(n, m))
    kernel = case.f[:n, :, :m].copy()
    matrix = kernel.reshape(3 * n, 3 * m)
    spectrum = kernel_spectrum(torch.from_numpy(kernel))
    assert spectrum.shape == matrix.shape
    np.testing.assert_allclose(spectrum.singular_values, np.linalg.svd(matrix)[1], atol=1e-12)
    assert spectrum.rank == np.linalg.matrix_rank(matrix) == 11  # as many as there are parameters
    assert spectrum.frobenius_norm == pytest.approx(np.linalg.norm(matrix))
    assert spectrum.trace_norm == pytest.approx(np.linalg.norm(matrix, "nuc"))
    assert (spectrum.eigenvalues is None) == (n != m)
    assert (spectrum.trace is None) == (n != m)
    if n == m:
        assert spectrum.trace == pytest.approx(np.trace(matrix))
        np.testing.assert_allclose(spectrum.eigenvalues, np.linalg.eigvalsh(matrix)[::-1], atol=1e-12)


def test_a_square_kernel_of_two_sets_of_samples_is_not_taken_for_symmetric(make_case):
    case = make_case(n=8, parameters=40)
    kernel = case.f[:4, :, 4:].copy()
    spectrum = kernel_spectrum(torch.from_numpy(kernel))
    assert spectrum.eigenvalues is None
    assert spectrum.smallest_eigenvalue is None
    assert spectrum.largest_eigenvalue is None
    reference = np.linalg.svd(kernel.reshape(12, 12))[1]
    np.testing.assert_allclose(spectrum.singular_values, reference, rtol=1e-10)
    assert spectrum.condition_number == pytest.approx(reference[0] / reference[-1], rel=1e-8)
    with pytest.raises(InputError, match="not symmetric"):
        kernel_spectrum(torch.from_numpy(kernel), symmetric=True)


def test_rounding_does_not_make_a_kernel_asymmetric(make_case):
    kernel = torch.from_numpy(make_case().f).float()
    kernel[0, 0, 1, 1] *= 1 + 1e-6
    assert kernel_spectrum(kernel).eigenvalues is not None
    assert kernel_spectrum(kernel.double()).eigenvalues is None
    assert kernel_spectrum(kernel.double(), computed_in=torch.float32).eigenvalues is not None


def test_symmetric_false_asks_for_singular_values_alone(make_case):
    kernel = torch.from_numpy(make_case().f)
    plain = kernel_spectrum(kernel, symmetric=False)
    assert plain.eigenvalues is None
    np.testing.assert_allclose(plain.singular_values, kernel_spectrum(kernel).singular_values, atol=1e-11)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 4)])
@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_pretrain_effective_agrees_with_the_dense_kronecker_product(make_case, n, m, num_classes):
    k = make_case(n=6, width=2).k[:n, :m].copy()
    dense = np.kron(k, np.eye(num_classes))
    spectrum = pretrain_effective_spectrum(torch.from_numpy(k), num_classes)
    assert spectrum.shape == dense.shape
    np.testing.assert_allclose(spectrum.singular_values, np.linalg.svd(dense)[1], atol=1e-12)
    assert spectrum.rank == np.linalg.matrix_rank(dense) == 3 * num_classes  # two features and the bias
    assert spectrum.rank_tolerance == pytest.approx(max(dense.shape) * np.finfo(float).eps * np.linalg.norm(dense, 2))
    assert spectrum.frobenius_norm == pytest.approx(np.linalg.norm(dense))
    if n == m:
        np.testing.assert_allclose(spectrum.eigenvalues, np.linalg.eigvalsh(dense)[::-1], atol=1e-12)
        assert spectrum.trace == pytest.approx(np.trace(dense))


def test_the_rank_tolerance_is_that_of_the_dtype_computed_in(make_case):
    matrix = make_case(n=20, c=2, parameters=6).f.reshape(40, 40)
    single = torch.from_numpy(matrix).float()
    norm = np.linalg.norm(matrix, 2)
    assert kernel_spectrum(single).rank == 6
    assert kernel_spectrum(single).rank_tolerance == pytest.approx(40 * 2.0**-23 * norm, rel=1e-5)
    # Taken for float64, the rounding noise of float32 counts as rank.
    assert kernel_spectrum(single.double(), symmetric=False).rank > 6
    assert kernel_spectrum(single.double(), computed_in=torch.float32).rank == 6


def test_the_tolerance_of_narrow_dtypes_grows_with_the_root_of_the_size():
    for dtype, eps in ((torch.bfloat16, 2.0**-7), (torch.float16, 2.0**-10)):
        assert numerical_rank_tolerance((36, 30), 2.0, dtype) == pytest.approx(6 * eps * 2)
        # Of 750 rows, the paper's, something is left to count.
        assert numerical_rank_tolerance((750, 750), 1.0, dtype) < 0.25


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-9, 1e9), rounded=st.booleans())
def test_a_sum_has_at_least_the_rank_of_its_parts(make_case, seed, scale, rounded):
    """Each is counted by its own largest value, so that a small part may be lost in the sum, but for what is known."""
    case = make_case(seed, n=5, c=2, width=2, parameters=6)
    p, f = torch.from_numpy(case.p_matrix), scale * torch.from_numpy(case.f).reshape(10, 10)
    if rounded:
        p, f = p.float(), f.float()
    of_p, of_f, of_both = (kernel_spectrum(kernel, symmetric=True) for kernel in (p, f, p + f))
    both = sum_spectrum(of_both, of_p, of_f)
    assert both.rank >= max(of_p.rank, of_f.rank)
    assert both.rank >= of_both.rank
    assert both.condition_number == of_both.condition_number
    np.testing.assert_array_equal(both.singular_values, of_both.singular_values)


def test_the_rank_tolerance_can_be_chosen():
    kernel = torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64))
    assert [kernel_spectrum(kernel, rank_tolerance=t).rank for t in (0.0, 0.5, 1.0, 3.0, 8.0)] == [4, 4, 3, 2, 0]
    assert pretrain_effective_spectrum(kernel, 3, rank_tolerance=3.0).rank == 6
    for bad in (-1.0, math.nan):
        with pytest.raises(InputError, match="rank_tolerance"):
            kernel_spectrum(kernel, rank_tolerance=bad)


def test_symmetric_needs_a_square_kernel():
    with pytest.raises(InputError, match="2×3"):
        kernel_spectrum(torch.randn(2, 3), symmetric=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-30, 30), parameters=st.integers(1, 15))
def test_scaling_moves_norms_and_leaves_ranks(make_case, seed, exponent, parameters):
    kernel = torch.from_numpy(make_case(seed, n=4, c=2, parameters=parameters).f)
    one, other = kernel_spectrum(kernel), kernel_spectrum(kernel * 2.0**exponent)
    assert other.rank == one.rank == min(parameters, 8)
    assert other.effective_rank == pytest.approx(one.effective_rank)
    assert other.frobenius_norm == pytest.approx(one.frobenius_norm * 2.0**exponent)
    assert other.trace_norm == pytest.approx(one.trace_norm * 2.0**exponent)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_sample_order_and_rotations_do_not_matter(make_case, seed):
    case = make_case(seed, n=5, c=2, parameters=6)
    order = np.random.default_rng(seed).permutation(5)
    one = kernel_spectrum(torch.from_numpy(case.f))
    other = kernel_spectrum(torch.from_numpy(case.f[order][:, :, order]))
    np.testing.assert_allclose(other.singular_values, one.singular_values, atol=1e-12 * one.spectral_norm)
    assert 1 - 1e-9 <= one.effective_rank <= one.rank + 1e-6
