"""Classifiers and tokenizers from folders, and everything that can be wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.small import save_model, tokenizer, tokens_of
from helpers.zoo import ZOO
from transformers import AutoModel, AutoModelForSequenceClassification

from ntk_lpft.classifier import LinearHeadClassifier, load_classifier, load_tokenizer
from ntk_lpft.errors import InputError

TENSORS = {name: torch.tensor([values]) for name, values in tokens_of("w1 w20 w3").items()}


def differing(one: torch.nn.Module, two: torch.nn.Module) -> set[str]:
    first, second = dict(one.named_parameters()), dict(two.named_parameters())
    return {n for n in first.keys() | second.keys() if n not in first or n not in second
            or not torch.equal(first[n], second[n])}  # fmt: skip


def test_native_head_is_the_checkpoints(tmp_path: Path) -> None:
    model = load_classifier(save_model(tmp_path), head="native", keep_head=True)
    assert differing(model, ZOO["bert"].build(dtype=torch.float32)) == set()
    assert model.config.num_labels == 3
    assert not model.training


def test_linear_head_is_new_and_the_body_the_checkpoints(tmp_path: Path) -> None:
    model = load_classifier(save_model(tmp_path), 5)
    assert isinstance(model, LinearHeadClassifier)
    assert model.classifier.weight.shape == (5, 20)
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not model.classifier.bias.any()
    assert not any("pooler" in name for name, _ in model.named_parameters())
    body = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    assert differing(model.body, body) == set()
    state = body(**TENSORS).last_hidden_state[0, 0]
    torch.testing.assert_close(model(**TENSORS).logits[0], model.classifier.weight @ state)
    assert not model.training


def test_decoders_pool_the_last_token(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    assert load_classifier(tmp_path, 3).pooling == "last"
    assert load_classifier(tmp_path, 3, pooling="mean").pooling == "mean"


def test_the_seed_decides_the_new_head_alone(tmp_path: Path) -> None:
    save_model(tmp_path)
    state = torch.get_rng_state()
    one, same, other = (load_classifier(tmp_path, 3, seed=seed) for seed in (1, 1, 2))
    assert differing(one, same) == set()
    assert differing(one, other) == {"classifier.weight"}
    assert torch.equal(torch.get_rng_state(), state)


def test_a_native_head_of_other_classes_is_new(tmp_path: Path) -> None:
    save_model(tmp_path, num_labels=4)
    one, other = (load_classifier(tmp_path, 3, head="native", seed=seed) for seed in (1, 2))
    assert differing(one, other) == {"classifier.weight"}
    assert one.config.num_labels == 3
    with pytest.raises(InputError, match=r"no head of 3 classes to keep .*classifier.weight"):
        load_classifier(tmp_path, 3, head="native", keep_head=True)


def test_the_head_of_a_bare_body_cannot_be_kept(tmp_path: Path) -> None:
    ZOO["bert"].build(dtype=torch.float32).bert.save_pretrained(tmp_path)
    assert load_classifier(tmp_path, 3, head="native").classifier.out_features == 3
    with pytest.raises(InputError, match=r"no head of 3 classes to keep .*classifier.bias, classifier.weight"):
        load_classifier(tmp_path, 3, head="native", keep_head=True)


def test_models_load_in_float32(tmp_path: Path) -> None:
    ZOO["bert"].build(dtype=torch.bfloat16).save_pretrained(tmp_path)
    for head in ("linear", "native"):
        assert {p.dtype for p in load_classifier(tmp_path, 3, head=head).parameters()} == {torch.float32}


def test_a_loaded_classifier_is_returned_as_it_is() -> None:
    model = ZOO["bert"].build()
    assert load_classifier(model, 3) is model
    with pytest.raises(InputError, match="has 3 labels, not 2"):
        load_classifier(model, 2)


def test_encoder_decoders_have_their_own_head_only(tmp_path: Path) -> None:
    save_model(tmp_path, "t5", with_tokenizer=False)
    assert differing(load_classifier(tmp_path, 3, head="native"), ZOO["t5"].build(dtype=torch.float32)) == set()
    with pytest.raises(InputError, match="an encoder or a decoder, not both; use --head native"):
        load_classifier(tmp_path, 3)


def test_tokenizer(tmp_path: Path) -> None:
    loaded = load_tokenizer(save_model(tmp_path))
    assert loaded("w1 w20 w3")["input_ids"] == tokens_of("w1 w20 w3")["input_ids"]
    assert loaded.model_max_length == 23


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    save_model(tmp_path, with_tokenizer=False)
    bare = tokenizer()
    bare.pad_token, bare.eos_token = None, "[SEP]"
    bare.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "[SEP]"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_missing_folders(name: str) -> None:
    for load in (load_tokenizer, load_classifier):
        with pytest.raises(InputError, match=f"model folder {name} does not exist"):
            load(name)


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model"])
def test_names_that_cannot_be_reached(name: str) -> None:
    with pytest.raises(InputError, match=f"cannot load model {name}: it is not in the local cache and the Hub cannot"):
        load_classifier(name, 3)
    with pytest.raises(InputError, match=f"cannot load a tokenizer for {name}: it is not in the local cache"):
        load_tokenizer(name)


def test_folder_without_config(tmp_path: Path) -> None:
    (save_model(tmp_path) / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config.json; it needs what save_pretrained writes"):
        load_classifier(tmp_path, 3)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "nothing"}'])
def test_folder_with_another_config(tmp_path: Path, content: str) -> None:
    (save_model(tmp_path) / "config.json").write_text(content)
    with pytest.raises(InputError, match=f"(cannot load model {tmp_path}: |{tmp_path}/config.json )") as caught:
        load_classifier(tmp_path, 3)
    assert "\n" not in str(caught.value)


def test_folder_without_weights(tmp_path: Path) -> None:
    (save_model(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no weights \(\*.safetensors is needed\)"):
        load_classifier(tmp_path, 3)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only .bin weights, which are pickles; convert them"):
        load_classifier(tmp_path, 3)


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    save_model(tmp_path, with_tokenizer=False)
    with pytest.raises(InputError, match=r"has no tokenizer; save it there with tokenizer.save_pretrained"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"x": 1}'])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    (save_model(tmp_path) / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=f"cannot load a tokenizer for {tmp_path}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("head", ["linear", "native"])
def test_broken_weights(tmp_path: Path, head: str) -> None:
    path = save_model(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:7], whole[:-10], b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"cannot load model {tmp_path}: "):
            load_classifier(tmp_path, 3, head=head)


@pytest.mark.parametrize("head", ["linear", "native"])
def test_weights_that_are_no_numbers(tmp_path: Path, head: str) -> None:
    save_model(tmp_path, weights={"bert.encoder.layer.0.output.dense.bias": float("nan")})
    with pytest.raises(InputError, match=r"weight \S+layer.0.output.dense.bias of the model holds NaN or infinite"):
        load_classifier(tmp_path, 3, head=head)


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize(("key", "value"), [("hidden_size", 24), ("model_type", "roberta"), ("num_hidden_layers", 3)])
def test_weights_of_another_body_are_not_made_up(tmp_path: Path, head: str, key: str, value: object) -> None:
    path = save_model(tmp_path) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=r"weights do not fit its config.json .* load a sound checkpoint"):
        load_classifier(tmp_path, 3, head=head)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", None])
def test_checkpoints_of_another_kind_keep_their_body_only(tmp_path: Path, problem: str | None) -> None:
    save_model(tmp_path, num_labels=1 if problem is None else 3, config={"problem_type": problem})
    words = (problem or "regression").replace("_", " ")
    with pytest.raises(InputError, match=f"the checkpoint is a {words} model; use --head linear for a new head"):
        load_classifier(tmp_path, 3, head="native")
    model = load_classifier(tmp_path, 3)
    assert model.config.problem_type is None
    assert model(**TENSORS).logits.shape == (1, 3)


def test_names_of_heads_and_poolings(tmp_path: Path) -> None:
    save_model(tmp_path)
    with pytest.raises(InputError, match="unknown head 'cubic'; choose one of linear, native"):
        load_classifier(tmp_path, 3, head="cubic")
    with pytest.raises(InputError, match="unknown pooling 'max'; choose one of auto, first, last, mean"):
        load_classifier(tmp_path, 3, pooling="max")
    with pytest.raises(InputError, match="num_labels is 1; a classifier has 2 or more"):
        load_classifier(tmp_path, 1)


def test_the_saved_model_is_a_plain_checkpoint(tmp_path: Path) -> None:
    """What this file builds on: transformers alone reads back what was saved."""
    loaded = AutoModelForSequenceClassification.from_pretrained(save_model(tmp_path))
    assert differing(loaded, ZOO["bert"].build(dtype=torch.float32)) == set()
