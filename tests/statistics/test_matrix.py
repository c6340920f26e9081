import numpy as np
import pytest
import torch

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import as_matrix, pretrain_effective, transposed


def test_as_matrix_puts_the_class_fastest():
    kernel = torch.arange(2 * 3 * 4 * 3, dtype=torch.float64).reshape(2, 3, 4, 3)
    matrix = as_matrix(kernel)
    assert matrix.shape == (6, 12)
    for i, a, j, b in [(0, 0, 0, 0), (1, 2, 3, 1), (0, 2, 1, 0), (1, 0, 2, 2)]:
        assert matrix[3 * i + a, 3 * j + b] == kernel[i, a, j, b]


def test_as_matrix_leaves_reduced_kernels_alone():
    kernel = torch.randn(3, 5)
    torch.testing.assert_close(as_matrix(kernel), kernel, rtol=0, atol=0)


def test_as_matrix_takes_a_kernel_that_is_no_contiguous_tensor():
    kernel = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    np.testing.assert_array_equal(as_matrix(transposed(kernel)).numpy(), kernel.numpy().reshape(6, 12).T)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (torch.zeros(3), "shape"),
        (torch.zeros(2, 3, 2), "shape"),
        (torch.zeros(2, 3, 2, 4), "shape"),
        (torch.zeros(0, 3, 2, 3), "empty"),
        (torch.zeros(2, 2, dtype=torch.int64), "dtype"),
        (torch.tensor([[1.0, float("nan")]]), "1 entries"),
        (torch.tensor([[1.0, float("inf"), float("-inf")]]), "2 entries"),
    ],
)
def test_as_matrix_refuses(kernel, words):
    with pytest.raises(InputError, match=words):
        as_matrix(kernel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_pretrain_effective_is_the_kronecker_product(dtype, num_classes):
    k = torch.randn(4, 3, dtype=dtype)
    p = pretrain_effective(k, num_classes)
    assert p.dtype == dtype
    assert p.shape == (4, num_classes, 3, num_classes)
    expected = np.kron(k.numpy(), np.eye(num_classes, dtype=k.numpy().dtype))
    np.testing.assert_array_equal(p.reshape(4 * num_classes, -1).numpy(), expected)


@pytest.mark.unchecked
def test_pretrain_effective_refuses_bad_input():
    with pytest.raises(InputError, match="feature kernel"):
        pretrain_effective(torch.zeros(2, 3, 2, 3), 3)
    with pytest.raises(InputError, match="num_classes"):
        pretrain_effective(torch.zeros(2, 2), 0)


def test_transposed_exchanges_rows_and_columns():
    kernel = torch.randn(2, 3, 4, 3)
    other_way = transposed(kernel)
    assert other_way.shape == (4, 3, 2, 3)
    assert other_way[3, 1, 0, 2] == kernel[0, 2, 3, 1]
    assert transposed(kernel[:, 0, :, 0])[3, 1] == kernel[1, 0, 3, 0]


@pytest.mark.unchecked
def test_only_kernels_are_transposed():
    with pytest.raises(InputError, match="shape"):
        transposed(torch.zeros(3))
