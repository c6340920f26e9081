import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import kernel_classifier


@pytest.fixture(scope="module")
def split(make_case):
    """Make a kernel in which the labels show, of 15 training and 6 evaluation samples of three classes."""
    case = make_case(seed=4, n=21, parameters=12)
    jacobians = case.jacobians + 0.4 * np.eye(12)[case.labels][:, None, :] * np.arange(1, 4)[None, :, None]
    kernel = torch.from_numpy(np.einsum("ncp,mdp->ncmd", jacobians, jacobians) / 20)
    labels = torch.from_numpy(case.labels)
    return kernel[:15, :, :15], labels[:15], kernel[15:, :, :15], labels[15:]


def test_agrees_with_scikit_learn_step_by_step(split):
    train, labels, evaluation, eval_labels = split
    rows = train.numpy().reshape(45, 45)
    targets = np.array([int(label == c) for label in labels.tolist() for c in range(3)])
    eval_rows = evaluation.numpy().reshape(18, 45)
    eval_targets = np.array([int(label == c) for label in eval_labels.tolist() for c in range(3)])

    def regression(strength):
        return LogisticRegression(C=strength, max_iter=10_000)

    # The cross-validation of the strength spelt out; ties go to the strongest penalty.
    strengths = np.logspace(-4, 4, 10)
    scores = [cross_val_score(regression(c), rows, targets, cv=StratifiedKFold(5)).mean() for c in strengths]
    best = float(strengths[int(np.argmax(np.round(scores, 9)))])
    model = regression(best).fit(rows, targets)
    plain = model.predict_proba(eval_rows)[:, 1].reshape(6, 3).argmax(axis=1)

    result = kernel_classifier(train, labels, evaluation, eval_labels)
    assert result.regularisation == pytest.approx(best)
    assert result.train_pair_accuracy == pytest.approx(model.score(rows, targets))
    assert result.eval_pair_accuracy == pytest.approx(model.score(eval_rows, eval_targets))
    assert result.eval_accuracy == pytest.approx(np.mean(plain == eval_labels.numpy()))
    assert result.base_rate == pytest.approx(2 / 3)
    assert (result.folds, result.converged, result.unconverged_fits) == (5, True, 0)
    assert 1 < result.n_iter < 10_000


def test_a_kernel_that_gives_the_labels_away_is_learnt():
    labels = torch.tensor([0, 1, 2] * 5)
    y = torch.nn.functional.one_hot(labels, 3).double()
    kernel = 10 * torch.einsum("nc,md->ncmd", y, y)
    result = kernel_classifier(kernel, labels, kernel[:4], labels[:4])
    assert (result.train_pair_accuracy, result.train_accuracy) == (1.0, 1.0)
    assert (result.eval_pair_accuracy, result.eval_accuracy) == (1.0, 1.0)


def test_the_zero_kernel_answers_no_and_ties_go_to_the_lowest_class():
    labels = torch.tensor([0, 0, 1, 2, 2, 1, 0, 1])
    result = kernel_classifier(torch.zeros(8, 3, 8, 3), labels)
    assert result.train_pair_accuracy == pytest.approx(result.base_rate)
    assert result.train_accuracy == pytest.approx(3 / 8)
    assert (result.eval_pair_accuracy, result.eval_accuracy) == (None, None)


def test_fits_that_stop_early_are_reported_and_not_printed(split):
    train, labels, _, _ = split
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = kernel_classifier(1e5 * train, labels, max_iter=2)
    assert not result.converged
    assert 0 < result.unconverged_fits <= 51
    assert result.n_iter == 2


@pytest.mark.parametrize(("n", "folds"), [(2, 2), (4, 4), (6, 5)])
def test_few_samples_make_fewer_folds(make_case, n, folds):
    case = make_case(n=n, c=2)
    assert kernel_classifier(torch.from_numpy(case.f), torch.from_numpy(case.labels)).folds == folds


def test_single_precision_is_fitted_in_double(split):
    train, labels, evaluation, eval_labels = (part.float() if part.ndim == 4 else part for part in split)
    single = kernel_classifier(train, labels, evaluation, eval_labels)
    double = kernel_classifier(train.double(), labels, evaluation.double(), eval_labels)
    assert single == double


@pytest.mark.unchecked
def test_refused(split):
    train, labels, evaluation, eval_labels = split
    for bad in (train[:, 0, :, 0], evaluation):
        with pytest.raises(InputError, match="train_kernel has shape"):
            kernel_classifier(bad, labels)
    with pytest.raises(InputError, match="two samples and two classes"):
        kernel_classifier(train[:1, :, :1], labels[:1])
    with pytest.raises(InputError, match="two samples and two classes"):
        kernel_classifier(train[:, :1, :, :1], torch.zeros(15, dtype=torch.int64))
    with pytest.raises(InputError, match="train_labels"):
        kernel_classifier(train, labels[:3])
    with pytest.raises(InputError, match="together"):
        kernel_classifier(train, labels, evaluation)
    with pytest.raises(InputError, match="together"):
        kernel_classifier(train, labels, eval_labels=eval_labels)
    with pytest.raises(InputError, match="evaluation rows"):
        kernel_classifier(train, labels, evaluation.permute(2, 3, 0, 1), eval_labels)
    with pytest.raises(InputError, match="eval_labels"):
        kernel_classifier(train, labels, evaluation, eval_labels + 3)
    with pytest.raises(InputError, match="max_iter"):
        kernel_classifier(train, labels, max_iter=0)
    with pytest.raises(InputError, match="infinite"):
        kernel_classifier(train * float("nan"), labels)
