"""The linear probe against scikit-learn, as the paper used it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.small import linear_probe

from ntk_lpft.errors import InputError
from ntk_lpft.probing.logistic import fit_logistic_head


def features_and_labels(num_labels: int, n: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    """Classes that overlap, on a scale of their own."""
    generator = torch.Generator().manual_seed(num_labels)
    labels = torch.arange(n) % num_labels
    centres = torch.randn(num_labels, 6, generator=generator)
    return 1.5 * centres[labels] + 2 * torch.randn(n, 6, generator=generator), labels.numpy()


@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_probabilities_are_those_of_scikit_learn(num_labels: int) -> None:
    features, labels = features_and_labels(num_labels)
    head = fit_logistic_head(features, labels, num_labels)
    assert head.weight.shape == (num_labels, 6)
    reference = linear_probe(features.double().numpy(), labels)
    probabilities = torch.softmax(features.double() @ head.weight.T + head.bias, dim=1)
    np.testing.assert_allclose(probabilities, reference.predict_proba(features.double().numpy()), rtol=1e-6, atol=1e-9)
    assert head.train_accuracy == float((probabilities.argmax(1).numpy() == labels).mean())
    assert 1 / num_labels < head.train_accuracy < 1
    assert head.strength in np.logspace(-4, 4, 10)
    assert head.folds == 5
    assert head.converged


def test_rows_of_a_binary_head_are_antiparallel() -> None:
    head = fit_logistic_head(*features_and_labels(2), 2)
    assert torch.equal(head.weight[0], -head.weight[1])
    assert torch.equal(head.bias[0], -head.bias[1])
    assert head.weight.abs().sum() > 0


def test_rows_of_a_multinomial_head_sum_to_zero() -> None:
    head = fit_logistic_head(*features_and_labels(3), 3)
    torch.testing.assert_close(head.weight.sum(0), torch.zeros(6).double(), rtol=0, atol=1e-6 * head.weight.norm())


def test_small_classes_get_fewer_folds() -> None:
    features, labels = features_and_labels(2, n=40)
    keep = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:3]])
    assert fit_logistic_head(features[keep], labels[keep], 2).folds == 3


@pytest.mark.parametrize(
    ("labels", "num_labels", "counts"),
    [([0, 0, 0, 1], 2, r"\[3, 1\]"), ([0, 0, 1, 1], 3, r"\[2, 2, 0\]"), ([0, 0, 1, 1, 2, 2], 2, r"\[2, 2, 2\]")],
)
def test_too_few_samples_of_a_class(labels: list[int], num_labels: int, counts: str) -> None:
    with pytest.raises(InputError, match=f"2 or more samples of each of {num_labels} classes; got {counts}"):
        fit_logistic_head(torch.randn(len(labels), 4), np.array(labels), num_labels)


def test_fits_that_do_not_converge_are_told() -> None:
    features, labels = features_and_labels(3)
    assert not fit_logistic_head(1000 * features, labels, 3, max_iter=1).converged
