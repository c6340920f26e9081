"""``python -m benchmarks.peers.published FOLDER``: the cost of the published algorithm, from one sample."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.inputs import Row, minilm
from benchmarks.measuring import peak_bytes
from benchmarks.worker import read_rows
from ntk_lpft.kernel import group_parameters


def published_seconds_per_sample(model: nn.Module, row: Row, *, features: int) -> float:
    """Time the cost structure of the published code on one sample.

    It takes the Jacobian of every entry of φ, one at a time, once for each parameter group. A part of the entries is
    timed and scaled up, as all cost the same.

    Args:
        model: A classifier with a linear head on a body of hidden size h.
        row: The sample.
        features: How many entries of φ to time.

    Returns:
        Seconds that all h entries would take.
    """
    body = model.body
    groups = group_parameters(name for name, _ in body.named_parameters())
    parameters = dict(body.named_parameters())
    tensors = {name: torch.tensor([values]) for name, values in row.items()}
    began = time.perf_counter()
    phi = body(**tensors).last_hidden_state[0, 0]
    for feature in range(features):
        for names in groups.values():
            chosen = [parameters[n] for n in names]
            torch.autograd.grad(phi[feature], chosen, retain_graph=True, allow_unused=True)
    return (time.perf_counter() - began) / features * phi.shape[0]


if __name__ == "__main__":
    taken = published_seconds_per_sample(minilm(2), read_rows(Path(sys.argv[1]))[0], features=3)
    print(json.dumps({"seconds_per_sample": taken, "peak": peak_bytes()}))
