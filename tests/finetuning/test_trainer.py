"""Training of classifiers against plain PyTorch loops, and what it keeps and leaves on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bit_flips import restored
from helpers.probe_samples import drawn_split, split_of
from helpers.zoo import ZOO, ragged_rows
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from ntk_lpft.classifier import Classifier, LinearHeadClassifier
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.checkpoint import last_checkpoint
from ntk_lpft.finetuning.defaults import training_defaults
from ntk_lpft.finetuning.trainer import ClassifierTrainer, labelled_rows, padded_batch, score
from ntk_lpft.tasks import EncodedSplit

Weights = dict[str, Tensor]
ROWS = drawn_split(13)
VALIDATION = drawn_split(9, seed=5, name="validation")
PICKLES = {".bin", ".pt", ".pth", ".pkl"}


def classifier(dropout: float = 0.0) -> LinearHeadClassifier:
    """Put a linear head on the zoo's BERT in float32."""
    body = ZOO["bert"].build(dtype=torch.float32).base_model
    body.pooler = None  # not between body and head
    for module in body.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    torch.manual_seed(0)
    model = LinearHeadClassifier(body, 3, "first", dropout)
    # Attention drops by its own number.
    for layer in body.encoder.layer:
        layer.attention.self.dropout.p = dropout
    return model.train()


def settings(folder: Path, **given: Any) -> TrainingArguments:
    chosen = {**training_defaults("ft", "mine"), "output_dir": str(folder), "use_cpu": True, "disable_tqdm": True,
              "remove_unused_columns": False, "label_names": ["labels"], "learning_rate": 0.01,
              "num_train_epochs": 3, **given}  # fmt: skip
    return TrainingArguments(**chosen)


def trainer_of(
    model: nn.Module,
    arguments: TrainingArguments,
    *,
    train: EncodedSplit = ROWS,
    validation: EncodedSplit = VALIDATION,
    metric: str = "accuracy",
    callbacks: Sequence[TrainerCallback] = (),
) -> ClassifierTrainer:
    found = Classifier.of(model, train)
    return ClassifierTrainer(found, arguments, train, validation, metric=metric, callbacks=callbacks)


