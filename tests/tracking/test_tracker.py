"""Real runs with the tracker: what it records, that it changes nothing, and runs that break off and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tracking_cases import (
    Photographer,
    Stop,
    classifier,
    classifier_of,
    naive_features,
    naive_moment,
    probe_set,
    split_of,
    train,
    train_split,
)
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ntk_lpft.classifier import apply_lora
from ntk_lpft.errors import InputError
from ntk_lpft.runs import TrackingLog, read_tracking
from ntk_lpft.tracking.kernels import MEASURES
from ntk_lpft.tracking.measures import measure_classifier, probe_features
from ntk_lpft.tracking.tracker import Tracker

PROBE = probe_set()


def tracker(model: nn.Module, folder: Path, resume_step: int | None = None, **options: Any) -> Tracker:
    return Tracker(model, PROBE, TrackingLog(folder / "tracking.csv", resume_step), **options)


def recorded(folder: Path) -> dict[int, dict[tuple[str, str], float]]:
    """Values by step, then by split and measure."""
    moments: dict[int, dict[tuple[str, str], float]] = {}
    for row in read_tracking(folder / "tracking.csv").itertuples():
        moment = moments.setdefault(row.step, {})
        assert (row.split, row.measure) not in moment
        moment[row.split, row.measure] = row.value
    return moments


def lora(seed: int = 0) -> nn.Module:
    model = classifier(seed)
    return apply_lora(model, classifier_of(model, PROBE).head, rank=2)


@pytest.mark.parametrize("build", [classifier, lora])
def test_a_run_by_the_referee(build: Any, tmp_path: Path) -> None:
    """Four steps an epoch: every moment equals what a saved copy says, sample by sample."""
    model, photographer = build(), Photographer()
    own = tracker(model, tmp_path)
    name = own.classifier.head.name
    train(model, tmp_path, [photographer, own], num_train_epochs=1.5)
    moments = recorded(tmp_path)
    assert list(moments) == [0, 1, 2, 4, 6]
    epochs = read_tracking(tmp_path / "tracking.csv").groupby("step")["epoch"].unique()
    assert {step: list(values) for step, values in epochs.items()} == {
        step: [photographer.epochs[step]] for step in moments
    }
    assert [photographer.epochs[step] for step in (0, 1, 4, 6)] == [0, 0.25, 1, 1.5]

    judged = build().eval()
    head = judged.get_submodule(name)
    pretrained = {split: naive_features(judged, head, rows)[0] for split, rows in PROBE.splits.items()}
    for step, values in moments.items():
        judged.load_state_dict(photographer.weights[step])
        expected = naive_moment(judged, head, PROBE, pretrained)
        assert values.keys() == expected.keys()
        for key, value in expected.items():
            tolerance = 1e-4 if key[1] == "fisher_discriminant_ratio" else 1e-7
            assert values[key] == pytest.approx(value, rel=tolerance, abs=1e-9), (step, key)
    assert moments[0]["train", "feature_difference"] == 0
    assert moments[6]["train", "feature_difference"] > 0.01


def test_training_is_the_same_without_a_tracker(tmp_path: Path) -> None:
    """To the bit, though there is dropout in every layer."""
    weights = []
    for kind in ("with", "without"):
        model, photographer, folder = classifier(dtype=torch.float32), Photographer(), tmp_path / kind
        kernels = {"kernel_moments": 2, "kernel_probe": train_split(5)}
        callbacks = [photographer, tracker(model, folder, **kernels)] if kind == "with" else [photographer]
        train(model, folder, callbacks, max_steps=5)
        weights.append(photographer.weights)
    assert weights[0].keys() == weights[1].keys() == set(range(6))
    for step, after in weights[0].items():
        assert all(torch.equal(value, weights[1][step][name]) for name, value in after.items())
    start, end = weights[0][0], weights[0][5]
    assert any(not torch.equal(value, end[name]) for name, value in start.items())


def test_dropout_is_at_work_in_these_runs(tmp_path: Path) -> None:
    """Else the test above would prove nothing of the generators."""
    ends = []
    for seed in (0, 1):
        model = classifier(dtype=torch.float32)
        train(model, tmp_path / str(seed), [], max_steps=1, seed=seed, data_seed=0)
        ends.append(model.classifier.weight.detach().clone())
    assert not torch.equal(*ends)


def test_kernels_at_their_moments(tmp_path: Path) -> None:
    model = classifier(dtype=torch.float32)
    train(model, tmp_path, [tracker(model, tmp_path, kernel_moments=4, kernel_probe=train_split(6))])
    moments = recorded(tmp_path)
    # Thirds of eight steps, rounded, are moments of their own.
    assert list(moments) == [0, 1, 2, 3, 4, 5, 8]
    with_kernels = {step for step, values in moments.items() if ("train", MEASURES[0]) in values}
    assert with_kernels == {0, 3, 5, 8}
    for step in with_kernels:
        assert all(("train", measure) in moments[step] for measure in MEASURES)
    distances = [moments[step]["train", "kernel.F.distance"] for step in (0, 3, 8)]
    assert distances[0] == 0 < distances[1] < 10
    assert distances[2] > 0


def test_reference_features_may_be_given(tmp_path: Path) -> None:
    model = classifier()
    given = probe_features(classifier_of(classifier(seed=5)), PROBE)
    train(model, tmp_path, [tracker(model, tmp_path, reference=given)], max_steps=1)
    measured = {row[:2]: row.value for row in measure_classifier(classifier_of(model, PROBE), PROBE, given)}
    assert recorded(tmp_path)[1] == pytest.approx(measured, rel=1e-12)


def test_accumulated_gradients_make_longer_steps(tmp_path: Path) -> None:
    model = classifier(dtype=torch.float32)
    train(model, tmp_path, [tracker(model, tmp_path)], num_train_epochs=3, gradient_accumulation_steps=3)
    assert list(recorded(tmp_path)) == [0, 1, 2, 4, 6]  # two steps an epoch


def test_an_epoch_that_is_broken_off_is_measured(tmp_path: Path) -> None:
    """And measured again where training goes on from there, though no moment is planned at that step."""

    class BreakOff(TrainerCallback):
        def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 3

    model = classifier(dtype=torch.float32)
    train(model, tmp_path, [tracker(model, tmp_path), BreakOff()], save_strategy="epoch")
    before = recorded(tmp_path)
    assert list(before) == [0, 1, 2, 3]
    model = classifier(dtype=torch.float32)
    train(model, tmp_path, [tracker(model, tmp_path, 3)], resume=str(tmp_path / "checkpoints" / "checkpoint-3"))
    after = recorded(tmp_path)
    assert list(after) == [0, 1, 2, 3, 4, 8]
    assert after[3] == before[3]


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_a_moment_is_recorded_before_its_checkpoint(strategy: str, tmp_path: Path) -> None:
    model, photographer = classifier(dtype=torch.float32), Photographer(tmp_path / "tracking.csv")
    train(model, tmp_path, [tracker(model, tmp_path), photographer], save_strategy=strategy, save_steps=2)
    assert list(photographer.at_save) == ([2, 4, 6, 8] if strategy == "steps" else [4, 8])
    for step in set(photographer.at_save) - {6}:
        assert f"\n{step}," in photographer.at_save[step]


# Broken off: before any checkpoint, behind the first (of step 3, which is no moment), and behind one that is a moment.
@pytest.mark.parametrize(("save_steps", "stop", "checkpoint"), [(5, 4, None), (3, 5, 3), (4, 8, 4)])
def test_a_run_that_breaks_off_and_goes_on_leaves_the_same_log(
    save_steps: int, stop: int, checkpoint: int | None, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": save_steps}
    # Kernels at steps 0 and 8 in one case; they take longest.
    kernels: dict[str, Any] = {"kernel_moments": 2, "kernel_probe": train_split(5)} if checkpoint == 4 else {}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = classifier(dtype=torch.float32)
    train(model, whole, [tracker(model, whole, **kernels)], **options)

    model = classifier(dtype=torch.float32)
    with pytest.raises(KeyboardInterrupt):
        train(model, broken, [tracker(model, broken, **kernels), Stop(stop)], **options)
    with (broken / "tracking.csv").open("a") as file:
        file.write("7,1.75,train,lo")
    assert max(recorded(broken)) > (checkpoint or 0)

    model = classifier(dtype=torch.float32)
    again = tracker(model, broken, checkpoint or 0, **kernels)
    saved = None if checkpoint is None else str(broken / "checkpoints" / f"checkpoint-{checkpoint}")
    train(model, broken, [again], resume=saved, **options)
    assert (broken / "tracking.csv").read_bytes() == (whole / "tracking.csv").read_bytes()
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}
    for name in (path.name for path in whole.glob("*.safetensors")):
        one, other = (load_file(folder / name) for folder in (whole, broken))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_mixed_precision_is_measured_without_it(tmp_path: Path) -> None:
    model, photographer = classifier(dtype=torch.float32), Photographer()
    own = tracker(model, tmp_path)
    train(model, tmp_path, [photographer, own], num_train_epochs=1, bf16=True)
    plain = classifier(dtype=torch.float32)
    plain.load_state_dict(photographer.weights[4])
    expected = {row[:2]: row.value for row in measure_classifier(classifier_of(plain), PROBE, own.reference)}
    assert recorded(tmp_path)[4] == expected


def test_a_run_that_diverges_is_recorded_until_it_stops(tmp_path: Path) -> None:
    class Break(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
            if state.global_step == 1:
                kwargs["model"].classifier.weight.data[0, 0] = float("nan")

    model = classifier(dtype=torch.float32)
    with pytest.raises(InputError, match="the loss is nan"):
        train(model, tmp_path, [tracker(model, tmp_path), Break()])
    moments = recorded(tmp_path)
    assert list(moments) == [0, 1, 2]
    assert np.isfinite(list(moments[1].values())).all()
    assert np.isnan(moments[2]["train", "loss"])
    assert moments[2].keys() == moments[0].keys()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    own = tracker(classifier(dtype=torch.float32), tmp_path)
    arguments = TrainingArguments(output_dir=str(tmp_path / "checkpoints"), use_cpu=True, report_to="none")
    own.on_epoch_end(arguments, TrainerState(global_step=3, is_world_process_zero=False), TrainerControl())
    assert len(read_tracking(tmp_path / "tracking.csv")) == 0


def test_a_new_run_does_not_take_features_that_lie_there(tmp_path: Path) -> None:
    tracker(classifier(seed=5), tmp_path)
    model = classifier()
    own = tracker(model, tmp_path)
    for name, features in probe_features(classifier_of(model), PROBE).items():
        assert torch.equal(own.reference[name], features)


def test_what_is_refused(tmp_path: Path) -> None:
    model = classifier(dtype=torch.float32)
    with pytest.raises(InputError, match="at 2 moments were asked for, but no samples"):
        tracker(model, tmp_path, kernel_moments=2)
    with pytest.raises(InputError, match="at -1 moments"):
        tracker(model, tmp_path, kernel_moments=-1)
    with pytest.raises(InputError, match=r"reference features of train have shape \(7, 2\); expected \(7, 20\)"):
        tracker(model, tmp_path, reference={"train": torch.zeros(7, 2)})
    with pytest.raises(InputError, match="reference features of validation have shape None"):
        tracker(model, tmp_path, reference={"train": torch.zeros(7, 20)})
    five = split_of(PROBE.splits["train"].rows, "train", shift=0)
    object.__setattr__(five, "labels", five.labels + 1)
    with pytest.raises(InputError, match="the kernels' samples: a label lies outside 0…2; the model has 3 classes"):
        tracker(model, tmp_path, kernel_moments=1, kernel_probe=five)

    train(model, tmp_path, [tracker(model, tmp_path)], max_steps=1)
    (tmp_path / "reference_features.safetensors").rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"reference_features\.safetensors: no such file"):
        tracker(model, tmp_path, 1)
    (tmp_path / "away").rename(tmp_path / "reference_features.safetensors")
    with pytest.raises(InputError, match=r"tracked_kernel\.safetensors: no such file"):
        tracker(model, tmp_path, 1, kernel_moments=1, kernel_probe=train_split(5))
    PROBE_OF_OTHERS = type(PROBE)({**PROBE.splits, "validation": train_split(5)})
    with pytest.raises(InputError, match="no features of this run's probe set"):
        Tracker(model, PROBE_OF_OTHERS, TrackingLog(tmp_path / "tracking.csv", 1))
