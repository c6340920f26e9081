import numpy as np
import pytest
import torch

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import (
    block_trace_norms,
    class_boundaries,
    class_order,
    pretrain_effective_block_trace_norms,
)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_trace_norms_block_by_block(make_case, num_classes):
    kernel = make_case(c=num_classes).f[:4]
    norms = block_trace_norms(torch.from_numpy(kernel))
    assert norms.shape == (4, 7)
    for i in range(4):
        for j in range(7):
            assert norms[i, j].item() == pytest.approx(np.linalg.norm(kernel[i, :, j], "nuc"), abs=1e-12)


def test_the_batch_does_not_matter(make_case):
    kernel = torch.from_numpy(make_case().f)
    whole = block_trace_norms(kernel)
    for size in (1, 3, 7, 20, 49):
        torch.testing.assert_close(block_trace_norms(kernel, blocks_at_a_time=size), whole, rtol=1e-13, atol=0)


def test_pretrain_effective_closed_form(make_case):
    case = make_case()
    dense = case.p_matrix.reshape(7, 3, 7, 3)
    expected = [[np.linalg.svd(dense[i, :, j])[1].sum() for j in range(7)] for i in range(7)]
    assert case.k.min() < 0  # the sign matters
    norms = pretrain_effective_block_trace_norms(torch.from_numpy(case.k), 3)
    np.testing.assert_allclose(norms.numpy(), expected, rtol=1e-12)


def test_class_order_is_stable():
    labels = torch.tensor([2, 0, 1, 0, 2, 0])
    assert class_order(labels).tolist() == [1, 3, 5, 2, 0, 4]
    assert class_boundaries(labels) == [3, 4]


def test_classes_without_samples_have_no_boundary():
    assert class_boundaries(torch.tensor([4, 1, 4])) == [1]
    assert class_boundaries(torch.tensor([1, 1])) == []


@pytest.mark.unchecked
def test_refused():
    with pytest.raises(InputError, match="blocks need"):
        block_trace_norms(torch.eye(3))
    with pytest.raises(InputError, match="blocks_at_a_time"):
        block_trace_norms(torch.ones(2, 2, 2, 2), blocks_at_a_time=0)
    with pytest.raises(InputError, match="infinite"):
        block_trace_norms(torch.full((2, 2, 2, 2), float("inf")))
    with pytest.raises(InputError, match="feature kernel"):
        pretrain_effective_block_trace_norms(torch.ones(2, 2, 2, 2), 2)
    for labels in (torch.tensor([[0, 1]]), torch.tensor([0.5]), torch.tensor([], dtype=torch.int64)):
        with pytest.raises(InputError, match="expected"):
            class_order(labels)
        with pytest.raises(InputError, match="expected"):
            class_boundaries(labels)
