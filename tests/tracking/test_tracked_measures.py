"""One moment of a classifier, against a referee that looks at one sample at a time."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.tracking_cases import classifier, classifier_of, naive_features, naive_moment, probe_set, split_of
from helpers.zoo import ZOO, ragged_rows
from torch import nn

from ntk_lpft.classifier import apply_lora
from ntk_lpft.errors import InputError
from ntk_lpft.runs.tracking_log import Measurement
from ntk_lpft.tracking.measures import ProbeSet, gradient_norms, measure_classifier, probe_features


def native(name: str) -> Callable[[], nn.Module]:
    return lambda: ZOO[name].build().train()


def adapted() -> nn.Module:
    model = classifier()
    wrapped = apply_lora(model, classifier_of(model).head, rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return wrapped


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "linear head": (classifier, "bert"),
    "lora around a linear head": (adapted, "bert"),
    "roberta": (native("roberta"), "roberta"),
    "gpt2, whose head has no bias": (native("gpt2"), "gpt2"),
}


def values(measurements: list[Measurement]) -> dict[tuple[str, str], float]:
    assert len({(split, measure) for split, measure, _ in measurements}) == len(measurements)
    return {(split, measure): value for split, measure, value in measurements}


def moved(model: nn.Module) -> None:
    """Change the trainable weights a little, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@pytest.mark.parametrize("case", CASES)
def test_a_moment_by_the_referee(case: str) -> None:
    build, entry = CASES[case]
    model, probe = build(), probe_set(entry)
    own = classifier_of(model, probe)
    reference = probe_features(own, probe)
    moved(model)
    measured = values(measure_classifier(own, probe, reference))

    judged = build().eval()
    head = judged.get_submodule(own.head.name)
    before = {name: naive_features(judged, head, split)[0] for name, split in probe.splits.items()}
    moved(judged)
    expected = naive_moment(judged, head, probe, before)
    assert measured.keys() == expected.keys()
    for key, value in expected.items():
        # The referee's scatter matrices are squares, of which the pseudo-inverse has but half of the digits.
        tolerance = 1e-4 if key[1] == "fisher_discriminant_ratio" else 1e-7
        assert measured[key] == pytest.approx(value, rel=tolerance, abs=1e-12), key
    assert measured["train", "gradient_norm.body"] > 0.01
    assert measured["train", "feature_difference"] > 0.01


def test_of_an_adapted_model_the_trained_copy_counts() -> None:
    model, probe = adapted(), probe_set()
    own = classifier_of(model, probe)
    head = own.head
    assert head.name.endswith("modules_to_save.default")
    measured = values(measure_classifier(own, probe, probe_features(own, probe)))
    frozen = model.get_submodule(head.name.replace("modules_to_save.default", "original_module"))
    assert measured["all", "head_norm"] == pytest.approx(float(head.module.weight.detach().norm()), rel=1e-12)
    assert abs(measured["all", "head_norm"] - float(frozen.weight.detach().norm())) > 1e-3
    # The body's gradient is that of the adapters.
    adapters = [p for name, p in model.named_parameters() if "lora_" in name]
    for p in adapters:
        p.requires_grad_(False)
    assert gradient_norms(own, probe.splits["train"])[1] == 0


def test_nothing_is_trained() -> None:
    model, probe = classifier(), probe_set()
    own = classifier_of(model, probe)
    both = gradient_norms(own, probe.splits["train"])
    model.body.requires_grad_(False)
    assert gradient_norms(own, probe.splits["train"]) == (pytest.approx(both[0]), 0)
    model.requires_grad_(False)
    assert gradient_norms(own, probe.splits["train"]) == (0, 0)


