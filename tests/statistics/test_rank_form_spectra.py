import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import ft_effective_spectrum, summarise, total_spectrum


def kernels(n: int, c: int, r: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """k, F_r, Q and F = Q F_r Qᵀ as Gram matrices of random gradients, in numpy."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(n, 4))
    jacobian = random.normal(size=(n * r, 11))
    basis = np.linalg.qr(random.normal(size=(c, r)))[0]
    reduced = (jacobian @ jacobian.T).reshape(n, r, n, r)
    return features @ features.T, reduced, basis, np.einsum("ca,namb,db->ncmd", basis, reduced, basis)


@given(n=st.integers(2, 5), c=st.integers(2, 4), r=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_spectra_are_those_of_the_dense_kernels(n: int, c: int, r: int, seed: int) -> None:
    r = min(r, c)
    k, reduced, _, dense = kernels(n, c, r, seed)
    matrices = {"F": dense.reshape(n * c, n * c), "P+F": dense.reshape(n * c, n * c) + np.kron(k, np.eye(c))}
    found = {
        "F": ft_effective_spectrum(torch.from_numpy(reduced), c),
        "P+F": total_spectrum(torch.from_numpy(k), torch.from_numpy(reduced), c),
    }
    for name, matrix in matrices.items():
        size = np.linalg.norm(matrix)
        np.testing.assert_allclose(found[name].eigenvalues, np.linalg.eigvalsh(matrix)[::-1], atol=1e-12 * size)
        np.testing.assert_allclose(
            found[name].singular_values, np.linalg.svd(matrix, compute_uv=False), atol=1e-12 * size
        )
        assert found[name].shape == matrix.shape
        assert found[name].rank == np.linalg.matrix_rank(matrix, tol=found[name].rank_tolerance)
        assert found[name].frobenius_norm == pytest.approx(size)
        assert found[name].trace == pytest.approx(np.trace(matrix))


@given(n=st.integers(1, 4), m=st.integers(1, 4), c=st.integers(2, 4), r=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_singular_values_of_rectangular_kernels(n: int, m: int, c: int, r: int, seed: int) -> None:
    r = min(r, c)
    k, reduced, _, dense = kernels(n + m, c, r, seed)
    matrix = dense[:n, :, n:].reshape(n * c, m * c)
    rows, columns = torch.from_numpy(reduced[:n, :, n:].copy()), torch.from_numpy(k[:n, n:].copy())
    of_f = ft_effective_spectrum(rows, c, symmetric=False)
    size = max(np.linalg.norm(matrix), 1e-300)
    np.testing.assert_allclose(of_f.singular_values, np.linalg.svd(matrix, compute_uv=False), atol=1e-12 * size)
    total = matrix + np.kron(k[:n, n:], np.eye(c))
    both = total_spectrum(columns, rows, c, symmetric=False)
    np.testing.assert_allclose(
        both.singular_values, np.linalg.svd(total, compute_uv=False), atol=1e-12 * np.linalg.norm(total)
    )


def test_the_table_is_that_of_the_dense_kernel() -> None:
    k, reduced, basis, dense = kernels(6, 3, 2, 0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    delta = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3)))
    eval_k, eval_reduced, eval_dense = k[:4], reduced[:4], dense[:4]
    shared = {"residual": delta, "eval_feature_kernel": eval_k, "eval_labels": labels[:4]}
    expected = summarise(k, dense, labels, eval_ft_effective=eval_dense, **shared)
    found = summarise(k, reduced, labels, eval_ft_effective=eval_reduced, head_basis=basis, **shared)
    for row, other in zip(found, expected, strict=True):
        assert row.spectrum.rank == other.spectrum.rank
        np.testing.assert_allclose(row.spectrum.eigenvalues, other.spectrum.eigenvalues, atol=1e-11)
        assert row.alignment == pytest.approx(other.alignment)
        assert row.centred_alignment == pytest.approx(other.centred_alignment)
        assert row.classifier.train_accuracy == other.classifier.train_accuracy
        assert row.classifier.eval_pair_accuracy == other.classifier.eval_pair_accuracy
        assert (row.ft_ratio is None) == (other.ft_ratio is None)
        if row.ft_ratio is not None:
            assert row.ft_ratio == pytest.approx(other.ft_ratio)


@pytest.mark.unchecked
def test_what_does_not_fit_is_refused() -> None:
    reduced = torch.eye(6).reshape(3, 2, 3, 2)
    with pytest.raises(InputError, match="with r of at most 1 classes"):
        ft_effective_spectrum(reduced, 1)
    with pytest.raises(InputError, match="shapes do not fit"):
        total_spectrum(torch.eye(2), reduced, 3)
    with pytest.raises(InputError, match="with r of at most 3 classes"):
        ft_effective_spectrum(torch.eye(3), 3)
