"""Models that accelerate has spread over devices, the disk among them, as ``device_map`` of transformers does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from helpers.agreement import error
from helpers.zoo import ZOO, ragged_rows
from torch import nn

from ntk_lpft.classifier import Classifier, extract_features
from ntk_lpft.classifier.frozen_weights import saving_no_wide_weights
from ntk_lpft.classifier.offloaded import home_of, is_spread, offloaded_weights
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk

ROWS = ragged_rows(ZOO["llama"], n=4)
MAP = {
    "model.embed_tokens": "disk",
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "score": "cpu",
}


def model_of(dtype: torch.dtype) -> nn.Module:
    """Build a Llama whose last layer and head are trained."""
    model = ZOO["llama"].build(dtype=dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name or name.startswith("score"))
    return model


def state(model: nn.Module) -> list:
    return [(name, p.dtype, p.device, p.requires_grad, p.shape) for name, p in model.named_parameters()]


@pytest.mark.parametrize("engine", ["structured", "per_example"])
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(torch.float64, "float64"), (torch.float32, "float64"), (torch.bfloat16, "float32"), (torch.float32, "float32")],
)
def test_a_model_partly_on_the_disk(dtype: torch.dtype, precision: str, engine: str, tmp_path: Path) -> None:
    whole = compute_ntk(model_of(dtype), ROWS, precision=precision, engine=engine)
    model = dispatch_model(model_of(dtype), MAP, main_device="cpu", offload_dir=tmp_path)
    assert is_spread(model)
    assert sum(weight.is_meta for weight in model.parameters()) == len(offloaded_weights(model)) == 10
    before = state(model)
    spread = compute_ntk(model, ROWS, precision=precision, engine=engine)
    assert state(model) == before
    assert error(spread.total, whole.total) <= (1e-5 if precision == "float32" else 1e-12)
    for name in ("weights_sha256", "model_sha256"):
        assert spread.metadata[name] == whole.metadata[name]


def test_frozen_weights_on_the_disk_are_read_again_for_the_backward_pass(tmp_path: Path) -> None:
    """So that a graph holds none of them: without the files there is no backward pass."""
    model = dispatch_model(model_of(torch.float32), MAP, main_device="cpu", offload_dir=tmp_path)
    layer, classifier = model.model.layers[0].mlp.down_proj, Classifier.of(model, ROWS)
    states = torch.randn(1, layer.in_features, requires_grad=True)
    with classifier.opened():
        with torch.enable_grad(), saving_no_wide_weights():
            first, second = layer(states).sum(), layer(states).sum()
        weight = layer.weight.clone()
        other = model.model.layers[0].mlp.up_proj
        other(states.detach()[:, :20])  # takes the place of the weight that was used last
        (gradient,) = torch.autograd.grad(first, states)
        assert torch.equal(gradient[0], weight.sum(dim=0)) or error(gradient[0], weight.sum(dim=0)) <= 1e-6
        other(states.detach()[:, :20])
        for path in tmp_path.glob("*down_proj*"):
            path.unlink()
        with pytest.raises(FileNotFoundError):
            torch.autograd.grad(second, states)


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_what_is_trained_must_be_in_memory(offload: str, tmp_path: Path) -> None:
    model = ZOO["llama"].build()
    model = cpu_offload(model) if offload == "cpu" else disk_offload(model, str(tmp_path))
    with pytest.raises(InputError, match=r"weight model.embed_tokens.weight is trained, but is not in memory"):
        compute_ntk(model, ROWS)


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_features_of_a_model_that_is_offloaded_as_a_whole(offload: str, tmp_path: Path) -> None:
    plain, model = (ZOO["llama"].build(dtype=torch.float32).requires_grad_(False) for _ in range(2))
    model = cpu_offload(model) if offload == "cpu" else disk_offload(model, str(tmp_path))
    assert all(weight.is_meta for weight in model.parameters())
    assert home_of(model) == torch.device("cpu")
    expected, found = extract_features(plain, ROWS), extract_features(model, ROWS)
    assert error(found.features, expected.features) <= 1e-6
    assert error(found.logits, expected.logits) <= 1e-6


def test_a_model_that_is_spread_is_not_moved(tmp_path: Path) -> None:
    model = dispatch_model(model_of(torch.float32), MAP, main_device="cpu", offload_dir=tmp_path)
    with pytest.raises(InputError, match=r"spread over devices by its device_map and begins on cpu; leave device"):
        Classifier.of(model, ROWS, device=torch.device("meta")).run(ROWS)


def test_broken_weights_on_the_disk_are_found(tmp_path: Path) -> None:
    model = model_of(torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    model = dispatch_model(model, MAP, main_device="cpu", offload_dir=tmp_path)
    with pytest.raises(InputError, match=r"layers.0.mlp.up_proj.weight of the model holds NaN"):
        compute_ntk(model, ROWS)


def test_weights_that_were_never_loaded_are_refused() -> None:
    model = ZOO["llama"].build().to("meta")
    with pytest.raises(InputError, match=r"not in memory \(it was never loaded\)"):
        Classifier.of(model, ROWS)
