"""Saved classifiers load elsewhere: in plain transformers and peft, and here with their head."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from helpers.small import save_model, tokenizer
from helpers.zoo import ZOO, padded, ragged_rows
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from ntk_lpft.classifier import apply_lora, load_classifier
from ntk_lpft.classifier.head import find_head, logits_of
from ntk_lpft.classifier.saving import save_classifier, saved_head
from ntk_lpft.errors import InputError
from ntk_lpft.model_sources import run_model_folder
from ntk_lpft.runs import FinetuneRun

NAMES = ("bad", "good", "so-so")
TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"], "roberta": ["query"]}


def loaded(folder: Path, name: str, head: str) -> nn.Module:
    """Load one of the zoo's bodies, saved before, with a head of its own."""
    if not (folder / "config.json").exists():
        save_model(folder, name, with_tokenizer=False)
    model = load_classifier(folder, 3, head=head, seed=3)
    model.config.pad_token_id = ZOO[name].pad_id
    return model


def batch(name: str, side: str = "right") -> dict[str, Tensor]:
    return padded(ragged_rows(ZOO[name], n=5), pad_id=ZOO[name].pad_id, side=side)


def logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    model.eval()
    with torch.no_grad():
        return logits_of(model, inputs)


def plain_logits(body: nn.Module, head: Mapping[str, Tensor], inputs: Mapping[str, Tensor], place: str) -> Tensor:
    """V φ + b by hand, φ the state of the first or last token that is no padding."""
    body.eval()
    mask = inputs["attention_mask"]
    given = dict(inputs)
    if place == "last":
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)  # wherever the padding stands
    with torch.no_grad():
        states = body(**given).last_hidden_state
    columns = [torch.nonzero(row).flatten()[0 if place == "first" else -1] for row in mask]
    return torch.stack([head["weight"] @ states[i, c] + head["bias"] for i, c in enumerate(columns)])


def adapted(model: nn.Module, name: str) -> nn.Module:
    """Adapters whose B is not zero, and a head that has moved."""
    head = find_head(model, batch(name))
    wrapped = apply_lora(model, head, rank=2, alpha=5.0, targets=TARGETS[name])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in wrapped.named_parameters():
            if "lora_B" in key or "modules_to_save" in key:
                value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return wrapped


