"""A classifier with a temperature, whatever its architecture: logits, loss, head, file."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from helpers.zoo import ZOO, ragged_rows

from ntk_lpft.calibration import TemperatureScaledClassifier, load_temperature, save_temperature
from ntk_lpft.classifier import find_head
from ntk_lpft.classifier.rows import collate
from ntk_lpft.errors import InputError

SOME = ("bert", "gpt2", "distilbert")


def batch(name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = ZOO[name].build().eval()
    return model, collate(ragged_rows(ZOO[name])[:3], ZOO[name].pad_id, torch.device("cpu")).tensors


@pytest.mark.parametrize("name", SOME)
def test_scaling_logits_is_scaling_the_head(name: str) -> None:
    model, tensors = batch(name)
    head = find_head(model, tensors)
    with torch.no_grad():
        plain = model(**tensors).logits
        wrapped = TemperatureScaledClassifier(model, 0.37)
        scaled = wrapped(**tensors).logits
        torch.testing.assert_close(scaled, plain / 0.37, rtol=0, atol=0)
        weight = head.module.weight.clone()
        assert wrapped.into_head(tensors).name == head.name
        torch.testing.assert_close(model(**tensors).logits, scaled, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(head.module.weight.norm(), weight.norm() / 0.37)
    assert wrapped.temperature == 1.0
    torch.testing.assert_close(wrapped(**tensors).logits, model(**tensors).logits)


def test_the_loss_is_that_of_the_scaled_logits() -> None:
    model, tensors = batch("bert")
    labels = torch.tensor([0, 2, 1])
    out = TemperatureScaledClassifier(model, 3.0)(**tensors, labels=labels)
    expected = torch.nn.functional.cross_entropy(model(**tensors).logits / 3, labels)
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert find_head(model, tensors).module.weight.grad is not None
    assert TemperatureScaledClassifier(model, 3.0)(**tensors).loss is None


def test_into_head_keeps_the_mode() -> None:
    model, tensors = batch("bert")
    wrapped = TemperatureScaledClassifier(model.train(), 2.0)
    wrapped.into_head(tensors)
    assert model.training
    assert wrapped.config is model.config


def test_a_temperature_survives_its_file(tmp_path: Path) -> None:
    model, tensors = batch("bert")
    wrapped = TemperatureScaledClassifier(model, 1.2345678901234567)
    path = wrapped.save(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "temperature.json"
    assert [found.name for found in path.parent.iterdir()] == ["temperature.json"]
    again = TemperatureScaledClassifier.load(model, path.parent)
    assert again.temperature == wrapped.temperature
    torch.testing.assert_close(again(**tensors).logits, wrapped(**tensors).logits, rtol=0, atol=0)
    save_temperature(path.parent, 2, note="α")
    assert load_temperature(path.parent) == 2.0
    assert json.loads(path.read_text(encoding="utf-8"))["note"] == "α"


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_no_temperature(temperature: float) -> None:
    with pytest.raises(InputError, match=f"temperature {temperature} is no positive number"):
        TemperatureScaledClassifier(torch.nn.Linear(2, 2), temperature)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist; calibrate the run first"),
        ("{", "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
        ("[1.5]", "holds no JSON object"),
        ("{}", "holds no temperature of one classifier"),
        ('{"runs": [{"temperature": 1.5}]}', "holds no temperature of one classifier"),
        ('{"temperature": "1.5"}', "holds no temperature of one classifier"),
        ('{"temperature": true}', "holds no temperature of one classifier"),
        ('{"temperature": -1.5}', "temperature -1.5 is no positive number"),
        ('{"temperature": NaN}', "temperature nan is no positive number"),
    ],
)
def test_bad_files(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "temperature.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=words):
        load_temperature(tmp_path)


@pytest.mark.parametrize("name", SOME)
def test_a_loaded_temperature_equals_a_head_rescaled_by_hand(name: str, tmp_path: Path) -> None:
    model, tensors = batch(name)
    TemperatureScaledClassifier(model, 1.7).save(tmp_path)
    loaded = TemperatureScaledClassifier.load(model, tmp_path)
    by_hand = copy.deepcopy(model)
    head = find_head(by_hand, tensors).module
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            if parameter is not None:
                parameter.copy_(parameter / 1.7)
        torch.testing.assert_close(loaded(**tensors).logits, by_hand(**tensors).logits, rtol=1e-9, atol=1e-11)
        assert not torch.allclose(by_hand(**tensors).logits, model(**tensors).logits)
