"""The linear probe of the bundled MiniLM on CB: a file sorted by class, and a choice that the folds decide."""

from __future__ import annotations

import os

import pytest
import torch

from ntk_lpft import bundled
from ntk_lpft.classifier import extract_features, load_classifier, load_tokenizer
from ntk_lpft.errors import InputError
from ntk_lpft.probing import FoldSpread, fit_logistic_head
from ntk_lpft.tasks import load_task


def test_two_of_five_shuffles_choose_one_strength_and_three_another() -> None:
    """Of each shuffle the best mean is above the next by one row of 225 or more; rounding cannot change the choice."""
    if not os.environ.get("NTK_LPFT_DATA"):
        pytest.skip("NTK_LPFT_DATA is not set")
    try:
        bundled.model_folder("minilm")
        task = load_task("cb")
    except InputError as error:
        pytest.skip(str(error))
    train = task.split("train").encode(load_tokenizer("minilm"))
    features = extract_features(load_classifier("minilm", 3), train).features
    heads = [fit_logistic_head(features, train.labels, 3, fold_seed=seed) for seed in range(5)]
    assert [f"{head.strength:.3f}" for head in heads] == ["0.046", "0.006", "0.046", "0.046", "0.006"]
    assert [f"{head.head_norm:.3f}" for head in heads] == ["1.494", "0.366", "1.494", "1.494", "0.366"]
    assert all(head.converged for head in heads)
    assert str(FoldSpread.of(heads)).startswith(
        "5 shuffles of the folds: C = 0.00599 (2×), C = 0.0464 (3×); ‖V‖ 0.366 to"
    )
    assert torch.equal(heads[0].weight, fit_logistic_head(features, train.labels, 3).weight)
