import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import frobenius_shares, projection_shares, trace_shares

ALL = [trace_shares, projection_shares, frobenius_shares]


def grouped(case, cuts, rows=slice(None)):
    """Split the gradients by parameter: one kernel for each group of parameters."""
    kernels = {}
    for index, part in enumerate(np.split(case.jacobians, cuts, axis=2)):
        kernels[f"group {index}"] = torch.from_numpy(np.einsum("ncp,mdp->ncmd", part[rows], part))
    return kernels


def test_trace_shares_are_shares_of_the_squared_gradients(make_case):
    case = make_case()
    squares = [float((part**2).sum()) for part in np.split(case.jacobians, [2, 7], axis=2)]
    shares = trace_shares(grouped(case, [2, 7]))
    assert list(shares) == ["group 0", "group 1", "group 2"]
    np.testing.assert_allclose(list(shares.values()), np.array(squares) / sum(squares), rtol=1e-12)


def test_trace_shares_of_reduced_kernels():
    shares = trace_shares({"a": torch.eye(3), "b": 3 * torch.eye(3)})
    assert shares == pytest.approx({"a": 0.25, "b": 0.75})


@pytest.mark.parametrize("rows", [slice(None), slice(0, 3)])
def test_projection_and_frobenius_shares_by_definition(make_case, rows):
    case = make_case()
    kernels = grouped(case, [2, 7], rows)
    f = case.f[rows].reshape(-1)
    for name, kernel in kernels.items():
        flat = kernel.numpy().reshape(-1)
        assert projection_shares(kernels)[name] == pytest.approx(flat @ f / (f @ f))
        assert frobenius_shares(kernels)[name] == pytest.approx(np.sqrt(flat @ flat) / np.sqrt(f @ f))


def test_groups_that_share_nothing_have_frobenius_shares_beyond_one_in_all():
    kernels = {"a": torch.diag(torch.tensor([3.0, 0.0])), "b": torch.diag(torch.tensor([0.0, 4.0]))}
    assert frobenius_shares(kernels) == pytest.approx({"a": 3 / 5, "b": 4 / 5})
    assert projection_shares(kernels) == pytest.approx({"a": 9 / 25, "b": 16 / 25})
    assert trace_shares(kernels) == pytest.approx({"a": 3 / 7, "b": 4 / 7})


def test_a_group_against_the_sum_has_a_negative_projection_share():
    kernels = {"a": torch.tensor([[2.0, 0.0]]), "b": torch.tensor([[-1.0, 0.0]])}
    assert projection_shares(kernels) == pytest.approx({"a": 2, "b": -1})


@pytest.mark.parametrize("function", ALL)
def test_the_groups_are_left_as_they_were(make_case, function):
    kernels = grouped(make_case(), [5])
    before = {name: kernel.clone() for name, kernel in kernels.items()}
    function(kernels)
    for name, kernel in kernels.items():
        torch.testing.assert_close(kernel, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        ({}, "no parameter groups"),
        ({"a": torch.eye(2), "b": torch.eye(3)}, "differ in shape"),
        ({"a": torch.eye(2), "b": torch.tensor([[1.0, float("nan")], [0.0, 1.0]])}, "group 'b'"),
        ({"a": torch.zeros(2, 2)}, "is the head zero"),
    ],
)
def test_refused(function, kernels, words):
    with pytest.raises(InputError, match=words):
        function(kernels)


@pytest.mark.unchecked
def test_trace_shares_need_symmetric_kernels(make_case):
    with pytest.raises(InputError, match="against itself"):
        trace_shares(grouped(make_case(), [5], slice(0, 3)))


def test_trace_shares_need_kernels_that_equal_their_transpose():
    with pytest.raises(InputError, match="group 'a' is not symmetric"):
        trace_shares({"a": torch.tensor([[1.0, 2.0], [0.0, 1.0]])})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-60, 60), cut=st.integers(1, 10))
def test_shares_add_up_to_one_at_any_scale(make_case, seed, exponent, cut):
    kernels = {name: 2.0**exponent * kernel for name, kernel in grouped(make_case(seed, n=4, c=2), [cut]).items()}
    for function in (trace_shares, projection_shares):
        shares = function(kernels)
        assert sum(shares.values()) == pytest.approx(1)
        assert all(0 <= share <= 1 for share in shares.values())
    assert sum(frobenius_shares(kernels).values()) >= 1 - 1e-12
