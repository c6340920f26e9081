import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import ft_ratio, initial_residual, one_step_logit_change, sample_ft_ratios


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def test_the_residual_is_minus_the_gradient_of_the_cross_entropy():
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 1, 1, 2, 0])
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    torch.testing.assert_close(initial_residual(logits, labels), -logits.grad)


def test_the_residual_by_its_formula():
    logits = np.array([[0.0, math.log(3.0)], [2.0, 2.0]])
    residual = initial_residual(torch.from_numpy(logits), torch.tensor([0, 1]))
    np.testing.assert_allclose(residual.numpy(), [[0.75, -0.75], [-0.5, 0.5]], rtol=1e-15)


def test_the_residual_of_a_confident_classifier_keeps_its_digits():
    residual = initial_residual(torch.tensor([[90.0, 0.0, 0.0]]), torch.tensor([0]))
    assert residual.dtype == torch.float64
    np.testing.assert_allclose(residual.numpy(), np.exp(-90.0) * np.array([[2.0, -1.0, -1.0]]), rtol=1e-12)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(2, 3, 1), torch.tensor([0, 1]), "logits"),
        (torch.full((2, 3), float("nan")), torch.tensor([0, 1]), "logits"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "from 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 2]), "from -1 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), "one a sample"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "integers"),
        (torch.zeros(2, 3), torch.tensor([True, False]), "integers"),
    ],
)
def test_the_residual_refuses(logits, labels, words):
    with pytest.raises(InputError, match=words):
        initial_residual(logits, labels)


def by_hand(k, f, residual):
    """Compute both parts of the one-step change and the ratio of each sample, one product at a time."""
    rows, classes = f.shape[0], f.shape[1]
    pretrain, ft = np.zeros((rows, classes)), np.zeros((rows, classes))
    for x in range(rows):
        for i in range(f.shape[2]):
            pretrain[x] += k[x, i] * residual[i]
            ft[x] += f[x, :, i] @ residual[i]
    ratios = [np.linalg.norm(ft[x]) / np.linalg.norm(pretrain[x] + ft[x]) for x in range(rows)]
    return pretrain, ft, ratios


@pytest.mark.parametrize(("n", "m"), [(7, 7), (3, 7), (70, 5)])
def test_one_step_and_ratio_by_hand(make_case, n, m):
    case = make_case(seed=n, n=max(n, m))
    k, f = case.k[:n, :m], case.f[:n, :, :m]
    residual = np.eye(3)[case.labels[:m]] - softmax(np.random.default_rng(1).normal(size=(m, 3)), axis=1)
    pretrain, ft, ratios = by_hand(k, f, residual)
    change = one_step_logit_change(*tensors(k, f, residual), learning_rate=0.5)
    np.testing.assert_allclose(change.pretrain.numpy(), 0.5 * pretrain, atol=1e-12)
    np.testing.assert_allclose(change.ft.numpy(), 0.5 * ft, atol=1e-12)
    np.testing.assert_allclose(change.total.numpy(), 0.5 * (pretrain + ft), atol=1e-12)
    np.testing.assert_allclose(sample_ft_ratios(*tensors(k, f, residual)).numpy(), ratios, rtol=1e-10)
    assert ft_ratio(*tensors(k, f, residual)) == pytest.approx(np.mean(ratios), rel=1e-10)


def test_the_step_predicts_what_gradient_descent_does_to_a_linear_model():
    # A two-layer linear classifier f = V B x + b in float64: after a step of size 1e-6 the logits move as predicted.
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    body, head, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((6, 4), (3, 6), (3,))
    )
    logits = x @ body.T @ head.T + bias
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    step = 1e-6
    after = x @ (body - step * body.grad).T @ (head - step * head.grad).T + bias - step * bias.grad
    features = (x @ body.T).detach()
    k = features @ features.T + 1
    f = torch.einsum("nm,cd->ncmd", x @ x.T, (head @ head.T).detach())
    change = one_step_logit_change(k, f, initial_residual(logits, labels), step)
    torch.testing.assert_close(change.total, (after - logits).detach(), rtol=1e-3, atol=1e-9)


