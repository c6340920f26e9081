"""The linear probe against logistic regression written out, and minimised by other means."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers.logistic_reference import STRENGTHS, cross_validation, objective

from ntk_lpft.errors import InputError
from ntk_lpft.probing import logistic
from ntk_lpft.probing.logistic import RELATIVE_ERROR, LogisticHead, fit_logistic_head


def features_and_labels(num_labels: int, n: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    """Classes that overlap, on a scale of their own."""
    generator = torch.Generator().manual_seed(num_labels)
    labels = torch.arange(n) % num_labels
    centres = torch.randn(num_labels, 6, generator=generator)
    return 1.5 * centres[labels] + 2 * torch.randn(n, 6, generator=generator), labels.numpy()


def separable(num_labels: int, n: int = 40, size: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    """More features than samples, all near one large mean, as those of Transformers are."""
    generator = torch.Generator().manual_seed(num_labels)
    noise = torch.randn(n, size, generator=generator, dtype=torch.float64)
    return 5 + 0.3 * noise, (torch.arange(n) % num_labels).numpy()


def bias_of(head: LogisticHead) -> np.ndarray:
    return np.zeros(len(head.weight)) if head.bias is None else head.bias.numpy()


@pytest.mark.parametrize("num_labels", [2, 3])
def test_the_gradient_bounds_the_error_of_a_fit_that_stopped_early(
    num_labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """b, which has no penalty, must be the best for V: else no gradient bounds how far V is from its optimum."""
    monkeypatch.setattr(logistic, "_TOLERANCES", (1e-2,))
    features, labels = features_and_labels(num_labels)
    x = features.double().numpy()
    head = fit_logistic_head(features, labels, num_labels)
    written_out = objective(x, labels, head.strength, intercept=True)
    by_weight, by_bias = written_out.gradient(head.weight.numpy(), bias_of(head))
    assert not head.converged
    assert np.linalg.norm(by_bias) <= 1e-9 * np.linalg.norm(by_weight)
    apart = np.linalg.norm(head.weight.numpy() - written_out.optimum()[0])
    assert 0 < apart <= head.gradient_norm / written_out.penalty


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_the_head_is_the_optimum_for_the_strength_that_cross_validation_chose(num_labels: int, intercept: bool) -> None:
    features, labels = features_and_labels(num_labels)
    x = features.double().numpy()
    head = fit_logistic_head(features, labels, num_labels, intercept=intercept, fold_seed=3)
    assert head.weight.shape == (num_labels, 6)
    assert (head.bias is None) != intercept
    scores = cross_validation(x, labels, 3, intercept=intercept)
    np.testing.assert_allclose([point.folds for point in head.curve], scores, rtol=0, atol=1e-12)
    np.testing.assert_allclose([point.mean for point in head.curve], scores.mean(1), rtol=0, atol=1e-12)
    assert head.strength == STRENGTHS[int(np.argmax(np.round(scores.mean(1), 9)))]
    written_out = objective(x, labels, head.strength, intercept=intercept)
    weight, bias = written_out.optimum()
    # Both are within their gradients' norms, over λ, of the optimum.
    apart = written_out.gradient_norm(head.weight.numpy(), bias_of(head)) + written_out.gradient_norm(weight, bias)
    assert np.linalg.norm(head.weight.numpy() - weight) <= apart / written_out.penalty
    assert apart <= 2 * written_out.penalty * RELATIVE_ERROR * np.linalg.norm(weight)
    logits = x @ head.weight.numpy().T + bias_of(head)
    assert head.train_accuracy == (logits.argmax(1) == labels).mean()
    assert 1 / num_labels < head.train_accuracy < 1
    assert (head.folds, head.fold_seed, head.unconverged_fits, head.converged) == (5, 3, 0, True)
    assert head.shortfall() is None


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("strength", [1e-4, 1.0, 1e4])
def test_the_gradient_is_stated_and_within_its_bound_at_every_strength(
    num_labels: int, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntk_lpft.probing.logistic._STRENGTHS", np.array([strength]))
    features, labels = separable(num_labels)
    head = fit_logistic_head(features, labels, num_labels)
    assert head.strength == strength
    written_out = objective(features.numpy(), labels, strength)
    found = written_out.gradient_norm(head.weight.numpy(), bias_of(head))
    # Rounding: N residuals of order 1, each times C and φ, within a few units of float64.
    rounding = 1e-15 * strength * float(features.norm()) * np.sqrt(len(labels))
    assert found == pytest.approx(head.gradient_norm, rel=1e-3, abs=rounding)
    assert head.gradient_bound == pytest.approx(written_out.penalty * 1e-6 * max(head.head_norm, 1e-3))
    assert head.gradient_norm <= head.gradient_bound
    assert head.converged


def test_folds_do_not_follow_the_files_order() -> None:
    features, labels = features_and_labels(3, n=90)
    order = np.argsort(labels, kind="stable")
    strengths = {fit_logistic_head(features[order], labels[order], 3, fold_seed=seed).curve for seed in range(3)}
    assert len(strengths) == 3
    one, two = (fit_logistic_head(features[order], labels[order], 3, fold_seed=7) for _ in range(2))
    assert one.curve == two.curve
    assert torch.equal(one.weight, two.weight)
    assert fit_logistic_head(features, labels, 3, fold_seed=2**40 + 7).fold_seed == 2**40 + 7


def test_the_published_binary_head_is_half_the_optimum_of_two_rows() -> None:
    features, labels = features_and_labels(2)
    x = features.double().numpy()
    head = fit_logistic_head(features, labels, 2, solver="logistic-published")
    # The penalty on two rows ∓u/2 is half that on their difference u, so the strength on u is doubled.
    scores = cross_validation(x, labels, 0, factor=2.0)
    np.testing.assert_allclose([point.folds for point in head.curve], scores, rtol=0, atol=1e-12)
    assert head.strength == STRENGTHS[int(np.argmax(np.round(scores.mean(1), 9)))]
    written_out = objective(x, labels, head.strength, published=True)
    weight, bias = written_out.optimum()
    assert written_out.penalty == 1
    apart = written_out.gradient_norm(2 * head.weight.numpy(), 2 * bias_of(head))
    assert np.linalg.norm(2 * head.weight.numpy() - weight) <= apart + written_out.gradient_norm(weight, bias)
    assert apart == pytest.approx(head.gradient_norm, rel=1e-3, abs=1e-12)
    assert head.gradient_norm <= head.gradient_bound
    np.testing.assert_allclose(2 * bias_of(head), bias, rtol=0, atol=1e-5)
    ours = fit_logistic_head(features, labels, 2)
    assert head.head_norm < ours.head_norm
    assert head.solver == "logistic-published"


def test_the_published_head_of_more_classes_is_ours() -> None:
    data = features_and_labels(3)
    one, two = (fit_logistic_head(*data, 3, solver=solver) for solver in ("logistic", "logistic-published"))
    assert torch.equal(one.weight, two.weight)
    assert one.curve == two.curve


def test_rows_of_a_binary_head_are_antiparallel() -> None:
    for intercept in (True, False):
        head = fit_logistic_head(*features_and_labels(2), 2, intercept=intercept)
        assert torch.equal(head.weight[0], -head.weight[1])
        assert head.weight.abs().sum() > 0
        assert head.bias is None or torch.equal(head.bias[0], -head.bias[1])


def test_rows_of_a_multinomial_head_sum_to_zero() -> None:
    head = fit_logistic_head(*features_and_labels(3), 3)
    # λ Σₖ vₖ is the sum of the gradient's rows, as residuals sum to zero.
    assert float(head.weight.sum(0).norm()) <= np.sqrt(3) * head.gradient_norm + 1e-12


def test_small_classes_get_fewer_folds() -> None:
    features, labels = features_and_labels(2, n=40)
    keep = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:3]])
    head = fit_logistic_head(features[keep], labels[keep], 2)
    assert head.folds == 3
    assert {len(point.folds) for point in head.curve} == {3}


@pytest.mark.parametrize(
    ("labels", "num_labels", "counts"),
    [([0, 0, 0, 1], 2, r"\[3, 1\]"), ([0, 0, 1, 1], 3, r"\[2, 2, 0\]"), ([0, 0, 1, 1, 2, 2], 2, r"\[2, 2, 2\]")],
)
def test_too_few_samples_of_a_class(labels: list[int], num_labels: int, counts: str) -> None:
    with pytest.raises(InputError, match=f"2 or more samples of each of {num_labels} classes; got {counts}"):
        fit_logistic_head(torch.randn(len(labels), 4), np.array(labels), num_labels)


def test_another_solver() -> None:
    with pytest.raises(InputError, match="unknown solver of logistic regression 'adam'; choose one of logistic, logi"):
        fit_logistic_head(*features_and_labels(2), 2, solver="adam")


def test_fits_that_do_not_converge_are_told() -> None:
    features, labels = features_and_labels(3)
    head = fit_logistic_head(1000 * features, labels, 3, max_iter=1)
    assert not head.converged
    assert head.gradient_norm > head.gradient_bound
    assert head.unconverged_fits > 0
    said = head.shortfall()
    assert said is not None
    assert f"gradient norm is {head.gradient_norm:.2g}, above {head.gradient_bound:.2g}" in said
    assert f"{head.unconverged_fits} of 50 fits that chose C did not converge" in said
    assert "\n" not in said


@pytest.mark.parametrize("intercept", [True, False])
def test_facts_bring_a_head_back(intercept: bool) -> None:
    head = fit_logistic_head(*features_and_labels(2), 2, intercept=intercept, fold_seed=4)
    again = LogisticHead.of_facts(head.weight, head.bias, json.loads(json.dumps(head.facts())))
    for field in dataclasses.fields(head):
        if field.name not in ("weight", "bias"):
            assert getattr(again, field.name) == getattr(head, field.name), field.name
    assert head.facts()["intercept"] is intercept
