"""One kernel to compute, as files that every peer can read: no pickles, and nothing of the library needed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.inputs import Row, minilm, probed_head
from ntk_lpft.bundled import model_folder

HEADS = ("random", "lp")


def write_work(folder: Path, rows: Sequence[Row]) -> None:
    """Write MiniLM's config and weights, two heads for it, and the rows.

    Args:
        folder: Where; made, or emptied.
        rows: The samples.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = minilm(2)
    weight, bias = probed_head(model)
    heads = {
        "random.weight": model.classifier.weight.detach(), "random.bias": model.classifier.bias.detach(),
        "lp.weight": weight, "lp.bias": bias,
    }  # fmt: skip
    shutil.copy(model_folder("minilm") / "config.json", folder)
    save_file(
        {name: value.contiguous() for name, value in model.body.state_dict().items()}, folder / "body.safetensors"
    )
    save_file({name: value.contiguous() for name, value in heads.items()}, folder / "heads.safetensors")
    longest = max(len(row["input_ids"]) for row in rows)
    tensors = {
        name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in rows]) for name in rows[0]
    }  # fmt: skip
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    save_file({**tensors, "lengths": lengths}, folder / "rows.safetensors")


def read_kernel(folder: Path, method: str, head: str) -> torch.Tensor:
    """Read the kernel that a peer wrote, (N, C, N, C)."""
    return load_file(folder / f"{method}.{head}.safetensors")["kernel"]


def difference(kernel: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest difference of two kernels' entries, over the largest entry of the second."""
    return float((kernel.double() - reference.double()).abs().max() / reference.abs().max())
