"""Training as the kernel predicts it, against models that are linear in what is trained, closed forms and real runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.prediction_cases import case, copies, relative
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.prediction.gradient_flow import (
    Trajectory,
    compare_trajectories,
    kernel_gradient_descent,
    kernel_gradient_flow,
    real_gradient_descent,
    recorded_steps,
)
from ntk_lpft.prediction.one_step import compute_kernels
from ntk_lpft.prediction.operator import largest_eigenvalue


def kernel_of(rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], logits: tuple[Tensor, Tensor]):
    """P and F from gradients of the head (N, h) and of the body (N, C, p), of the row and of the column samples."""
    symmetric = rows[0] is columns[0]
    body = torch.einsum("ncp,mdp->ncmd", rows[1], columns[1])
    return NTKDecomposition(rows[0] @ columns[0].T, {"body": body}, *logits, symmetric=symmetric)


def random_kernel(seed: int, n: int = 6, c: int = 3) -> tuple[dict[str, NTKDecomposition], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    body = torch.randn(n, c, 5, generator=generator, dtype=torch.float64)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64)
    ntk = kernel_of((head, body), (head, body), (logits, logits))
    return {"train": ntk}, torch.arange(n) % c


class Linear(nn.Module):
    """f = (A + V B) x + b with V fixed: linear in A and b, whose kernel is P, and in B, whose kernel is F."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))  # noqa: E731
        self.head, self.bias, self.body = draw(3, 5), draw(3), draw(4, 5)
        self.fixed = draw(3, 4).detach()

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.head + self.fixed @ self.body).T + self.bias

    def kernels(self, x: Tensor, z: Tensor) -> dict[str, NTKDecomposition]:
        def gradients(samples: Tensor) -> tuple[Tensor, Tensor]:
            ones = torch.ones(len(samples), 1, dtype=torch.float64)
            body = torch.einsum("ck,nd->nckd", self.fixed, samples).flatten(2)
            return torch.cat([samples, ones], dim=1), body

        train, logits, other = gradients(x), self(x).detach(), self(z).detach()
        return {
            "train": kernel_of(train, train, (logits, logits)),
            "eval": kernel_of(gradients(z), train, (other, logits)),
        }


@pytest.mark.parametrize("component", ["P", "F", "P+F"])
def test_a_linear_model_trains_exactly_as_predicted(component: str) -> None:
    model, generator = Linear(), torch.Generator().manual_seed(1)
    x, z = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (7, 4))
    labels, steps, rate = torch.arange(7) % 3, 300, 0.02
    predicted = kernel_gradient_descent(
        model.kernels(x, z), labels, learning_rate=rate, steps=steps, component=component, record=range(steps + 1)
    )
    chosen = {"P": [model.head, model.bias], "F": [model.body], "P+F": list(model.parameters())}[component]
    optimizer = torch.optim.SGD(chosen, lr=rate)
    real: dict[str, list[Tensor]] = {"train": [], "eval": []}
    for _ in range(steps + 1):
        logits = model(x)
        real["train"].append(logits.detach())
        real["eval"].append(model(z).detach())
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
        optimizer.step()
    for split, trajectory in real.items():
        torch.testing.assert_close(predicted.logits[split], torch.stack(trajectory), rtol=0, atol=1e-9)
    # Trained in earnest, far from where the loss is linear.
    assert (predicted.logits["train"][-1] - predicted.logits["train"][0]).abs().max() > 1


@pytest.mark.parametrize("name", ["bert", "gpt2", "linear head"])
def test_a_head_alone_trains_exactly_as_predicted(name: str) -> None:
    of = case(name)
    for parameter in of.body:
        parameter.requires_grad_(False)
    kernels = compute_kernels(of.model, of.train, of.evaluation)
    rate, steps = 2 / largest_eigenvalue(kernels["train"]), 40
    real = real_gradient_descent(of.model, of.train, of.labels, of.evaluation, learning_rate=rate, steps=steps)
    assert (real.logits["train"][-1] - real.logits["train"][0]).abs().max() > 0.5
    for component in ("P", "P+F"):
        predicted = kernel_gradient_descent(kernels, of.labels, learning_rate=rate, steps=steps, component=component)
        assert predicted.steps == real.steps
        for split in ("train", "eval"):
            torch.testing.assert_close(predicted.logits[split], real.logits[split], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "part", "component"), [("bert", "body", "F"), ("bert-lora", "all", "P+F")])
def test_real_training_approaches_its_prediction(name: str, part: str, component: str) -> None:
    of = case(name)
    kernels = compute_kernels(of.model, of.train, of.evaluation)
    scale, errors = 1 / largest_eigenvalue(kernels["train"]), []
    for rate in (1e-4 * scale, 5e-5 * scale):
        real = real_gradient_descent(
            of.model, of.train, of.labels, of.evaluation, learning_rate=rate, steps=6, part=part
        )
        predicted = kernel_gradient_descent(kernels, of.labels, learning_rate=rate, steps=6, component=component)
        table = compare_trajectories(predicted, real)
        errors.append(table[(table["step"] == 6) & (table["measure"] == "change_error")].set_index("split")["value"])
    assert errors[0].max() < 2e-2
    np.testing.assert_allclose(errors[0] / errors[1], 2, atol=0.1)


