"""Theory against practice on one classifier: tables and summary, and that a run's folder keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.prediction_cases import Case, case, copies

from ntk_lpft.classifier import Classifier
from ntk_lpft.errors import InputError
from ntk_lpft.prediction import comparison as comparisons
from ntk_lpft.prediction.comparison import Comparison, compare_with_training, flow_table
from ntk_lpft.prediction.gradient_flow import kernel_gradient_descent, real_gradient_descent
from ntk_lpft.prediction.one_step import compute_kernels, predict_step
from ntk_lpft.prediction.real_step import step_errors
from ntk_lpft.runs import FinetuneRun
from ntk_lpft.tasks import EncodedSplit


def split_of(rows: list, labels: list[int], name: str) -> EncodedSplit:
    return EncodedSplit(tuple(rows), np.array(labels), np.arange(len(rows)), name, 0, 20, name)


def splits(of: Case) -> tuple[EncodedSplit, EncodedSplit]:
    return split_of(of.train, of.labels.tolist(), "train"), split_of(of.evaluation, [1, 0, 2], "validation")


def compare(of: Case, **settings) -> Comparison:
    return compare_with_training(of.model, *splits(of), **{"steps": 5, "progress": False, **settings})


def test_everything_is_compared_and_told(tmp_path: Path) -> None:
    of = case("bert-lora", dtype=torch.float32)
    before = copies(of.model)
    comparison = compare(of, real=("all", "body", "head"))
    errors, flow, summary = comparison.one_step, comparison.flow, comparison.summary
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    json.dumps(summary, allow_nan=False)

    expected = step_errors(of.model, of.train, of.labels, of.evaluation)
    pd.testing.assert_frame_equal(errors, expected, check_dtype=False, rtol=1e-6, atol=1e-8)
    slopes = summary["one_step"]["error_slope"]
    assert set(slopes) == {"train", "eval"}
    assert all(abs(slope - 1) < 0.1 for of_split in slopes.values() for slope in of_split.values())
    assert summary["one_step"]["error_at_smallest"]["train"]["features"] < 1e-3
    assert summary["one_step"]["kernel_against_features"] < 1e-9

    assert flow.columns.tolist() == ["step", "split", "run", "measure", "value"]
    assert set(flow["run"]) == {"P", "F", "P+F", "all", "body", "head"}
    assert set(flow[flow["run"] == "all"]["measure"]) == {"loss", "accuracy"}
    parts = {f"{measure}_{part}" for measure in ("change_error", "agreement") for part in ("all", "body", "head")}
    assert set(flow[flow["run"] == "F"]["measure"]) == {"loss", "accuracy", *parts}
    assert sorted(set(flow["step"])) == [0, 1, 2, 3, 4, 5]
    # What is linear is predicted to float32 rounding.
    exact = flow[(flow["run"] == "P") & (flow["measure"] == "change_error_head")]["value"]
    assert exact.max() < 1e-3

    end = summary["gradient_descent"]["at_the_end"]["train"]
    last = flow[(flow["step"] == 5) & (flow["split"] == "train")].set_index(["run", "measure"])["value"]
    assert end["P+F"]["change_error_all"] == pytest.approx(last[("P+F", "change_error_all")])
    assert end["P+F"]["change_error_all"] < end["P"]["change_error_all"]
    # The usual rate is 1 / λ_max, to four digits.
    assert comparison.rate_in_eigenvalues == pytest.approx(1, rel=5e-4)
    rate = summary["gradient_descent"]["learning_rate"]
    assert comparison.rate_in_eigenvalues == pytest.approx(rate * summary["largest_eigenvalue"])

    folder = FinetuneRun(tmp_path)
    folder.write_comparison(errors, flow)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gradient_flow.csv", "prediction.csv"]
    for name, table in (("prediction.csv", errors), ("gradient_flow.csv", flow)):
        written = pd.read_csv(tmp_path / name)
        # All digits are written; reading them may be off by one in the last place.
        pd.testing.assert_frame_equal(written, table.reset_index(drop=True), check_dtype=False, rtol=1e-15, atol=0)


def test_the_tables_hold_what_the_api_returns() -> None:
    of = case("gpt2")
    rate = 3e-3
    comparison = compare(of, etas=[1e-5, 1e-6], learning_rate=rate, training_precision="float64")
    summary = comparison.summary
    assert summary["one_step"]["learning_rates"] == [1e-6, 1e-5]
    assert summary["gradient_descent"]["learning_rate"] == rate
    assert summary["samples"] == {"train": 5, "eval": 3}
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation)
    assert summary["largest_eigenvalue"] == pytest.approx(prediction.largest_eigenvalue)
    assert summary["one_step"]["head_norm"] == pytest.approx(float(of.head.weight.detach().norm()))

    assert comparison.rate_in_eigenvalues == pytest.approx(rate * prediction.largest_eigenvalue)
    flow = comparison.flow.set_index(["run", "split", "measure", "step"])["value"]
    real = real_gradient_descent(of.model, of.train, of.labels, of.evaluation, learning_rate=rate, steps=5)
    kernels = compute_kernels(of.model, of.train, of.evaluation)
    for component in ("P", "F", "P+F"):
        predicted = kernel_gradient_descent(kernels, of.labels, learning_rate=rate, steps=5, component=component)
        for split, labels in (("train", of.labels), ("eval", torch.tensor([1, 0, 2]))):
            for logits, name in ((predicted.logits[split][-1], component), (real.logits[split][-1], "all")):
                loss = -logits.log_softmax(1)[range(len(labels)), labels].mean()
                assert flow[(name, split, "loss", 5)] == pytest.approx(float(loss), rel=1e-9)
            moved = (real.logits[split][-1] - real.logits[split][0]).norm()
            off = (predicted.logits[split][-1] - real.logits[split][-1]).norm() / moved
            assert flow[(component, split, "change_error_all", 5)] == pytest.approx(float(off), rel=1e-6)


def test_no_real_run_is_needed() -> None:
    of = case("bert")
    labels = {"train": of.labels, "eval": torch.tensor([1, 0, 2])}
    flow = flow_table(compute_kernels(of.model, of.train, of.evaluation), labels, {}, learning_rate=1e-4, steps=30)
    assert set(flow["run"]) == {"P", "F", "P+F"}
    assert set(flow["measure"]) == {"loss", "accuracy"}
    assert flow["step"].max() == 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"etas": [1e-3, 0.0]}, "learning rate 0.0 is not a positive number"),
        ({"learning_rate": float("nan")}, "learning rate nan is not a positive number"),
        ({"steps": 0}, "0 steps are not enough"),
        ({"real": ("all", "legs")}, "unknown part 'legs'"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"training_precision": "float16"}, "unknown precision 'float16'"),
    ],
)
def test_bad_settings_are_refused_before_the_kernel(change: dict, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "compute_kernels", lambda *_, **__: pytest.fail("a kernel was computed"))
    with pytest.raises(InputError, match=words) as refusal:
        compare(case("bert"), **change)
    assert "\n" not in str(refusal.value)


def test_a_part_that_is_frozen_is_refused_before_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    of = case("bert")
    of.head.requires_grad_(False)
    monkeypatch.setattr(comparisons, "compute_kernels", lambda *_, **__: pytest.fail("a kernel was computed"))
    with pytest.raises(InputError, match="head has no trainable parameter"):
        compare(of, real=("all", "head"))


def test_labels_out_of_range_are_refused_before_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    of = case("bert")
    bad = split_of(of.evaluation, [0, 1, 3], "validation")
    monkeypatch.setattr(comparisons, "compute_kernels", lambda *_, **__: pytest.fail("a kernel was computed"))
    with pytest.raises(InputError, match="labels of eval run from 0 to 3"):
        compare_with_training(of.model, splits(of)[0], bad, progress=False)


def test_a_classifier_is_compared_as_its_model() -> None:
    of = case("bert", train=3, evaluation=3)
    train, evaluation = splits(of)
    of_classifier = compare_with_training(Classifier.of(of.model, train), train, evaluation, steps=2, progress=False)
    of_model = compare_with_training(of.model, train, evaluation, steps=2, progress=False)
    assert of_classifier.summary == of_model.summary
    pd.testing.assert_frame_equal(of_classifier.one_step, of_model.one_step, check_exact=True)
    pd.testing.assert_frame_equal(of_classifier.flow, of_model.flow, check_exact=True)
