"""Whatever is wrong in a model's folder, loading it says so in one line, at once, and allocates nothing for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import save_model, tokens_of
from torch import nn

from ntk_lpft.classifier import Classifier, load_classifier, load_tokenizer
from ntk_lpft.errors import InputError
from ntk_lpft.library_errors import told_as_bad_input

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "model")
    return tmp_path / "model"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path, head: str) -> None:
    load_tokenizer(folder)
    Classifier.of(load_classifier(folder, 3, head=head), [tokens_of("w1 w2 w3")])


def refused(folder: Path, says: str, head: str = "linear") -> None:
    with pytest.raises(InputError, match=says) as caught:
        load(folder, head)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 0}, "cannot load model"),
        ({"hidden_size": -1}, "cannot load model .*negative dimension"),
        ({"hidden_size": 2**40}, "cannot load model .*overflow"),
        ({"hidden_size": 2**30}, r"million parameters, which need [\d.]+ GiB in float32; [\d.]+ GiB are free"),
        ({"hidden_size": "16"}, "'hidden_size' expected int"),
        ({"vocab_size": 2**40}, r"GiB are free; take a smaller model"),
        ({"num_attention_heads": 0}, "cannot load model"),
        ({"num_hidden_layers": 100_000}, r"config.json asks for 100000 num_hidden_layers; models have from 1 to 2000"),
        ({"num_hidden_layers": -1}, r"asks for -1 num_hidden_layers"),
        ({"num_hidden_layers": 0}, r"asks for 0 num_hidden_layers"),
        ({"num_hidden_layers": 1}, r"has layers that its config.json leaves out, such as that of \S*layer\.1\."),
        ({"num_labels": 10**9}, "asks for 1000000000 labels"),
        ({"layer_norm_eps": "x"}, "'layer_norm_eps' expected float"),
        ({"model_type": "t5"}, "classifier_dropout"),
        ({"dtype": "foo"}, "no attribute 'foo'"),
        ({"id2label": []}, "'list' object"),
        ({"quantization_config": 5}, "'int' object"),
        ({"hidden_act": "foo"}, "KeyError: 'foo'"),
        ({"chunk_size_feed_forward": 3}, "the model's own code fails on .*chunk"),
        ({"hidden_dropout_prob": 2.0}, "dropout probability"),
    ],
)
def test_configs(folder: Path, head: str, changes: dict[str, Any], says: str) -> None:
    edit(folder / "config.json", **changes)
    refused(folder, says, head)


@pytest.mark.parametrize("content", ["[]", "null", "5", DEEP, '"x"', "{}}"])
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
def test_files_of_another_kind(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    refused(folder, r"cannot be read as JSON|holds no JSON object|cannot load a tokenizer for")


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("tokenizer_config.json", {"model_max_length": "x"}, "model_max_length is 'x', no number of tokens"),
        ("tokenizer_config.json", {"model_max_length": 0}, "model_max_length is 0"),
        ("tokenizer_config.json", {"tokenizer_class": 5}, "cannot load a tokenizer"),
        ("tokenizer_config.json", {"pad_token": 5}, "cannot load a tokenizer"),
        ("tokenizer.json", {"model": {"type": "Foo"}}, "cannot load a tokenizer"),
        ("tokenizer.json", {"added_tokens": 5}, "cannot load a tokenizer"),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}}, "Missing .*UNK"),
    ],
)
def test_tokenizers(folder: Path, name: str, changes: dict[str, Any], says: str) -> None:
    edit(folder / name, **changes)
    refused(folder, says)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": "x.bin"}, "names 'x.bin', no safetensors file in that folder"),
        ({"a": "../x.safetensors"}, "no safetensors file in that folder"),
        ({"a": "/x.safetensors"}, "no safetensors file in that folder"),
        ({"a": 5}, "names '5'"),
        ({"a": "other.safetensors"}, "names other.safetensors, which is not there"),
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
    ],
)
def test_indices_of_weights(folder: Path, files: object, says: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    refused(folder, says)


def test_numbers_of_classes(folder: Path) -> None:
    with pytest.raises(InputError, match="is to have 1000000000 classes; at most 1000000 are possible"):
        load_classifier(folder, 10**9)


def test_a_classifier_that_fails() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.config = type("Config", (), {"num_labels": 2})()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
            raise IndexError("index out of range in self")

    with pytest.raises(InputError, match=r"the model's own code fails on input_ids .*: IndexError: index out of range"):
        Classifier.of(Failing(), [{"input_ids": [1, 2]}])


def test_want_of_memory_is_no_bad_input() -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")):
        with pytest.raises(type(error)), told_as_bad_input("cannot load it"):
            raise error
    with (
        pytest.raises(InputError, match="cannot load it: KeyError: 'x'; try"),
        told_as_bad_input("cannot load it", "try"),
    ):
        raise KeyError("x")
