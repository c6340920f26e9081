"""Real steps of gradient descent, and the first-order predictions that they approach as η goes to 0."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.prediction_cases import NAMES, case, copies, plain_attention, relative
from helpers.zoo import padded

from ntk_lpft.errors import InputError
from ntk_lpft.prediction.descent import descent
from ntk_lpft.prediction.one_step import predict_step
from ntk_lpft.prediction.real_step import error_slopes, relative_error, step_errors, take_step

every_case = pytest.mark.parametrize("name", NAMES)


@every_case
def test_the_error_falls_linearly_with_the_learning_rate(name: str) -> None:
    # Slope 1 over two factors of ten, by steps that are each taken on their own.
    of = case(name)
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation)
    scale = 1 / prediction.largest_eigenvalue
    rates = [scale * factor for factor in (1e-5, 1e-4, 1e-3)]
    steps = [take_step(of.model, of.train, of.labels, rate, of.evaluation) for rate in rates]
    for split in ("train", "eval"):
        changes = [prediction.change(rate, split) for rate in rates]
        pairs = list(zip(steps, changes, strict=True))
        errors = {
            "logits": [relative(step.logit_change(split), change.logits) for step, change in pairs],
            "features": [relative(step.feature_change(split), change.features) for step, change in pairs],
        }
        for quantity, values in errors.items():
            assert np.abs(np.diff(np.log10(values)) - 1).max() < 0.1, (split, quantity, values)
            assert values[0] < 1e-4, (split, quantity)


@pytest.mark.parametrize("name", ["gpt2", "bert-lora"])
def test_half_the_learning_rate_makes_half_the_error(name: str) -> None:
    of = case(name)
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation)
    scale = 1e-4 / prediction.largest_eigenvalue
    table = step_errors(of.model, of.train, of.labels, of.evaluation, [scale, scale / 2], prediction=prediction)
    for (_, quantity), group in table.groupby(["split", "quantity"]):
        whole, half = group.sort_values("learning_rate", ascending=False)["relative_error"]
        if quantity == "logits_head_only":
            assert max(whole, half) < 1e-8
        else:
            assert whole / half == pytest.approx(2, abs=0.1)
    assert len(table) == 2 * 2 * 4


@pytest.mark.parametrize("name", ["bert", "bert-lora"])
def test_the_head_alone_moves_exactly_as_P_says_and_the_body_alone_as_F(name: str) -> None:
    of = case(name)
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation)
    large, small = 1.0, 1e-5 / prediction.largest_eigenvalue
    for split in ("train", "eval"):
        head = take_step(of.model, of.train, of.labels, large, of.evaluation, part="head")
        assert relative(head.logit_change(split), prediction.change(large, split).pretrain) < 1e-11
        assert not head.feature_change(split).any()
        body = take_step(of.model, of.train, of.labels, small, of.evaluation, part="body")
        assert relative(body.logit_change(split), prediction.change(small, split).ft) < 1e-4
        assert relative(body.feature_change(split), prediction.change(small, split).features) < 1e-4


def test_parts_of_one_step_are_those_of_separate_steps() -> None:
    of = case("gpt2")
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation)
    rate = 1e-2 / prediction.largest_eigenvalue
    table = step_errors(of.model, of.train, of.labels, of.evaluation, [rate], prediction=prediction)
    table = table.set_index(["split", "quantity"])
    for split in ("train", "eval"):
        for part, quantity in (("head", "logits_head_only"), ("body", "logits_body_only")):
            alone = take_step(of.model, of.train, of.labels, rate, of.evaluation, part=part).logit_change(split)
            predicted = prediction.change(rate, split).quantity(quantity)
            row = table.loc[(split, quantity)]
            assert row["actual_norm"] == pytest.approx(float(alone.norm()), rel=1e-9)
            assert row["predicted_norm"] == pytest.approx(float(predicted.norm()), rel=1e-12)
            assert row["relative_error"] == pytest.approx(relative(alone, predicted), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_step_is_that_of_torchs_sgd(name: str) -> None:
    of = case(name)
    step = take_step(of.model, of.train, of.labels, 0.03)
    model = deepcopy(of.model)
    batch = padded(of.train, pad_id=model.config.pad_token_id)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    with plain_attention(model):
        before = model(**batch).logits
        torch.nn.functional.cross_entropy(before, of.labels, reduction="sum").backward()
        optimizer.step()
        after = model(**batch).logits
    assert relative(step.before["train"].logits, before) < 1e-12
    assert relative(step.after["train"].logits, after) < 1e-10
    assert relative(step.logit_change(), after - before) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_put_back_bit_by_bit(dtype: torch.dtype) -> None:
    of = case("bert-lora", dtype=dtype)
    of.model.train()
    before, places = copies(of.model), {name: p.data_ptr() for name, p in of.model.named_parameters()}

    def check() -> None:
        assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
        assert {name: p.data_ptr() for name, p in of.model.named_parameters()} == places
        assert all(p.grad is None for p in of.model.parameters())
        assert {p.dtype for p in of.model.parameters()} == {dtype}
        assert of.model.training

    moved = take_step(of.model, of.train, of.labels, 0.1)
    assert moved.logit_change().abs().max() > 1e-3
    check()

    def stop_on_the_way() -> None:
        with descent(of.model, of.train, of.labels) as moving:
            moving.step(moving.gradients(), 0.1)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop_on_the_way()
    check()


def test_parts_without_trainable_parameters_have_no_rows() -> None:
    of = case("bert")
    of.head.requires_grad_(False)
    table = step_errors(of.model, of.train, of.labels, of.evaluation, [1e-6])
    assert set(table["quantity"]) == {"logits", "features", "logits_body_only"}
    with pytest.raises(InputError, match="head has no trainable parameter"):
        take_step(of.model, of.train, of.labels, 0.1, part="head")
    of.head.requires_grad_(True)
    for parameter in of.body:
        parameter.requires_grad_(False)
    table = step_errors(of.model, of.train, of.labels, of.evaluation, [1e-2])
    assert set(table["quantity"]) == {"logits", "logits_head_only"}
    # Linear in all that is trained: exact at any size.
    assert table["relative_error"].max() < 1e-10


def test_the_usual_learning_rates_show_the_slope() -> None:
    of = case("roberta")
    table = step_errors(of.model, of.train, of.labels, of.evaluation)
    assert table["learning_rate"].nunique() == 9
    slopes = error_slopes(table)
    assert set(slopes["quantity"]) == {"logits", "features", "logits_body_only"}
    assert np.abs(slopes["slope"] - 1).max() < 0.05


def test_slopes_of_known_errors() -> None:
    rates = np.geomspace(1e-6, 1e-2, 5)
    table = pd.DataFrame(
        {"learning_rate": rates, "split": "train", "quantity": "logits", "relative_error": 3 * rates**2}
    )
    assert error_slopes(table)["slope"].tolist() == pytest.approx([2])
    table.loc[0, "relative_error"] = 1.0  # rounding at one end does not move the median
    assert error_slopes(table)["slope"].tolist() == pytest.approx([2])
    assert error_slopes(table[:1])["slope"].isna().all()


def test_relative_errors_by_hand() -> None:
    one, zero = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    assert relative_error(2 * one, one) == 1
    assert relative_error(one + torch.tensor([[0.0, 0.5]]), one) == pytest.approx(0.1)
    assert np.isnan(relative_error(zero, zero))
    assert relative_error(one, zero) == float("inf")


@pytest.mark.parametrize("learning_rate", [0.0, -1e-3, float("nan"), float("inf")])
def test_learning_rates_that_make_no_sense(learning_rate: float) -> None:
    of = case("bert")
    for call in (
        lambda: take_step(of.model, of.train, of.labels, learning_rate),
        lambda: step_errors(of.model, of.train, of.labels, None, [1e-3, learning_rate]),
    ):
        with pytest.raises(InputError, match="is not a positive number"):
            call()


def test_other_bad_input() -> None:
    of = case("bert")
    with pytest.raises(InputError, match="no learning rates"):
        step_errors(of.model, of.train, of.labels, None, [])
    with pytest.raises(InputError, match="unknown part 'feet' of the model"):
        take_step(of.model, of.train, of.labels, 0.1, part="feet")
    with pytest.raises(InputError, match="labels run from 1 to 3"):
        take_step(of.model, of.train, of.labels + 1, 0.1)
    with pytest.raises(InputError, match=r"labels have shape \(4,\); expected \(5,\)"):
        take_step(of.model, of.train, of.labels[:4], 0.1)
    with pytest.raises(InputError, match="train are empty"):
        take_step(of.model, [], of.labels, 0.1)