@pytest.mark.unchecked  # the checks themselves draw from Python's generator
def test_neither_model_nor_gradients_nor_generators_are_touched() -> None:
    model, probe = classifier().train(), probe_set()
    model.body.embeddings.eval()  # a mode of its own
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.body.embeddings.word_embeddings.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objects = [id(p) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())

    own = classifier_of(model, probe)
    measured = measure_classifier(own, probe, probe_features(own, probe))

    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [id(p) for p in model.parameters()] == objects
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    with torch.no_grad():
        assert measure_classifier(own, probe, probe_features(own, probe)) == measured


def test_batches_do_not_matter() -> None:
    """More rows than fit in one batch of either kind."""
    model = classifier()
    rows = ragged_rows(ZOO["bert"], n=640)
    probe = ProbeSet({"train": split_of(rows, "train")})
    own = classifier_of(model, probe)
    assert sum(len(row["input_ids"]) for row in rows) > 4096 // 2
    once = gradient_norms(own, ProbeSet({"train": split_of(rows[:15], "train")}).splits["train"])
    many = gradient_norms(own, split_of([row for row in rows[:15] for _ in range(30)], "train"))
    labels_shuffle = split_of(rows[:15] * 30, "train")  # the same rows with the same labels, thirty times
    assert gradient_norms(own, labels_shuffle) == (
        pytest.approx(once[0], rel=1e-9),
        pytest.approx(once[1], rel=1e-9),
    )
    assert many != pytest.approx(once, rel=1e-3)


@pytest.mark.parametrize("broken", ["a weight of the body", "a weight of the head", "overflow"])
def test_a_diverged_model_is_measured_as_nan(broken: str) -> None:
    model, probe = classifier(dtype=torch.float32), probe_set()
    own = classifier_of(model, probe)
    reference = probe_features(own, probe)
    keys = [row[:2] for row in measure_classifier(own, probe, reference)]
    with torch.no_grad():
        if broken == "overflow":  # finite weights, infinite logits
            model.classifier.weight.fill_(3e38)
        elif broken == "a weight of the head":
            model.classifier.weight[1, 2] = math.inf
        else:
            model.body.encoder.layer[0].output.dense.bias[0] = math.nan
    rows = measure_classifier(own, probe, reference)
    assert [row[:2] for row in rows] == keys
    measured = values(rows)
    for name in probe.splits:
        for measure in ("accuracy", "loss", "ece", "residual_norm"):
            assert math.isnan(measured[name, measure])
        assert math.isnan(measured[name, "feature_norm"]) == (broken != "overflow")
    assert math.isnan(measured["train", "gradient_norm.body"])
    assert math.isfinite(measured["all", "head_norm.class_1"]) == (broken != "a weight of the head")
    assert math.isfinite(measured["all", "head_norm.class_0"])


def test_bfloat16_weights_are_measured_in_float32() -> None:
    model, probe = classifier(dtype=torch.bfloat16), probe_set()
    wide = copy.deepcopy(model).float()
    own, expected = (classifier_of(one, probe) for one in (model, wide))
    measured = measure_classifier(own, probe, probe_features(own, probe))
    assert measured == measure_classifier(expected, probe, probe_features(expected, probe))
    assert next(model.parameters()).dtype == torch.bfloat16


def test_probe_sets_that_are_refused() -> None:
    train = probe_set().splits["train"]
    with pytest.raises(InputError, match="splits validation; give train"):
        ProbeSet({"validation": train})
    with pytest.raises(InputError, match="none called all"):
        ProbeSet({"train": train, "all": train})
    with pytest.raises(InputError, match=r"split ood\.x has no rows"):
        ProbeSet({"train": train, "ood.x": split_of([], "x")})


def test_reference_features_that_do_not_fit() -> None:
    own, probe = classifier_of(classifier()), probe_set()
    reference = probe_features(own, probe)
    with pytest.raises(InputError, match="0 reference features for the 5 probe samples of validation"):
        measure_classifier(own, probe, {"train": reference["train"]})
    reference["validation"] = reference["validation"][:3]
    with pytest.raises(InputError, match="3 reference features for the 5 probe samples of validation"):
        measure_classifier(own, probe, reference)
