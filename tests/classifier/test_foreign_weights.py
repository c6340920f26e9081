"""What transformers would load beside or instead of the weights that were meant."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import peft
import pytest
import torch
from helpers.small import save_model
from helpers.zoo import ZOO

from ntk_lpft.classifier import load_classifier, load_tokenizer
from ntk_lpft.errors import InputError
from ntk_lpft.model_sources import check_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def with_adapter(folder: Path) -> Path:
    """Save an adapter where the model is, as peft's users do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(ZOO["bert"].build(dtype=torch.float32), peft.LoraConfig(target_modules=["query"]))
        model.save_pretrained(folder)
    assert (folder / "adapter_config.json").is_file()
    return folder


@pytest.mark.parametrize("head", ["linear", "native"])
def test_an_adapter_beside_the_weights_is_refused(folder: Path, head: str) -> None:
    load_classifier(folder, 3, head=head)
    with_adapter(folder)
    with pytest.raises(InputError, match=r"holds an adapter \(adapter_config.json\).*unasked.*merge it"):
        load_classifier(folder, 3, head=head)
    with pytest.raises(InputError, match="holds an adapter"):
        load_tokenizer(folder)


@pytest.mark.parametrize("head", ["linear", "native"])
def test_an_adapter_that_came_in_all_the_same_is_seen(folder: Path, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a model on the Hub, whose files are not seen before they are loaded."""
    with_adapter(folder)
    monkeypatch.setattr("ntk_lpft.classifier.loading.resolve_source", str)
    with pytest.raises(InputError, match=r"adapter beside its weights, which transformers has put in unasked"):
        load_classifier(folder, 3, head=head)


class Pickled:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("shard", ["pytorch_model-00001-of-00001.bin", "../outside.safetensors", "", 5, None])
def test_an_index_that_names_other_files_is_refused(folder: Path, shard: object, head: str) -> None:
    mark = folder / "mark"
    names = list(ZOO["bert"].build().state_dict())
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    torch.save({"x": Pickled(mark)}, folder / "pytorch_model-00001-of-00001.bin")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)}))
    with pytest.raises(InputError, match=r"index.json names .* no safetensors file in that folder"):
        load_classifier(folder, 3, head=head)
    assert not mark.exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 5}'])
def test_a_damaged_index_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=r"index.json"):
        load_classifier(folder, 3)


def test_an_index_of_safetensors_is_followed(folder: Path) -> None:
    whole = load_classifier(folder, 3, head="native", keep_head=True)
    whole.save_pretrained(folder / "sharded", max_shard_size="10kB")
    assert len(list((folder / "sharded").glob("model-*.safetensors"))) > 1
    check_index(folder / "sharded" / "model.safetensors.index.json")
    again = load_classifier(folder / "sharded", 3, head="native", keep_head=True)
    for (name, one), other in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("index", ["pytorch_model.bin.index.json"])
def test_an_index_of_pickles_alone_is_no_model(folder: Path, index: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model-00001-of-00001.bin")
    (folder / index).write_text(json.dumps({"weight_map": {"x": "pytorch_model-00001-of-00001.bin"}}))
    with pytest.raises(InputError, match=r"only \.bin weights, which are pickles"):
        load_classifier(folder, 3)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "other"])
def test_a_pipe_in_a_models_folder_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=r"no regular file|config\.json"):
        load_classifier(folder, num_labels=3)


@pytest.mark.parametrize("load", [load_classifier, load_tokenizer])
def test_a_name_that_no_file_can_have_is_cut_in_the_message(load: object) -> None:
    with pytest.raises(InputError, match=r"^model x{60}… cannot be looked up") as refusal:
        load("x" * 5000)  # type: ignore[operator]
    assert len(str(refusal.value)) < 200