def test_one_sample_of_two_classes_follows_its_closed_form() -> None:
    # With P = k I the margin d = f_y − f_other obeys d' = 2k / (1 + e^d), so that d + e^d grows by 2kτ.
    k, margin, rate, steps = 1.7, -0.4, 0.05, 60
    logits = torch.tensor([[0.3, 0.3 + margin]], dtype=torch.float64)
    ntk = NTKDecomposition(torch.tensor([[k]], dtype=torch.float64), {}, logits, logits, symmetric=True)
    flow = kernel_gradient_flow({"train": ntk}, torch.tensor([1]), learning_rate=rate, steps=steps, record=[7, 20])
    assert flow.steps == (0, 7, 20, 60)
    for step, at_step in zip(flow.steps, flow.logits["train"], strict=True):
        constant = margin + math.exp(margin) + 2 * k * rate * step
        expected = brentq(lambda d, c=constant: d + math.exp(d) - c, -5, 5, xtol=1e-14)
        assert float(at_step[0, 1] - at_step[0, 0]) == pytest.approx(expected, abs=1e-8)
        assert float(at_step.sum()) == pytest.approx(float(logits.sum()), abs=1e-8)


def test_small_steps_of_descent_approach_the_flow() -> None:
    kernels, labels = random_kernel(0)
    time, errors = 8 / largest_eigenvalue(kernels["train"]), []
    flow = kernel_gradient_flow(kernels, labels, learning_rate=time, steps=1).logits["train"][-1]
    for steps in (200, 400, 800):
        descent = kernel_gradient_descent(kernels, labels, learning_rate=time / steps, steps=steps)
        errors.append(relative(descent.logits["train"][-1], flow))
    assert errors[0] < 1e-2
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, atol=0.1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), component=st.sampled_from(["P", "F", "P+F"]))
def test_the_loss_falls_at_every_step_below_the_limit(seed: int, component: str) -> None:
    kernels, labels = random_kernel(seed)
    rate = 3.99 / largest_eigenvalue(kernels["train"], component)
    descent = kernel_gradient_descent(kernels, labels, learning_rate=rate, steps=20, component=component)
    table = descent.measures({"train": labels})
    assert (np.diff(table[table["measure"] == "loss"]["value"]) < 0).all()


def test_a_learning_rate_above_the_limit_is_warned_of() -> None:
    kernels, labels = random_kernel(0)
    rate = 4.01 / largest_eigenvalue(kernels["train"])
    with pytest.warns(UserWarning, match=r"is 4\.01 / λ_max of P\+F"):
        kernel_gradient_descent(kernels, labels, learning_rate=rate, steps=1)


@pytest.mark.parametrize("component", ["P", "F", "P+F"])
@pytest.mark.parametrize(("n", "c"), [(1, 2), (6, 3)])
def test_the_largest_eigenvalue_is_that_of_the_dense_matrix(component: str, n: int, c: int) -> None:
    ntk = random_kernel(2, n, c)[0]["train"]
    dense = {"P": ntk.pretrain_effective, "F": ntk.ft_effective, "P+F": ntk.total}[component]
    expected = np.linalg.eigvalsh(dense.reshape(n * c, n * c).numpy())[-1]
    assert largest_eigenvalue(ntk, component) == pytest.approx(expected, rel=1e-7)


def test_the_largest_eigenvalue_of_nothing_is_zero() -> None:
    ntk = NTKDecomposition(torch.zeros(2, 2), {}, torch.zeros(2, 3), torch.zeros(2, 3), symmetric=True)
    assert largest_eigenvalue(ntk) == 0


def test_losses_and_accuracies_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[math.log(3), 0.0], [0.0, 0.0]]], dtype=torch.float64)
    table = Trajectory(0.1, (0, 5), {"train": logits}).measures({"train": torch.tensor([0, 1])})
    values = table.set_index(["step", "measure"])["value"]
    assert values[(0, "loss")] == pytest.approx(math.log(2))
    assert values[(5, "loss")] == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert values[(0, "accuracy")] == 0.5
    with pytest.raises(InputError, match="no labels of the train samples"):
        Trajectory(0.1, (0, 5), {"train": logits}).measures({})
    with pytest.raises(InputError, match="labels of train run from 0 to 2"):
        Trajectory(0.1, (0, 5), {"train": logits}).measures({"train": torch.tensor([0, 2])})


