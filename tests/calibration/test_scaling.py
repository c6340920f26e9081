"""Temperatures where they are hard to find, and the calibrations that temperature scaling is compared with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ntk_lpft.calibration import fit_isotonic, fit_temperature, fit_vector_scaling
from ntk_lpft.errors import InputError


def drawn(n: int, c: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits, and labels."""
    rng = np.random.default_rng(seed)
    true = softmax(rng.standard_normal((n, c)), axis=1)
    labels = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, c - 1)
    return sharpness * np.log(true), labels


def slope(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """DNLL / d ln(1/T), by automatic differentiation."""
    log_beta = torch.tensor(-np.log(temperature), dtype=torch.float64, requires_grad=True)
    scaled = log_beta.exp() * torch.from_numpy(logits)
    torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)).backward()
    return float(log_beta.grad)


def test_binary_temperature_in_closed_form() -> None:
    """Logits ±m that are right with frequency a have the temperature 2m / ln(a / (1 − a))."""
    for right, margin in ((0.75, 1.0), (0.9, 3.0), (0.52, 0.1)):
        labels = np.array([0] * round(100 * right) + [1] * round(100 * (1 - right)))
        logits = np.tile([margin, -margin], (100, 1))
        expected = 2 * margin / np.log(right / (1 - right))
        assert fit_temperature(logits, labels).temperature == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 60), c=st.integers(2, 6), seed=st.integers(0, 999), power=st.integers(-12, 12))
def test_the_slope_is_zero_or_points_beyond_the_bound(n: int, c: int, seed: int, power: int) -> None:
    logits, labels = drawn(n, c, seed)
    logits = logits * 10.0**power
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit_temperature(logits, labels)
    assert found.temperature > 0
    measured = slope(logits, labels, found.temperature)
    if found.at_bound is None:
        assert abs(measured) < 1e-9
        assert abs(found.slope) < 1e-9
    elif found.at_bound == "upper":  # a larger T would be better still
        assert measured > 0
    else:
        assert measured <= 0
    assert found.nll_after <= found.nll_before


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 200), factor=st.floats(1e-6, 1e6), right=st.booleans())
def test_bounds_grow_with_the_logits_as_well(seed: int, factor: float, right: bool) -> None:
    logits, _ = drawn(12, 3, seed)
    labels = logits.argmax(axis=1) if right else logits.argmin(axis=1)
    with pytest.warns(UserWarning, match="kept at the bound"):
        one, other = fit_temperature(logits, labels), fit_temperature(factor * logits, labels)
    assert one.at_bound == other.at_bound == ("lower" if right else "upper")
    # T = 1 is among the temperatures to choose from, whatever the size of the logits.
    within = min if right else max
    size = np.median(logits.std(axis=1))
    bound = size / 100 if right else 100 * size
    assert one.temperature == pytest.approx(within(1, bound), rel=1e-9)
    assert other.temperature == pytest.approx(within(1, factor * bound), rel=1e-9)


def test_bounds_are_kept_in_units_of_the_logits() -> None:
    logits, _ = drawn(40, 4, seed=2)
    size = np.median(logits.std(axis=1))
    with pytest.warns(UserWarning, match="fit on more samples"):
        found = fit_temperature(logits, logits.argmax(axis=1), bounds=(0.5, 3))
    assert found.temperature == pytest.approx(min(1, 0.5 * size))
    with pytest.warns(UserWarning, match="next to nothing"):
        assert fit_temperature(logits, logits.argmin(axis=1), bounds=(0.5, 3)).temperature == pytest.approx(3 * size)
    for bounds in ((0, 1), (1, 1), (2, 1), (1, np.inf), (np.nan, 1)):
        with pytest.raises(InputError, match="two positive numbers in order"):
            fit_temperature(logits, logits.argmax(axis=1), bounds=bounds)


def test_a_constant_predictor() -> None:
    """Right more often than chance it has a temperature; as often as chance, none is finite."""
    logits = np.tile([2.0, 1.0, 0.0], (9, 1))
    found = fit_temperature(logits, np.array([0, 0, 0, 0, 0, 1, 1, 1, 2]))
    assert found.at_bound is None
    assert abs(slope(logits, np.array([0, 0, 0, 0, 0, 1, 1, 1, 2]), found.temperature)) < 1e-12
    with pytest.warns(UserWarning, match="∞"):
        assert fit_temperature(logits, np.arange(9) % 3).at_bound == "upper"


