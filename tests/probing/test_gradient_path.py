"""Gradient paths of a linear head, against Adam by hand, against scikit-learn, and against the theory of its norm."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.probing.path import (
    LabelledFeatures,
    PathSettings,
    gradient_path,
    head_norm_derivative,
)
from ntk_lpft.runs.tracking_log import read_tracking
from ntk_lpft.storage import write_table

COLUMNS = ("step", "epoch", "split", "measure", "value")
WIDTH = 5


def sample(num_labels: int, n: int = 40, *, seed: int = 0, spread: float = 1.5) -> LabelledFeatures:
    """Classes around centres of their own: overlapping unless the spread is small."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(num_labels, WIDTH, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    labels = torch.arange(n) % num_labels
    noise = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    return LabelledFeatures(centres[labels] + spread * noise, labels)


def start(num_labels: int, *, bias: bool = True) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(7)
    weight = 0.3 * torch.randn(num_labels, WIDTH, generator=generator, dtype=torch.float64)
    return weight, 0.1 * torch.randn(num_labels, generator=generator, dtype=torch.float64) if bias else None


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row a step, columns ``split/measure``."""
    named = table.assign(name=table["split"] + "/" + table["measure"])
    return named.pivot(index="step", columns="name", values="value")


def by_hand(
    weight: Tensor,
    bias: Tensor | None,
    splits: dict[str, LabelledFeatures],
    steps: int,
    learning_rate: float,
    l2: float,
) -> list[dict[str, float]]:
    """Full-batch Adam (Kingma and Ba, algorithm 1) in NumPy, and what is recorded of it, by formulae."""
    v, b = weight.numpy().copy(), np.zeros(len(weight)) if bias is None else bias.numpy().copy()
    moments = [[np.zeros_like(v), np.zeros_like(v)], [np.zeros_like(b), np.zeros_like(b)]]
    rows = []
    for step in range(steps + 1):
        row: dict[str, float] = {}
        for name, (features, labels) in splits.items():
            p = softmax(features.numpy() @ v.T + b)
            row[f"{name}/loss"] = float(-np.log(p[np.arange(len(p)), labels]).mean())
            row[f"{name}/accuracy"] = float((p.argmax(1) == labels.numpy()).mean())
        features, labels = splits["train"]
        error = softmax(features.numpy() @ v.T + b) - np.eye(len(v))[labels]
        gradients = [error.T @ features.numpy() / len(labels) + l2 * v, error.mean(axis=0)]
        if bias is None:
            gradients[1][:] = 0
        row["train/gradient_norm.head"] = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        row["all/head_norm"] = math.sqrt(float((v**2).sum()))
        row |= {f"all/head_norm.class_{k}": math.sqrt(float((v[k] ** 2).sum())) for k in range(len(v))}
        row["all/head_bias_norm"] = math.sqrt(float((b**2).sum()))
        rows.append(row)
        for value, gradient, (first, second) in zip((v, b), gradients, moments, strict=True):
            first[:] = 0.9 * first + 0.1 * gradient
            second[:] = 0.999 * second + 0.001 * gradient**2
            corrected = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            value -= learning_rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    return rows


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_labels", "l2"), [(2, 0.0), (3, 0.05)])
def test_every_iteration_of_adam_is_as_by_hand(num_labels: int, l2: float, bias: bool) -> None:
    head = start(num_labels, bias=bias)
    splits = {name: sample(num_labels, 40 - 9 * i, seed=i) for i, name in enumerate(("train", "validation", "ood.x"))}
    others = {name: split for name, split in splits.items() if name != "train"}
    path = gradient_path(*head, splits["train"], PathSettings("adam", 25, 0.05, l2), others=others)
    assert tuple(path.table.columns) == COLUMNS
    assert (path.table["epoch"] == path.table["step"]).all()
    table = wide(path.table)
    expected = pd.DataFrame(by_hand(*head, splits, 25, 0.05, l2))
    assert sorted(table.columns) == sorted(expected.columns)
    assert table.index.tolist() == list(range(26))
    assert len(path.table) == expected.size
    np.testing.assert_allclose(table[expected.columns].to_numpy(), expected.to_numpy(), rtol=1e-8, atol=1e-10)
    assert not path.converged
    assert table["all/head_norm"].iloc[-1] == float(path.weight.norm())
    assert (path.bias is not None) == bias


def test_the_start_is_left_alone() -> None:
    weight, bias = start(3)
    assert bias is not None
    before = weight.clone(), bias.clone()
    parameter = weight.requires_grad_()
    path = gradient_path(parameter, bias, sample(3), PathSettings(iterations=3))
    assert torch.equal(weight, before[0])
    assert torch.equal(bias, before[1])
    assert parameter.grad is None
    assert not path.weight.requires_grad
    assert not torch.equal(path.weight, before[0])


def test_the_default_is_small_steps_of_adam_in_float64() -> None:
    weight, bias = start(3)
    data = LabelledFeatures(sample(3).features.float(), sample(3).labels)
    assert PathSettings().iterations == 1000
    # Adam's first step moves every entry by the learning rate.
    first = gradient_path(weight.float(), None if bias is None else bias.float(), data, PathSettings(iterations=1))
    assert first.weight.dtype == torch.float64
    torch.testing.assert_close((first.weight - weight.float()).abs(), torch.full_like(weight, 1e-3), rtol=1e-4, atol=0)


def test_float32_follows_float64() -> None:
    ends = [gradient_path(*start(3), sample(3), PathSettings("adam", 50, precision=p)) for p in ("float32", "float64")]
    assert ends[0].weight.dtype == torch.float32
    torch.testing.assert_close(ends[0].weight.double(), ends[1].weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strength", [0.03, 3.0])
@pytest.mark.parametrize("num_labels", [2, 3, 4])
def test_the_optimum_of_lbfgs_is_that_of_scikit_learn(num_labels: int, strength: float) -> None:
    data = sample(num_labels)
    # scikit-learn fits one row to two classes: w = v_1 − v_0, whose norm is split between both here.
    l2 = (2 if num_labels == 2 else 1) / (strength * len(data.labels))
    path = gradient_path(*start(num_labels), data, PathSettings("lbfgs", l2=l2, tolerance=2e-8))
    reference = LogisticRegression(C=strength, solver="newton-cg", tol=1e-10, max_iter=1000).fit(*data)
    assert path.converged
    assert path.table["step"].max() < 200
    probabilities = torch.softmax(data.features @ path.weight.T + path.bias, dim=1)
    np.testing.assert_allclose(probabilities, reference.predict_proba(data.features), rtol=0, atol=1e-6)
    weight = path.weight[1:] - path.weight[:1] if num_labels == 2 else path.weight
    np.testing.assert_allclose(weight, reference.coef_, rtol=1e-5, atol=1e-5)


def test_every_iteration_of_lbfgs_lowers_the_objective() -> None:
    l2 = 0.01
    path = gradient_path(*start(3), sample(3), PathSettings("lbfgs", l2=l2))
    table = wide(path.table)
    objective = table["train/loss"] + l2 / 2 * table["all/head_norm"] ** 2
    assert len(objective) > 5
    assert (np.diff(objective) <= 1e-14).all()
    assert table.index.tolist() == list(range(len(table)))


def test_adam_comes_to_the_same_optimum() -> None:
    data, l2 = sample(3), 0.1
    lbfgs = gradient_path(*start(3), data, PathSettings("lbfgs", l2=l2))
    adam = gradient_path(*start(3), data, PathSettings("adam", 600, 0.03, l2, tolerance=1e-6))
    assert not torch.allclose(start(3)[0], lbfgs.weight, atol=0.1)
    torch.testing.assert_close(adam.weight, lbfgs.weight, rtol=0, atol=1e-3)


def test_a_path_ends_where_the_gradient_does() -> None:
    path = gradient_path(*start(3), sample(3), PathSettings("adam", 900, 0.03, 0.1, tolerance=1e-4))
    norms = wide(path.table)["train/gradient_norm.head"]
    assert path.converged
    assert norms.index[-1] < 900
    assert norms.iloc[-1] <= 1e-4 * math.sqrt(3 * WIDTH + 3)
    assert (norms.iloc[:-1] > 1e-4).all()


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_norm_grows_for_ever_on_separable_features(solver: str) -> None:
    labels = torch.arange(30) % 3
    noise = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centres = torch.eye(3, WIDTH, dtype=torch.float64)
    data = LabelledFeatures(3 * (centres - centres.mean(dim=0))[labels] + 0.3 * noise, labels)
    weight, bias = start(3)
    path = gradient_path(weight, bias, data, PathSettings(solver, 300, 0.03 if solver == "adam" else None))
    table = wide(path.table)
    assert table["train/accuracy"].iloc[-1] == 1
    late = table.iloc[len(table) // 2 :]
    assert len(late) >= 5
    assert (np.diff(late["all/head_norm"]) > 0).all()
    assert late["all/head_norm"].iloc[-1] > 2 * float(weight.norm())
    assert (np.diff(late["train/loss"]) < 0).all()
    # As the theory has it: by now every sample lies on its side, and the loss asks each row to be longer.
    sides = torch.sign(data.features @ path.weight.T)
    assert torch.equal(sides, 2 * torch.nn.functional.one_hot(data.labels, 3).double() - 1)
    assert (head_norm_derivative(path.weight, path.bias, *data) < 0).all()
    for k in range(3):
        assert (np.diff(late[f"all/head_norm.class_{k}"]) > 0).all()


def test_the_norm_stays_on_features_that_overlap() -> None:
    data = sample(3, n=90, spread=4.0)
    norms = wide(gradient_path(*start(3), data, PathSettings("adam", 300, 0.05)).table)["all/head_norm"]
    assert norms.iloc[-1] == pytest.approx(norms.iloc[-50], rel=1e-3)
    assert norms.iloc[-1] != pytest.approx(norms.iloc[0], rel=0.1)
    path = gradient_path(*start(3), data, PathSettings("lbfgs"))
    # At a finite optimum the derivative vanishes.
    assert head_norm_derivative(path.weight, path.bias, *data).abs().max() < 1e-6


def loss_at_norms(norms: Tensor, weight: Tensor, bias: Tensor | None, data: LabelledFeatures) -> Tensor:
    rows = norms[:, None] * weight / weight.norm(dim=1, keepdim=True)
    logits = data.features @ rows.T + (0 if bias is None else bias)
    return -torch.log_softmax(logits, dim=1)[torch.arange(len(logits)), data.labels].mean()


@settings(max_examples=25, deadline=None)
@given(num_labels=st.integers(2, 5), n=st.integers(1, 9), seed=st.integers(0, 999), bias=st.booleans())
def test_the_derivative_is_that_of_autograd_and_of_differences(num_labels: int, n: int, seed: int, bias: bool) -> None:
    weight, b = start(num_labels, bias=bias)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_labels, (n,), generator=generator)
    data = LabelledFeatures(torch.randn(n, WIDTH, generator=generator, dtype=torch.float64), labels)
    norms = weight.norm(dim=1).requires_grad_()
    (expected,) = torch.autograd.grad(loss_at_norms(norms, weight, b, data), norms)
    derivative = head_norm_derivative(weight, b, *data)
    torch.testing.assert_close(derivative, expected, rtol=1e-9, atol=1e-12)
    moved = torch.eye(num_labels, dtype=torch.float64) * 1e-5
    norms = norms.detach()
    differences = [
        (loss_at_norms(norms + d, weight, b, data) - loss_at_norms(norms - d, weight, b, data)) / 2e-5 for d in moved
    ]
    torch.testing.assert_close(derivative, torch.stack(differences), rtol=1e-5, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(num_labels=st.integers(2, 5), seed=st.integers(0, 999), scale=st.floats(0.01, 5))
def test_the_derivative_is_negative_where_all_lie_on_their_side(num_labels: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(WIDTH, num_labels, generator=generator, dtype=torch.float64))[0].T
    labels = torch.arange(12) % num_labels
    sides = 2.0 * torch.nn.functional.one_hot(labels, num_labels).double() - 1
    margins = 0.1 + torch.rand(12, num_labels, generator=generator, dtype=torch.float64)
    lengths = scale * (0.1 + torch.rand(num_labels, 1, generator=generator, dtype=torch.float64))
    bias = torch.randn(num_labels, generator=generator, dtype=torch.float64)
    features = (sides * margins) @ directions
    assert (head_norm_derivative(lengths * directions, bias, features, labels) < 0).all()
    # And positive where all lie on the other.
    assert (head_norm_derivative(lengths * directions, bias, -features, labels) > 0).all()


def test_a_row_of_zeros_has_no_derivative() -> None:
    weight, bias = start(3)
    weight[1] = 0
    derivative = head_norm_derivative(weight, bias, *sample(3))
    assert derivative.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_path_that_breaks_off_leaves_what_it_had(solver: str, tmp_path: Path) -> None:
    file = tmp_path / "run" / "probe.csv"
    data = sample(3)
    if solver == "adam":  # the penalty's gradient overflows once a weight exceeds 3e38 / l2
        broken = PathSettings(solver, 200, 1e18, 1e30, 0.0, "float32")
    else:  # the first step goes by the gradient, and the logits overflow
        broken = PathSettings(solver, 200, None, 0.0, 0.0, "float32")
        data = LabelledFeatures(data.features * 1e30, data.labels)
    with pytest.raises(InputError, match=rf"NaN or infinite at iteration [1-9]\d* \({solver}, float32\)") as refusal:
        gradient_path(*start(3), data, broken, file=file)
    at = int(str(refusal.value).split("at iteration ")[1].split()[0])
    table = pd.read_csv(file)
    assert table["step"].unique().tolist() == list(range(at))
    assert np.isfinite(table["value"]).all()
    assert list(file.parent.iterdir()) == [file]


def test_a_path_that_cannot_begin_leaves_an_empty_table(tmp_path: Path) -> None:
    weight, bias = start(3)
    with pytest.raises(InputError, match="NaN or infinite at iteration 0"):
        gradient_path(
            weight * 1e30, bias, sample(3), PathSettings(precision="float32", l2=1e30), file=tmp_path / "probe.csv"
        )
    assert pd.read_csv(tmp_path / "probe.csv").columns.tolist() == list(COLUMNS)


def test_the_table_is_the_same_when_read_again(tmp_path: Path) -> None:
    file = tmp_path / "probe.csv"
    path = gradient_path(*start(3), sample(3), PathSettings(iterations=7), others={"ood.a": sample(3, 9)}, file=file)
    pd.testing.assert_frame_equal(pd.read_csv(file), path.table, check_exact=True)
    pd.testing.assert_frame_equal(read_tracking(file), path.table, check_exact=True)
    write_table(file, path.table.head(3))
    assert len(pd.read_csv(file)) == 3
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (PathSettings("sgd"), "unknown solver 'sgd' of the linear probe; choose one of adam, lbfgs"),
        (PathSettings(precision="half"), "unknown precision 'half' of the linear probe"),
        (PathSettings(iterations=0), "0 iterations are not positive"),
        (PathSettings(learning_rate=0.0), r"learning rate 0\.0 is not a positive number"),
        (PathSettings(learning_rate=math.nan), "learning rate nan is not a positive number"),
        (PathSettings(l2=-1.0), r"l2 -1\.0 is not a number from 0 on"),
        (PathSettings(tolerance=math.inf), "tolerance inf is not a number from 0 on"),
    ],
)
def test_settings_that_make_no_sense(chosen: PathSettings, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        gradient_path(*start(3), sample(3), chosen, file=tmp_path / "probe.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unchecked
def test_heads_and_data_that_do_not_fit() -> None:
    weight, bias = start(3)
    features, labels = sample(3)
    for head, data, message in (
        ((weight[:1], None), (features, labels * 0), r"V of shape \(1, 5\) must be finite and \(C, h\)"),
        ((weight / 0, bias), (features, labels), "V of shape .* must be finite"),
        ((weight, bias[:2]), (features, labels), r"b of shape \(2,\) must be finite and \(3,\)"),
        ((weight, bias), (features[:, :4], labels), r"features of train have shape \(40, 4\).*needs \(N, 5\)"),
        ((weight, bias), (features * math.nan, labels), "features of train has 200 entries that are infinite or NaN"),
        ((weight, bias), (features, labels + 1), "labels of train run from 1 to 3; expected class indices from 0 to 2"),
        ((weight, bias), (features, labels[:9]), r"labels of train have shape \(9,\)"),
    ):
        with pytest.raises(InputError, match=message):
            gradient_path(*head, LabelledFeatures(*data))
    with pytest.raises(InputError, match="labels of validation run from 0 to 3"):
        gradient_path(*start(3), sample(3), others={"validation": sample(4)})
    with pytest.raises(InputError, match="a further split cannot be called 'train' or 'all'"):
        gradient_path(*start(3), sample(3), others={"all": sample(3)})
    with pytest.raises(InputError, match="features of samples have shape"):
        head_norm_derivative(weight, bias, features[:, :4], labels)
