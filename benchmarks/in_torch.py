"""``python -m benchmarks.in_torch FOLDER METHOD HEAD…``: what is measured in the project's own environment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.dense import dense_jacobian_kernel
from benchmarks.inputs import Row, minilm
from benchmarks.peers.vector_products import vector_product_kernel
from benchmarks.worker import Call, read_rows, serve
from ntk_lpft.kernel.engine import compute_ntk  # all of it, so that no timing has imports in it


def _engine(model: nn.Module, rows: list[Row]) -> Tensor:
    return compute_ntk(model, rows).total


def _method(name: str) -> Callable[[nn.Module, list[Row]], Tensor]:
    if name.startswith("dense-"):
        return partial(dense_jacobian_kernel, chunk=int(name.removeprefix("dense-")))
    return {"engine": _engine, "vector-products": vector_product_kernel}[name]


def prepare(folder: Path, method: str) -> Call:
    """Load MiniLM; the call sets the head and computes the kernel."""
    model, rows, kernel_of = minilm(2), read_rows(folder), _method(method)

    def call(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(weight))
            model.classifier.bias.copy_(torch.from_numpy(bias))
        return kernel_of(model, rows).detach().numpy()

    return call


if __name__ == "__main__":
    serve(prepare, ["torch", "transformers"])
