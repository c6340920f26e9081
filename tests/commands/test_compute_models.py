"""The compute command with models that are loaded and run in their own ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_close
from helpers.small import examples, save_csv, save_model
from transformers import AutoConfig

from ntk_lpft.commands.compute import main
from ntk_lpft.kernel import NTKDecomposition

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    save_csv(folder / "train.csv", examples(12))
    save_csv(folder / "eval.csv", examples(8, seed=1))
    return ["--train-file", str(folder / "train.csv"), "--eval-file", str(folder / "eval.csv"), "--max-length", "20",
            "--n-train", "7", "--n-eval", "4", "--no-kernel-classifier"]  # fmt: skip


@pytest.fixture
def run(data: list[str], tmp_path: Path) -> Run:
    def call(model: Path, *words: str, out: str = "out") -> Path:
        assert main(["--model", str(model), *data, "--output-dir", str(tmp_path / out), *words]) == 0
        return tmp_path / out

    return call


@pytest.mark.parametrize("head", ["linear", "native"])
def test_lora_on_the_functional_engine(run: Run, tmp_path: Path, head: str) -> None:
    model = save_model(tmp_path / "model")
    words = ("--lora", "--lora-rank", "2", "--head", head, "--head-init", "random", "--precision", "float64")
    folders = [run(model, *words, "--engine", engine, out=engine) for engine in ("functional", "structured")]
    functional, structured = (NTKDecomposition.load(folder) for folder in folders)
    assert float(functional.ft_effective.norm()) > 0
    assert_close(functional, structured)


def with_padding_token(folder: Path, pad_id: int | None) -> Path:
    config = AutoConfig.from_pretrained(folder)
    config.pad_token_id = pad_id
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pad_id", [None, -1, 61])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_with_its_own_head_and_no_padding_token(
    run: Run, tmp_path: Path, name: str, pad_id: int | None
) -> None:
    """Rows differ in length, so that a wrong choice of the last token would show."""
    sound = save_model(tmp_path / "sound", name=name)
    words = ("--head", "native", "--head-init", "keep")
    expected = NTKDecomposition.load(run(sound, *words, "--engine", "per_example", out="expected"))
    folder = with_padding_token(save_model(tmp_path / "model", name=name), pad_id)
    ntk = NTKDecomposition.load(run(folder, *words))
    torch.testing.assert_close(ntk.row_logits, expected.row_logits, rtol=1e-5, atol=1e-5)
    assert float((ntk.total - expected.total).norm()) <= 1e-4 * float(expected.total.norm())
