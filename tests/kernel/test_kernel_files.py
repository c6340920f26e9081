"""Kernels on disk: the same when read again, whole or not there, and never silently altered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_identical
from safetensors.torch import load_file, save_file

from ntk_lpft import storage
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition, save_parts
from ntk_lpft.storage import read_tensors, tensor_digest, write_tensors


def example(n: int = 3, m: int = 4, *, outputs: str = "full", dtype: torch.dtype = torch.float32) -> NTKDecomposition:
    generator = torch.Generator().manual_seed(n + 10 * m)
    shape = (n, 2, m, 2) if outputs == "full" else (n, m)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    # A slice of a larger tensor, as the parts of a computation are.
    feature_kernel = draw(n + 2, m)[:n]
    groups = {"embeddings": draw(*shape), "layer.0.attention": draw(*shape)}
    return NTKDecomposition(
        feature_kernel=feature_kernel,
        ft_groups=groups,
        row_logits=draw(n, 2),
        column_logits=draw(m, 2),
        outputs=outputs,
        symmetric=n == m,
        parameter_groups={name: [f"{name}.a", f"{name}.b"] for name in groups},
        metadata={"precision": "float32", "plan": {"passes": 2}, "none": None},
    )


def assert_equal(read: NTKDecomposition, expected: NTKDecomposition) -> None:
    assert_identical(read, expected)
    assert read.feature_kernel.dtype == expected.feature_kernel.dtype
    for name in ("outputs", "symmetric", "parameter_groups", "metadata"):
        assert getattr(read, name) == getattr(expected, name)
    assert list(read.ft_groups) == list(expected.ft_groups)


@pytest.mark.parametrize("outputs", ["full", "class_trace"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["folder/deeper", "kernel.safetensors"])
def test_a_kernel_is_the_same_when_read_again(name: str, dtype: torch.dtype, outputs: str, tmp_path: Path) -> None:
    ntk = example(outputs=outputs, dtype=dtype)
    file = ntk.save(tmp_path / name)
    assert file.is_file()
    assert file.suffix == ".safetensors"
    assert_equal(NTKDecomposition.load(tmp_path / name), ntk)


def test_parts_are_read_by_name_and_the_first_by_default(tmp_path: Path) -> None:
    parts = {"train": example(4, 4), "eval": example(3, 4)}
    save_parts(tmp_path, parts)
    assert_equal(NTKDecomposition.load(tmp_path), parts["train"])
    assert_equal(NTKDecomposition.load(tmp_path, "eval"), parts["eval"])
    with pytest.raises(InputError, match="no part 'test'; it has train, eval"):
        NTKDecomposition.load(tmp_path, "test")


def test_a_kernel_without_groups_is_kept(tmp_path: Path) -> None:
    ntk = NTKDecomposition(torch.eye(2), {}, torch.ones(2, 3), torch.ones(2, 3))
    assert_equal(NTKDecomposition.load(ntk.save(tmp_path)), ntk)


@pytest.mark.parametrize("moment", ["write", "sync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(moment: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "kernel.safetensors"
    old, new = example(3, 4), example(5, 4)
    old.save(path)

    def half(tensors, target, metadata):
        save_file(tensors, target, metadata)
        content = Path(target).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])
        raise OSError("disk full")

    def fails(*args):
        raise OSError("disk full")

    if moment == "write":
        monkeypatch.setattr(storage, "save_file", half)
    else:
        monkeypatch.setattr(os, {"sync": "fsync", "replace": "replace"}[moment], fails)
    with pytest.raises(OSError, match="disk full"):
        new.save(path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert_equal(NTKDecomposition.load(path), old)


def test_a_new_kernel_replaces_the_old_one(tmp_path: Path) -> None:
    example(3, 4).save(tmp_path)
    example(5, 4).save(tmp_path)
    assert_equal(NTKDecomposition.load(tmp_path), example(5, 4))


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(place: float, tmp_path: Path) -> None:
    path = example().save(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content))])
    with pytest.raises(InputError, match="truncated or no safetensors file"):
        NTKDecomposition.load(path)


def test_altered_files_are_refused(tmp_path: Path) -> None:
    path = example().save(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(InputError, match="altered after it was written"):
        NTKDecomposition.load(path)
    path.write_bytes(content.replace(b'\\"passes\\": 2', b'\\"passes\\": 3'))
    with pytest.raises(InputError, match="altered after it was written"):
        NTKDecomposition.load(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not written by ntk_lpft"):
        read_tensors(tmp_path / "other.safetensors")
    write_tensors(tmp_path / "partial.safetensors", {"a": torch.ones(2)}, {"done": 1})
    with pytest.raises(InputError, match="holds no kernel"):
        NTKDecomposition.load(tmp_path / "partial.safetensors")
    with pytest.raises(InputError, match="no such file"):
        NTKDecomposition.load(tmp_path / "missing")


def test_the_tensors_can_be_read_without_the_library(tmp_path: Path) -> None:
    ntk = example()
    plain = load_file(ntk.save(tmp_path))
    assert torch.equal(plain["ntk/feature_kernel"], ntk.feature_kernel)
    assert torch.equal(plain["ntk/ft/embeddings"], ntk.ft_groups["embeddings"])


def test_tensors_that_share_memory_are_kept(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "a.safetensors", {"x": whole[:4], "y": whole[2:], "z": whole.view(2, 3).T}, {})
    tensors, _ = read_tensors(tmp_path / "a.safetensors")
    assert tensors["y"].tolist() == [2, 3, 4, 5]
    assert torch.equal(tensors["z"], whole.view(2, 3).T)


def test_digests_depend_on_all_that_matters_and_on_nothing_else() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 3)}
    same = {"b": torch.zeros(3, 2).T, "a": torch.tensor([0.0, 1.0, 2.0])[1:]}
    assert tensor_digest(one) == tensor_digest(same)
    for changed in (
        {"a": torch.tensor([1.0, 2.0 + 3e-7])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([2.0, 1.0])},
        {"c": torch.tensor([1.0, 2.0])},
    ):
        assert tensor_digest(one | changed) != tensor_digest(one)
    assert tensor_digest({"a": torch.tensor(1.0)}) != tensor_digest({"a": torch.tensor([1.0])})
