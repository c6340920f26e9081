"""Heads as files: the same when read again, and never taken for what they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ntk_lpft.classifier import Head
from ntk_lpft.classifier.head_file import FORMAT, head_from_file, load_head, save_head
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.storage import write_tensors

WEIGHT = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(3, 5)
BIAS = torch.tensor([0.1, -0.2, 1 / 3], dtype=torch.float64)


@pytest.mark.parametrize("name", ["folder/deeper", "mine.safetensors"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_is_the_same_when_read_again(dtype: torch.dtype, with_bias: bool, name: str, tmp_path: Path) -> None:
    bias = BIAS.to(dtype) if with_bias else None
    # A view of another tensor, as a head may be.
    file = save_head(tmp_path / name, WEIGHT.T.to(dtype).T, bias, {"solver": "adam", "of": "amazon-snippets · π"})
    assert file == tmp_path / ("mine.safetensors" if name == "mine.safetensors" else "folder/deeper/head.safetensors")
    assert list(file.parent.iterdir()) == [file]
    loaded = load_head(tmp_path / name)
    assert loaded.weight.dtype == dtype
    assert torch.equal(loaded.weight, WEIGHT.to(dtype))
    assert (loaded.bias is None) if bias is None else torch.equal(loaded.bias, bias)
    assert loaded.metadata == {"solver": "adam", "of": "amazon-snippets · π"}
    assert torch.equal(load_file(file)["weight"], WEIGHT.to(dtype))


def test_parameters_are_saved_as_they_are(tmp_path: Path) -> None:
    layer = nn.Linear(5, 3)
    save_head(tmp_path, layer.weight, layer.bias)
    loaded = load_head(tmp_path)
    assert torch.equal(loaded.weight, layer.weight)
    assert not loaded.weight.requires_grad
    assert loaded.metadata == {}


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(place: float, tmp_path: Path) -> None:
    file = save_head(tmp_path, WEIGHT, BIAS)
    content = file.read_bytes()
    file.write_bytes(content[: int(place * len(content))])
    with pytest.raises(InputError, match="truncated or no safetensors file"):
        load_head(file)


def test_altered_files_are_refused(tmp_path: Path) -> None:
    file = save_head(tmp_path, WEIGHT, BIAS, {"solver": "adam"})
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(InputError, match="altered after it was written"):
        load_head(file)
    file.write_bytes(content.replace(b"adam", b"adaM"))
    with pytest.raises(InputError, match="altered after it was written"):
        load_head(file)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    save_file({"weight": WEIGHT, "bias": BIAS}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not written by ntk_lpft"):
        load_head(tmp_path / "other.safetensors")
    kernel = NTKDecomposition(torch.eye(2), {}, torch.ones(2, 3), torch.ones(2, 3)).save(tmp_path)
    with pytest.raises(InputError, match=r"kernel\.safetensors holds no head \(format 'ntk_lpft kernel 2'\)"):
        load_head(kernel)
    with pytest.raises(InputError, match=r"head\.safetensors: no such file"):
        load_head(tmp_path)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "tensors",
    [
        {"bias": BIAS},
        {"weight": BIAS},
        {"weight": WEIGHT, "bias": BIAS[:2]},
        {"weight": WEIGHT, "bias": WEIGHT},
        {"weight": WEIGHT, "bias": BIAS, "more": BIAS},
        {"weight": WEIGHT.long()},
        {"weight": WEIGHT / 0},
        {"weight": WEIGHT, "bias": BIAS * float("nan")},
    ],
    ids=lambda tensors: "-".join(tensors),
)
def test_what_is_no_head_is_neither_read_nor_written(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "head.safetensors"
    write_tensors(file, tensors, {"format": FORMAT, "metadata": {}})
    with pytest.raises(InputError, match=r"head\.safetensors has"):
        load_head(file)
    file.unlink()
    if set(tensors) <= {"weight", "bias"} and "weight" in tensors:
        with pytest.raises(InputError, match=r"a head for .*head\.safetensors has"):
            save_head(file, tensors["weight"], tensors.get("bias"))
        assert not file.exists()


def test_a_file_makes_a_models_head(tmp_path: Path) -> None:
    save_head(tmp_path, WEIGHT, BIAS, {"solver": "logistic"})
    layer = nn.Linear(5, 3)
    parameter = layer.weight
    assert head_from_file(Head("x", layer), tmp_path).metadata == {"solver": "logistic"}
    assert layer.weight is parameter
    assert torch.equal(layer.weight, WEIGHT.float())
    assert torch.equal(layer.bias, BIAS.float())
    bare = nn.Linear(5, 3, bias=False)
    head_from_file(Head("x", bare), tmp_path)
    assert torch.equal(bare.weight, WEIGHT.float())
    save_head(tmp_path, WEIGHT, None)
    head_from_file(Head("x", layer), tmp_path)
    assert not layer.bias.any()


@pytest.mark.parametrize(("width", "classes"), [(4, 3), (5, 2), (3, 5)])
def test_a_head_of_another_shape_is_refused(width: int, classes: int, tmp_path: Path) -> None:
    file = save_head(tmp_path, WEIGHT, BIAS)
    layer = nn.Linear(width, classes)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    with pytest.raises(
        InputError, match=rf"{file}: a head of shape \(3, 5\) does not fit the model's \({classes}, {width}\)"
    ):
        head_from_file(Head("x", layer), tmp_path)
    assert torch.equal(layer.weight, before[0])
    assert torch.equal(layer.bias, before[1])
