"""Whatever the logits, the fitted temperature is the best there is, and no worse than none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ntk_lpft.calibration import (
    Predictions,
    errors_by_chance,
    evaluate,
    fit_temperature,
    fit_vector_scaling,
    reliability_bins,
)
from ntk_lpft.calibration.predictions import are_probabilities
from ntk_lpft.errors import InputError


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """NLL by scipy's own softmax."""
    return -float(log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def quietly(logits: np.ndarray, labels: np.ndarray) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fit_temperature(logits, labels)


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n, c = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    numbers = st.floats(-10, 10, width=32) | st.sampled_from([0.0, -1e4, 1e4, 1e-6])
    logits = draw(arrays(np.float64, (n, c), elements=numbers)) * 10.0 ** draw(st.integers(-6, 6))
    return logits, draw(arrays(np.int64, n, elements=st.integers(0, c - 1)))


@settings(max_examples=300, deadline=None)
@given(samples())
def test_the_nll_is_never_larger_than_before(given_samples: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = given_samples
    if are_probabilities(logits):
        return
    found = quietly(logits, labels)
    assert found.nll_after <= found.nll_before  # type: ignore[attr-defined]
    before, after = nll(logits, labels, 1.0), nll(logits, labels, found.temperature)  # type: ignore[attr-defined]
    assert after <= before + 1e-12 * (1 + before)
    assert found.nll_before == pytest.approx(before, rel=1e-9, abs=1e-12)  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(samples())
def test_neither_is_that_of_vector_scaling(given_samples: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = given_samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = fit_vector_scaling(logits, labels)
    assert found.nll_after <= found.nll_before * (1 + 1e-12)


def drawn(n: int, c: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = softmax(rng.standard_normal((n, c)), axis=1)
    return 3 * np.log(true), (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, c - 1)


@pytest.mark.parametrize("masked", [1, 3, 20])
@pytest.mark.parametrize("value", [-1e4, -1e9, float(np.finfo(np.float32).min), -65504.0])
def test_masked_classes_change_nothing(masked: int, value: float) -> None:
    logits, labels = drawn(300, 3, seed=masked)
    plain = fit_temperature(logits, labels)
    wide = np.concatenate([logits, np.full((300, masked), value)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_temperature(wide, labels)
    assert found.temperature == pytest.approx(plain.temperature, rel=1e-7)
    assert found.nll_after == pytest.approx(plain.nll_after, rel=1e-9)
    assert found.at_bound is None


def test_a_label_that_is_masked_once_is_fitted_nevertheless() -> None:
    logits, labels = drawn(200, 3, seed=9)
    wide = np.concatenate([logits, np.full((200, 1), -50.0)], axis=1)
    labels[0] = 3
    found = fit_temperature(wide, labels)
    best = minimize_scalar(lambda log: nll(wide, labels, np.exp(log)), bounds=(-3, 5), method="bounded")
    assert found.nll_after == pytest.approx(best.fun, rel=1e-9)


def test_sharp_logits_that_are_all_right_are_left_alone() -> None:
    logits, _ = drawn(50, 3, seed=1)
    with pytest.warns(UserWarning, match="is predicted correctly"):
        found = fit_temperature(1000 * logits, logits.argmax(axis=1))
    assert found.temperature == 1
    assert found.nll_after == found.nll_before


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: fit_temperature([[1.0, 2.0], [1.0]], [0, 1]), "what is to be an array is none"),  # type: ignore[list-item,arg-type]
        (lambda p: fit_temperature(np.array([[1e200, 2.0]]), np.array([0])), "reach 1e.200 in size"),
        (lambda p: p.scaled("x"), "temperature 'x' is no positive number"),
        (lambda p: p.scaled(None), "temperature None is no positive number"),
        (lambda p: evaluate(p, seed="x"), "seed 'x' is no whole number"),  # type: ignore[arg-type]
        (lambda p: evaluate(p, seed=-1), "seed -1 is no whole number"),
        (lambda p: evaluate(p, bins="x"), "'x' bins are too many"),  # type: ignore[arg-type]
        (lambda p: evaluate(p, bins=10**6), "1000000 bins are too many; use a number from 1 to 1000"),
        (lambda p: reliability_bins(p, 10**20), "bins are too many"),
        (lambda p: evaluate(p, resamples=10**9), "1000000000 resamples would take hours and gigabytes; use 10000000"),
        (lambda p: evaluate(p, resamples="x"), "'x' resamples are no whole number"),  # type: ignore[arg-type]
        (lambda p: errors_by_chance(p, seed=1.5), "seed 1.5 is no whole number"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_computed(call: object, message: str) -> None:
    logits, labels = drawn(20, 3, seed=2)
    with pytest.raises(InputError, match=message):
        call(Predictions.from_logits(logits, labels))  # type: ignore[operator]


def test_resamples_have_a_price() -> None:
    rng = np.random.default_rng(0)
    predictions = Predictions.from_logits(rng.standard_normal((20_000, 2)), rng.integers(0, 2, 20_000))
    with pytest.raises(InputError, match="10000000 resamples of 20000 samples would take some 6 hours; use 5000000 or"):
        evaluate(predictions, resamples=10**7)