def test_parts_that_oppose_each_other_give_a_ratio_above_one():
    k, residual = torch.tensor([[-1.0]]), torch.tensor([[1.0, -1.0]])
    f = 3 * torch.eye(2).reshape(1, 2, 1, 2)
    assert ft_ratio(k, f, residual) == pytest.approx(1.5)


def test_float32_kernels_are_multiplied_in_float64(make_case):
    case = make_case()
    residual = np.random.default_rng(3).normal(size=(7, 3))
    k, f = case.k.astype(np.float32), case.f.astype(np.float32)
    expected = np.mean(by_hand(k.astype(float), f.astype(float), residual)[2])
    assert ft_ratio(*tensors(k, f, residual)) == pytest.approx(expected, rel=1e-12)


def test_tiny_residuals_do_not_underflow(make_case):
    case = make_case()
    residual = np.random.default_rng(3).normal(size=(7, 3))
    plain = ft_ratio(*tensors(case.k, case.f, residual))
    assert ft_ratio(*tensors(case.k, case.f, residual * 1e-250)) == pytest.approx(plain, rel=1e-10)


def test_a_sample_that_does_not_move_is_left_out():
    k = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    f = torch.zeros(2, 2, 2, 2)
    f[0, :, 0, :] = torch.eye(2)
    residual = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    ratios = sample_ft_ratios(k, f, residual)
    assert ratios[0] == 0.5
    assert ratios[1].isnan()
    assert ft_ratio(k, f, residual) == 0.5


def test_parts_that_cancel_make_the_ratio_infinite():
    f = torch.eye(2).reshape(1, 2, 1, 2)
    assert ft_ratio(torch.tensor([[-1.0]]), f, torch.tensor([[1.0, -1.0]])) == math.inf


@pytest.mark.parametrize("zero", ["residual", "kernels"])
def test_nothing_that_moves_is_an_error(make_case, zero):
    k, f, residual = tensors(make_case().k, make_case().f, np.ones((7, 3)))
    with pytest.raises(InputError, match="undefined"):
        ft_ratio(k, f, 0 * residual) if zero == "residual" else ft_ratio(0 * k, 0 * f, residual)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (3, 2, 4, 2), (3, 2)),
        ((3, 4), (3, 2, 4, 2), (4, 3)),
        ((4, 4), (3, 2, 4, 2), (4, 2)),
        ((3, 4), (3, 4), (4, 2)),
        ((3, 4), (3, 2, 4, 2), (8,)),
        ((3,), (3, 2, 4, 2), (4, 2)),
    ],
)
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(InputError, match="shape"):
        one_step_logit_change(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_infinite_input_is_refused(position):
    arguments = [torch.ones(2, 2), torch.ones(2, 2, 2, 2), torch.ones(2, 2)]
    arguments[position].view(-1)[0] = float("inf")
    with pytest.raises(InputError, match="infinite"):
        ft_ratio(*arguments)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), kernel_exponent=st.integers(-20, 20), residual_exponent=st.integers(-20, 20))
def test_invariants_of_the_ratio(make_case, seed, kernel_exponent, residual_exponent):
    case = make_case(seed, n=5, c=2)
    k, f, residual = tensors(case.k, case.f, np.random.default_rng(seed).normal(size=(5, 2)))
    ratio = ft_ratio(k, f, residual)
    scale = 2.0**kernel_exponent
    assert ft_ratio(scale * k, scale * f, 2.0**residual_exponent * residual) == pytest.approx(ratio, rel=1e-9)
    assert ft_ratio(k, 0 * f, residual) == 0
    assert ft_ratio(0 * k, f, residual) == 1
    order = torch.from_numpy(np.random.default_rng(seed).permutation(5))
    permuted = ft_ratio(k[order][:, order], f[order][:, :, order], residual[order])
    assert permuted == pytest.approx(ratio, rel=1e-9)