def test_comparisons_by_hand() -> None:
    start = torch.zeros(2, 2, dtype=torch.float64)
    truth, guess = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double(), torch.tensor([[3.0, 0.0], [1.0, 0.0]]).double()
    real = Trajectory(0.1, (0, 1), {"eval": torch.stack([start, truth])})
    predicted = Trajectory(0.1, (0, 1), {"eval": torch.stack([start, guess])})
    table = compare_trajectories(predicted, real)
    assert table["step"].tolist() == [1, 1]
    values = table.set_index("measure")["value"]
    assert values["change_error"] == pytest.approx(math.sqrt(17) / 5)
    assert values["agreement"] == 0.5
    still = Trajectory(0.1, (0, 1), {"eval": torch.stack([start, start])})
    assert compare_trajectories(predicted, still).set_index("measure")["value"].isna()["change_error"]
    with pytest.raises(InputError, match="differ in their recorded steps"):
        compare_trajectories(Trajectory(0.1, (0, 2), predicted.logits), real)


def test_recorded_steps() -> None:
    assert recorded_steps(3) == (0, 1, 2, 3)
    many = recorded_steps(1000)
    assert many[:4] == (0, 1, 2, 3)
    assert many[-1] == 1000
    assert len(many) < 30
    assert list(many) == sorted(set(many))
    kernels, labels = random_kernel(0)
    descent = kernel_gradient_descent(kernels, labels, learning_rate=1e-3, steps=9, record=[4, 4])
    assert descent.steps == (0, 4, 9)
    assert descent.logits["train"].shape == (3, 6, 3)
    assert torch.equal(descent.logits["train"][0], kernels["train"].row_logits)


def test_training_that_diverges_says_where_and_leaves_the_weights() -> None:
    of = case("bert", dtype=torch.float32)
    before = copies(of.model)
    with pytest.raises(InputError, match=r"learning rate 1e\+38 reached NaN or infinite values after [12] steps"):
        real_gradient_descent(
            of.model, of.train, of.labels, learning_rate=1e38, steps=3, precision="float32", record=[0]
        )
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())


def test_a_prediction_that_overflows_says_where() -> None:
    kernels, labels = random_kernel(0)
    words = "infinite at step 1; take a smaller learning rate"
    with pytest.warns(UserWarning, match="λ_max"), pytest.raises(InputError, match=words):
        kernel_gradient_descent(kernels, labels, learning_rate=1.7e308, steps=3)


@pytest.mark.parametrize("train", [kernel_gradient_descent, kernel_gradient_flow])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 0.0}, "learning rate 0.0 is not a positive number"),
        ({"learning_rate": float("nan")}, "is not a positive number"),
        ({"steps": 0}, "0 steps are not enough"),
        ({"steps": -3}, "-3 steps are not enough"),
        ({"component": "Q"}, "unknown component 'Q'"),
        ({"record": [5]}, "step 5 cannot be recorded"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0, 0])}, "labels run from 0 to 3"),
        ({"labels": torch.tensor([0, 1])}, r"labels have shape \(2,\)"),
        ({"kernels": {}}, "no kernel of the train samples"),
    ],
)
def test_bad_input_to_a_prediction(train, change: dict, words: str) -> None:
    kernels, labels = random_kernel(0)
    given = {"kernels": kernels, "labels": labels, "learning_rate": 0.01, "steps": 3, **change}
    with pytest.raises(InputError, match=words) as caught:
        train(given.pop("kernels"), given.pop("labels"), **given)
    assert "\n" not in str(caught.value)


def test_kernels_that_cannot_move_logits() -> None:
    kernels, labels = random_kernel(0)
    one = kernels["train"]
    reduced = NTKDecomposition(one.feature_kernel, {}, one.row_logits, one.row_logits, outputs="class_trace")
    with pytest.raises(InputError, match="kernel of the class_trace outputs"):
        kernel_gradient_descent({"train": reduced}, labels, learning_rate=0.1, steps=1)
    broken = NTKDecomposition(one.feature_kernel / 0, {}, one.row_logits, one.row_logits, symmetric=True)
    with pytest.raises(InputError, match="infinite or NaN"):
        kernel_gradient_descent({"train": broken}, labels, learning_rate=0.1, steps=1)
    other = NTKDecomposition(one.feature_kernel, {}, one.row_logits, one.row_logits)
    with pytest.raises(InputError, match="training samples against themselves"):
        kernel_gradient_descent({"train": other}, labels, learning_rate=0.1, steps=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": -1.0}, "is not a positive number"),
        ({"steps": 0}, "0 steps are not enough"),
        ({"part": "tail"}, "unknown part 'tail'"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0])}, "labels run from 0 to 3"),
    ],
)
def test_bad_input_to_real_training(change: dict, words: str) -> None:
    of = case("bert")
    given = {"labels": of.labels, "learning_rate": 0.01, "steps": 3, **change}
    with pytest.raises(InputError, match=words):
        real_gradient_descent(of.model, of.train, given.pop("labels"), **given)


def test_tables_are_tidy() -> None:
    kernels, labels = random_kernel(0)
    table = kernel_gradient_descent(kernels, labels, learning_rate=1e-3, steps=2).measures({"train": labels})
    assert isinstance(table, pd.DataFrame)
    assert table.columns.tolist() == ["step", "split", "measure", "value"]
    assert len(table) == 3 * 2