def trainable_weights(model: nn.Module) -> Weights:
    """Copy the parameters that training changes."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class AtEach(TrainerCallback):
    """Calls something at a moment of training."""

    def __init__(self, moment: str, call: Callable[[Any, nn.Module], None]) -> None:
        def run(args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
            call(state, model)

        setattr(self, moment, run)


def logits_one_by_one(model: nn.Module, split: EncodedSplit) -> Tensor:
    return torch.cat([model(**{name: torch.tensor([ids]) for name, ids in row.items()}).logits for row in split])


def assert_close(one: Weights, two: Weights, tolerance: float = 2e-5) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def assert_identical(one: Weights, two: Weights) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_full_batches_follow_a_plain_loop(tmp_path: Path, optimizer: str, smoothing: float) -> None:
    rate = 0.02 if optimizer == "sgd" else 0.003
    trained, expected = classifier(), classifier()
    trainer_of(
        trained,
        settings(tmp_path, optim=optimizer, learning_rate=rate, per_device_train_batch_size=len(ROWS),
                 label_smoothing_factor=smoothing, load_best_model_at_end=False, adam_epsilon=1e-2),
    ).train()  # fmt: skip
    plain: torch.optim.Optimizer = torch.optim.SGD(expected.parameters(), lr=rate)
    if optimizer != "sgd":
        # A key's bias has no gradient but rounding, which a small ε would make as large as any.
        plain = torch.optim.AdamW(expected.parameters(), lr=rate, weight_decay=0.0, eps=1e-2)
    target = torch.eye(3)[torch.tensor(ROWS.labels)] * (1 - smoothing) + smoothing / 3
    for step in range(3):
        for group in plain.param_groups:
            group["lr"] = rate * (1 - step / 3)  # a linear decay to zero
        plain.zero_grad()
        loss = -(target * torch.log_softmax(logits_one_by_one(expected, ROWS), 1)).sum(1).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        plain.step()
    assert_close(trainable_weights(trained), trainable_weights(expected))
    before, after = trainable_weights(classifier()), trainable_weights(trained)
    assert max(float((before[name] - after[name]).abs().max()) for name in before) > 1e-3


def test_accumulated_batches_are_one_batch_however_uneven_the_last(tmp_path: Path) -> None:
    def train(**given: Any) -> Weights:
        model = classifier()
        more = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "load_best_model_at_end": False}
        trainer_of(model, settings(tmp_path, **more, **given)).train()
        return trainable_weights(model)

    whole = train(per_device_train_batch_size=8)  # of 13 rows: 8 and 5
    assert_close(whole, train(per_device_train_batch_size=4, gradient_accumulation_steps=2), 1e-5)
    assert_close(whole, train(per_device_train_batch_size=2, gradient_accumulation_steps=4), 1e-5)
    other = train(per_device_train_batch_size=4)
    assert max(float((whole[name] - other[name]).abs().max()) for name in whole) > 1e-3


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Weights, Tensor]]:
    """Weights after each of four epochs, with their logits on the validation rows."""
    found: list[tuple[Weights, Tensor]] = []

    def note(_: Any, model: nn.Module) -> None:
        model.eval()
        with torch.no_grad():
            found.append((trainable_weights(model), logits_one_by_one(model, VALIDATION)))
        model.train()

    arguments = settings(tmp_path_factory.mktemp("history"), num_train_epochs=4, load_best_model_at_end=False)
    trainer_of(classifier(), arguments, callbacks=[AtEach("on_epoch_end", note)]).train()
    return found


def relabelled(labels: Tensor) -> EncodedSplit:
    return EncodedSplit(VALIDATION.rows, labels.numpy(), VALIDATION.indices, "other", 0, 20, "validation")


@pytest.mark.parametrize("best", [0, 1, 2, 3])
def test_the_best_epoch_is_kept(tmp_path: Path, history: list[tuple[Weights, Tensor]], best: int) -> None:
    # Validation does not influence training, so labels that one epoch predicts make it the best.
    validation = relabelled(history[best][1].argmax(1))
    scores = [float((logits.argmax(1) == torch.tensor(validation.labels)).double().mean()) for _, logits in history]
    first = scores.index(1.0)
    model = classifier()
    trainer = trainer_of(model, settings(tmp_path, num_train_epochs=4), validation=validation)
    trainer.train()
    assert_identical(trainable_weights(model), history[first][0])
    assert trainer.state.best_metric == 1.0
    assert trainer.state.best_global_step == first + 1
    measured = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert measured == pytest.approx(scores)


def test_the_lowest_loss_is_the_best_where_it_is_asked_for(
    tmp_path: Path, history: list[tuple[Weights, Tensor]]
) -> None:
    labels = history[1][1].argmax(1)
    losses = [float(nn.functional.cross_entropy(logits, labels)) for _, logits in history]
    assert losses.index(min(losses)) < 3
    model = classifier()
    arguments = settings(tmp_path, num_train_epochs=4, metric_for_best_model="eval_loss")
    trainer = trainer_of(model, arguments, validation=relabelled(labels))
    trainer.train()
    assert trainer.state.best_metric == pytest.approx(min(losses), rel=1e-5)
    assert_identical(trainable_weights(model), history[losses.index(min(losses))][0])


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_training_goes_on_from_a_checkpoint_bit_by_bit(tmp_path: Path, stop: int) -> None:
    """Dropout, an order drawn anew each epoch, and checkpoints within epochs."""
    common = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2,
              "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1,
              "load_best_model_at_end": False}  # fmt: skip

    whole = classifier(dropout=0.3)
    trainer_of(whole, settings(tmp_path / "whole", **common)).train()
    model = classifier(dropout=0.3)
    broken = trainer_of(model, settings(tmp_path / "b", **common), callbacks=[crash_at(stop)])
    with pytest.raises(Crash):
        broken.train()
    checkpoint = last_checkpoint(tmp_path / "b")
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{stop - 1}"
    again = classifier(dropout=0.3)
    trainer_of(again, settings(tmp_path / "b", **common)).train(resume_from_checkpoint=str(checkpoint))
    assert_identical(trainable_weights(again), trainable_weights(whole))
    plain = classifier()
    trainer_of(plain, settings(tmp_path / "plain", **common)).train()
    assert not torch.equal(plain.classifier.weight, whole.classifier.weight)  # dropout did something


class Crash(Exception):
    """What breaks a run off."""


def crash_at(step: int) -> AtEach:
    def crash(state: Any, _: nn.Module) -> None:
        if state.global_step == step:
            raise Crash

    return AtEach("on_step_end", crash)


def test_a_run_that_was_moved_ends_with_its_best_epoch(tmp_path: Path) -> None:
    """It may be one of before the move, whose checkpoint's old path is written down and leads nowhere."""
    # The worst loss is as good a measure as any, and is that of the first epoch.
    common = {"num_train_epochs": 4, "optim": "sgd", "metric_for_best_model": "loss", "greater_is_better": True,
              "save_total_limit": 1}  # fmt: skip
    whole = classifier()
    trainer = trainer_of(whole, settings(tmp_path / "whole", **common))
    trainer.train()
    best = trainer.state.best_global_step
    last = trainer.state.max_steps
    assert best < last - 1
    with pytest.raises(Crash):
        trainer_of(classifier(), settings(tmp_path / "a", **common), callbacks=[crash_at(last)]).train()
    (tmp_path / "a").rename(tmp_path / "b")
    found = last_checkpoint(tmp_path / "b")
    assert found is not None
    assert {path.name for path in (tmp_path / "b").iterdir()} == {found.name, f"checkpoint-{best}"}
    model = classifier()
    trainer_of(model, settings(tmp_path / "b", **common)).train(resume_from_checkpoint=str(found))
    assert_identical(trainable_weights(model), trainable_weights(whole))


