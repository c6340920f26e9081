"""The dtype that weights are loaded in, and what a kernel beside adapters makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.agreement import error
from helpers.small import examples, save_csv, save_model
from helpers.zoo import ZOO

from ntk_lpft.classifier import LinearHeadClassifier, load_classifier
from ntk_lpft.commands.compute import main
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition


def saved(folder: Path, name: str, dtype: torch.dtype) -> Path:
    save_model(folder, name)
    ZOO[name].build(dtype=dtype).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_auto_is_what_the_checkpoint_has(tmp_path: Path, stored: torch.dtype, head: str) -> None:
    folder = saved(tmp_path, "llama", stored)
    model = load_classifier(folder, 3, head=head, dtype="auto")
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    own = {name for name in dtypes if name.startswith(("classifier", "score"))}
    assert {dtypes[name] for name in dtypes.keys() - own} == {stored}
    assert {dtypes[name] for name in own} == {
        torch.promote_types(stored, torch.float32) if head == "linear" else stored
    }
    assert model(input_ids=torch.tensor([[5, 6]])).logits.dtype == dtypes[own.pop()]
    expected = ZOO["llama"].build(dtype=stored).model.layers[1].mlp.up_proj.weight
    body = model.body if isinstance(model, LinearHeadClassifier) else model.model
    assert torch.equal(body.layers[1].mlp.up_proj.weight, expected)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("asked", ["float16", "bfloat16", "float32", "float64"])
def test_a_dtype_by_name(tmp_path: Path, stored: torch.dtype, asked: str) -> None:
    model = load_classifier(saved(tmp_path, "bert", stored), 3, dtype=asked)
    assert {p.dtype for p in model.body.parameters()} == {getattr(torch, asked)}
    assert {p.dtype for p in load_classifier(tmp_path, 3).parameters()} == {torch.float32}


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown dtype 'int8'; choose one of auto, float32"):
        load_classifier(saved(tmp_path, "bert", torch.float32), 3, dtype="int8")


@pytest.mark.parametrize(("name", "pooling"), [("bert", "first"), ("roberta", "first"), ("llama", "last")])
def test_pooling_is_found_in_narrow_weights(tmp_path: Path, name: str, pooling: str) -> None:
    model = load_classifier(saved(tmp_path, name, torch.bfloat16), 3, dtype="auto")
    assert model.pooling == pooling
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("init", ["random", "lp"])
def test_the_command_keeps_the_body_beside_adapters_narrow(
    tmp_path: Path, head: str, init: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "model", "llama", torch.bfloat16)
    data = save_csv(tmp_path / "data.csv", examples(30))
    words = ["--model", folder, "--train-file", data, "--test-file", data, "--n-train", 6, "--n-eval", 3, "--lora",
             "--head", head, "--head-init", init, "--max-length", 20, "--no-kernel-classifier"]  # fmt: skip
    kernels = {}
    for dtype in ("auto", "float32"):
        out = tmp_path / dtype
        assert main([str(word) for word in [*words, "--weights-dtype", dtype, "--output-dir", out]]) == 0
        kernels[dtype] = NTKDecomposition.load(out)
        said = "frozen weights: kept in bfloat16, widened to float32 where used" in capsys.readouterr().out
        assert said == (dtype == "auto")
    assert kernels["auto"].metadata["frozen_weights"] == ["bfloat16"]
    assert kernels["float32"].metadata["frozen_weights"] == []
    assert json.loads((tmp_path / "auto" / "config.json").read_text())["options"]["weights_dtype"] == "auto"
    # A probe is fitted until its V is exact to 1e-6, on features that differ by rounding.
    bound = 1e-5 if init == "random" else 1e-4
    assert error(kernels["auto"].feature_kernel, kernels["float32"].feature_kernel) <= 1e-5
    assert error(kernels["auto"].total, kernels["float32"].total) <= bound


def test_without_adapters_the_option_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--weights-dtype", "bfloat16"]) == 2
    assert "--weights-dtype does nothing without --lora; leave it out" in capsys.readouterr().err