def test_samples_without_any_preference_do_not_set_the_scale() -> None:
    logits, labels = drawn(50, 3, seed=3)
    flat = np.concatenate([logits, np.full((200, 3), 0.1)])
    found = fit_temperature(flat, np.concatenate([labels, np.zeros(200, dtype=int)]))
    assert found.temperature == pytest.approx(fit_temperature(logits, labels).temperature, rel=1e-9)
    with pytest.warns(UserWarning, match="changes nothing"):
        assert fit_temperature(np.full((4, 3), 0.1), np.zeros(4, dtype=int)).temperature == 1.0


def test_one_huge_row_does_not_hide_the_others() -> None:
    logits, labels = drawn(200, 3, seed=4)
    expected = fit_temperature(logits, labels).temperature
    huge = np.concatenate([logits, [[1e7, 0, -1e7]]])
    assert fit_temperature(huge, np.append(labels, 0)).temperature == pytest.approx(expected, rel=1e-9)


def test_a_fit_knows_its_classes() -> None:
    logits, labels = drawn(60, 3, seed=5)
    fitted = (fit_temperature(logits, labels), fit_vector_scaling(logits, labels), fit_isotonic(logits, labels))
    for calibration in fitted:
        with pytest.raises(InputError, match="have 2 classes, but the calibration was fitted on 3"):
            calibration.probabilities(logits[:, :2])
    np.testing.assert_array_equal(fitted[0].scale(logits), logits / fitted[0].temperature)
    np.testing.assert_allclose(
        fitted[0].probabilities(logits), softmax(logits / fitted[0].temperature, axis=1), rtol=1e-14
    )


def test_vector_scaling_is_optimal() -> None:
    logits, labels = drawn(300, 3, seed=6)
    skewed = 3 * logits * np.array([1.0, 0.5, 2.0]) + np.array([0.0, 2.0, -2.0])
    found = fit_vector_scaling(skewed, labels)
    weight = torch.tensor(found.weight, requires_grad=True)
    bias = torch.tensor(found.bias, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(skewed) * weight + bias, torch.from_numpy(labels))
    loss.backward()
    assert float(weight.grad.abs().max()) < 1e-6
    assert float(bias.grad.abs().max()) < 1e-6
    assert found.nll_after == pytest.approx(loss.item())
    assert found.bias.sum() == pytest.approx(0, abs=1e-12)
    assert not found.at_bound
    np.testing.assert_allclose(found.scale(skewed), skewed * found.weight + found.bias)


def test_vector_scaling_of_two_classes_is_a_logistic_regression() -> None:
    """With logits (0, z), w and b act as σ(w₂ z + b₂ − b₁): Platt's scaling."""
    z, labels = drawn(400, 2, seed=7)
    margin = z[:, 1] - z[:, 0]
    found = fit_vector_scaling(np.stack([np.zeros(400), margin], axis=1), labels)
    platt = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(margin[:, None], labels)
    assert found.weight[1] == pytest.approx(platt.coef_[0, 0], rel=1e-4)
    assert found.bias[1] - found.bias[0] == pytest.approx(platt.intercept_[0], abs=1e-4)


def test_vector_scaling_of_separable_classes_stops_at_its_bounds() -> None:
    logits, _ = drawn(30, 3, seed=8)
    with pytest.warns(UserWarning, match="no finite optimum"):
        found = fit_vector_scaling(logits, logits.argmax(axis=1))
    assert found.at_bound
    assert np.isfinite(found.weight).all()
    assert found.nll_after < 0.01


def test_isotonic_regression_one_class_against_the_rest() -> None:
    logits, labels = drawn(150, 3, seed=9)
    new, _ = drawn(40, 3, seed=10)
    columns = [
        IsotonicRegression(out_of_bounds="clip")
        .fit(softmax(logits, axis=1)[:, k], (labels == k).astype(float))
        .predict(softmax(new, axis=1)[:, k])
        for k in range(3)
    ]
    raw = np.stack(columns, axis=1)
    found = fit_isotonic(logits, labels).probabilities(new)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    some = raw.sum(axis=1) > 0
    np.testing.assert_allclose(found[some], raw[some] / raw[some].sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found[~some], 1 / 3)


def test_isotonic_rows_of_zeros_become_uniform() -> None:
    # In each class the smaller probabilities are never right, and a new sample has only those.
    logits = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]] * 3)
    found = fit_isotonic(logits, np.arange(9) % 3).probabilities(np.array([[0.0, 0, 0], [5.0, 0, 0]]))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[1], [1, 0, 0])
    assert (fit_isotonic(logits, np.arange(9) % 3).probabilities(-logits) >= 0).all()