def saved(model: nn.Module, folder: Path, base: Path | str = "base") -> Path:
    save_classifier(model, FinetuneRun(folder), tokenizer(), NAMES, str(base))
    return folder


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("name", "place", "side"),
    [
        ("bert", "first", "right"),
        ("roberta", "first", "right"),
        ("gpt2", "last", "right"),
        ("gpt2", "last", "left"),
        ("llama", "last", "right"),
        ("llama", "last", "left"),
    ],
)
def test_a_linear_head_stands_beside_a_plain_body(tmp_path: Path, name: str, place: str, side: str, lora: bool) -> None:
    model = loaded(tmp_path / "base", name, "linear")
    model = adapted(model, name) if lora else model
    expected = logits(model, batch(name))
    folder = saved(model, tmp_path / "run") / "model"
    head = load_file(folder / "head.safetensors")
    again = plain_logits(AutoModel.from_pretrained(folder), head, batch(name, side), place)
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)
    mine = load_classifier(tmp_path / "run", keep_head=True)
    torch.testing.assert_close(logits(mine, batch(name)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_a_native_head_is_part_of_the_model(tmp_path: Path, name: str, lora: bool) -> None:
    model = loaded(tmp_path / "base", name, "native")
    model = adapted(model, name) if lora else model
    expected = logits(model, batch(name))
    folder = saved(model, tmp_path / "run") / "model"
    assert not (folder / "head.safetensors").exists()
    again = logits(AutoModelForSequenceClassification.from_pretrained(folder), batch(name))
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)
    mine = load_classifier(tmp_path / "run", head="native", keep_head=True)
    torch.testing.assert_close(logits(mine, batch(name)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "place"), [("bert", "first"), ("gpt2", "last")])
def test_peft_puts_an_adapter_on_the_plain_body(tmp_path: Path, name: str, place: str) -> None:
    model = adapted(loaded(tmp_path / "base", name, "linear"), name)
    folder = saved(model, tmp_path / "run", tmp_path / "base") / "adapter"
    head = load_file(folder / "head.safetensors")
    body = AutoModel.from_pretrained(tmp_path / "base")
    without = plain_logits(body, head, batch(name), place)
    again = plain_logits(PeftModel.from_pretrained(body, folder), head, batch(name), place)
    torch.testing.assert_close(again, logits(model, batch(name)), rtol=1e-5, atol=1e-5)
    assert float((without - again).abs().max()) > 1e-3
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (2, 5.0, None)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_peft_puts_an_adapter_and_its_head_on_the_plain_classifier(tmp_path: Path, name: str) -> None:
    model = adapted(loaded(tmp_path / "base", name, "native"), name)
    folder = saved(model, tmp_path / "run") / "adapter"
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    base.config.pad_token_id = ZOO[name].pad_id
    again = logits(PeftModel.from_pretrained(base, folder), batch(name))
    torch.testing.assert_close(again, logits(model, batch(name)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("lora", [False, True])
def test_saving_changes_nothing(tmp_path: Path, head: str, lora: bool) -> None:
    model = loaded(tmp_path / "base", "bert", head)
    model = adapted(model, "bert") if lora else model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    saved(model, tmp_path / "run")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert trained == {key for key, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("head", ["linear", "native"])
def test_what_lies_in_the_folder(tmp_path: Path, head: str) -> None:
    folder = saved(adapted(loaded(tmp_path / "base", "bert", head), "bert"), tmp_path / "run")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    beside = {"model/head.safetensors", "adapter/head.safetensors"} if head == "linear" else set()
    assert {"model/config.json", "model/model.safetensors", "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors", *beside} <= files  # fmt: skip
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".md"}
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate(NAMES)}
    assert config["label2id"] == {name: i for i, name in enumerate(NAMES)}
    assert AutoTokenizer.from_pretrained(folder / "model")("w0 w1")["input_ids"] == [2, 4, 5, 3]


@pytest.mark.parametrize("head", ["linear", "native"])
def test_the_umask_decides_who_may_read_a_model(tmp_path: Path, head: str) -> None:
    model = adapted(loaded(tmp_path / "base", "bert", head), "bert")
    before = os.umask(0o027)
    try:
        saved(model, tmp_path / "run")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {"model.safetensors", "adapter_model.safetensors"} <= modes.keys()
    assert set(modes.values()) == {oct(0o640)}, modes


def test_dropout_and_pooling_come_back(tmp_path: Path) -> None:
    save_model(tmp_path / "base", with_tokenizer=False)
    model = load_classifier(tmp_path / "base", 3, pooling="mean")
    model.dropout.p = 0.25
    again = load_classifier(saved(model, tmp_path / "run"), keep_head=True)
    assert (again.pooling, again.dropout.p) == ("mean", 0.25)
    torch.testing.assert_close(logits(again, batch("bert")), logits(model, batch("bert")))


def test_a_head_without_bias_stays_without(tmp_path: Path) -> None:
    model = loaded(tmp_path / "base", "bert", "linear")
    model.classifier = nn.Linear(20, 3, bias=False)
    head = saved_head(saved(model, tmp_path / "run") / "model", 3)
    assert head is not None
    assert head.bias is None
    again = load_classifier(tmp_path / "run", keep_head=True)
    torch.testing.assert_close(logits(again, batch("bert")), logits(model, batch("bert")))


def test_a_run_folder_stands_for_its_model(tmp_path: Path) -> None:
    assert run_model_folder(tmp_path) == tmp_path
    folder = saved(loaded(tmp_path / "base", "bert", "linear"), tmp_path / "run")
    assert run_model_folder(folder) == folder / "model"
    assert run_model_folder(folder / "model") == folder / "model"
    fresh = load_classifier(folder, 4, seed=1)
    assert fresh.classifier.weight.shape == (4, 20)
    assert not torch.equal(fresh.classifier.weight[:3], load_classifier(folder, keep_head=True).classifier.weight)


def damage(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def test_heads_that_cannot_be_kept(tmp_path: Path) -> None:
    folder = saved(loaded(tmp_path / "base", "bert", "linear"), tmp_path / "run")
    with pytest.raises(InputError, match=r"the head in .*head\.safetensors has 3 classes, the data has 2"):
        load_classifier(folder, 2, keep_head=True)
    with pytest.raises(InputError, match="no saved linear head to keep"):
        load_classifier(tmp_path / "base", 3, keep_head=True)
    damage(folder / "model" / "head.safetensors", 100)
    with pytest.raises(InputError, match=r"head\.safetensors is truncated or no safetensors file"):
        load_classifier(folder, 3, keep_head=True)


def test_broken_heads_are_not_written(tmp_path: Path) -> None:
    model = loaded(tmp_path / "base", "bert", "linear")
    with torch.no_grad():
        model.classifier.bias[1] = math.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        saved(model, tmp_path / "run")
    assert not (tmp_path / "run" / "model" / "head.safetensors").exists()