def test_a_checkpoint_that_was_altered_is_not_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        trainer_of(classifier(), settings(tmp_path), callbacks=[crash_at(3)]).train()
    found = last_checkpoint(tmp_path)
    assert found is not None
    names = {path.name for path in found.iterdir()}
    assert names == {"checksums.json", "optimizer.safetensors", "random-0.safetensors", "schedule.safetensors",
                     "trainer_state.json", "weights.safetensors"}  # fmt: skip
    for name in sorted(names):
        with restored(found / name) as content:
            (found / name).unlink()
            with pytest.raises(InputError, match=rf"{name} (is gone|does not exist)"):
                trainer_of(classifier(), settings(tmp_path)).train(resume_from_checkpoint=str(found))
            (found / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(InputError, match=r"altered|damaged|cannot be read as JSON"):
                trainer_of(classifier(), settings(tmp_path)).train(resume_from_checkpoint=str(found))


def test_nothing_is_pickled_and_nothing_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was pickled")

    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    seen: set[str] = set()

    def look(_: Any, __: nn.Module) -> None:
        seen.update(path.suffix for path in tmp_path.rglob("*") if path.is_file())

    arguments = settings(tmp_path, num_train_epochs=2)
    trainer_of(classifier(), arguments, callbacks=[AtEach("on_save", look)]).train()
    assert seen == {".safetensors", ".json"}
    trainer_of(classifier(), settings(tmp_path, num_train_epochs=3)).train(
        resume_from_checkpoint=str(last_checkpoint(tmp_path))
    )
    assert not PICKLES & {path.suffix for path in tmp_path.rglob("*")}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("how", ["rate", "weights"])
def test_training_stops_where_the_loss_is_not_finite(tmp_path: Path, how: str) -> None:
    model = classifier()
    rate = 1e30 if how == "rate" else 0.01
    trainer = trainer_of(model, settings(tmp_path / "checkpoints", learning_rate=rate, max_grad_norm=0.0, optim="sgd"))
    if how == "weights":
        with torch.no_grad():
            model.classifier.weight.fill_(math.inf)
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+; lower --learning-rate"):
        trainer.train()
    assert trainer.state.global_step == {"rate": 1, "weights": 0}[how]


def test_native_heads_of_encoder_decoders_are_evaluated(tmp_path: Path) -> None:
    entry = ZOO["t5"]
    model = entry.build(dtype=torch.float32)
    split = split_of(ragged_rows(entry, n=6))
    found = trainer_of(model, settings(tmp_path), train=split, validation=split).evaluate()
    model.eval()
    with torch.no_grad():
        logits = logits_one_by_one(model, split)
    labels = torch.tensor(split.labels)
    assert found["eval_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert found["eval_loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_models_that_know_no_padding_are_trained_on_single_rows_alone(tmp_path: Path) -> None:
    entry = ZOO["gpt2"]
    model = entry.build(dtype=torch.float32)
    model.config.pad_token_id = None
    split = split_of(ragged_rows(entry, n=5))
    with pytest.raises(InputError, match=r"knows no padding token.* --per-device-train-batch-size 1 --per-device-eval"):
        trainer_of(model, settings(tmp_path), train=split, validation=split)
    alone = settings(tmp_path, per_device_train_batch_size=1, per_device_eval_batch_size=1, num_train_epochs=1)
    trainer = trainer_of(model, alone, train=split, validation=split)
    trainer.train()
    assert trainer.state.global_step == 5
    with torch.no_grad():
        logits = logits_one_by_one(model.eval(), split)
    expected = float(nn.functional.cross_entropy(logits, torch.tensor(split.labels)))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_matthews_correlation_comes_beside_accuracy(tmp_path: Path) -> None:
    arguments = settings(tmp_path, metric_for_best_model="eval_matthews")
    found = trainer_of(classifier(), arguments, metric="matthews").evaluate()
    assert {"eval_matthews", "eval_accuracy"} <= set(found)


def test_matthews_correlation() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0, 1])
    tp, tn, fp, fn = 3, 2, 1, 1
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert score("matthews", labels, predicted) == pytest.approx(expected)
    assert score("accuracy", labels, predicted) == pytest.approx(5 / 7)
    assert score("matthews", labels, np.ones(7, int)) == 0.0


def test_batches_are_padded_to_their_longest_row() -> None:
    split = split_of(ragged_rows(ZOO["bert"], n=4))
    rows = labelled_rows(split)
    batch = padded_batch([rows[i] for i in (2, 0)], pad_id=7)
    lengths = [len(split[i]["input_ids"]) for i in (2, 0)]
    assert batch["input_ids"].shape == (2, max(lengths))
    assert batch["labels"].tolist() == [int(split.labels[2]), int(split.labels[0])]
    for k, i in enumerate((2, 0)):
        assert batch["input_ids"][k, : lengths[k]].tolist() == split[i]["input_ids"]
        assert (batch["input_ids"][k, lengths[k] :] == 7).all()
        assert batch["attention_mask"][k].tolist() == [1] * lengths[k] + [0] * (max(lengths) - lengths[k])
        assert batch["token_type_ids"][k, : lengths[k]].tolist() == split[i]["token_type_ids"]
