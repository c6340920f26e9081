"""Features φ(x) and logits f(x) of a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.classifier.head import Head, features_and_logits, find_head
from ntk_lpft.classifier.prepare import prepared
from ntk_lpft.classifier.rows import batches, by_length, check_rows, collate, padding_id, to_rows


@dataclass(frozen=True)
class Features:
    """What the head sees and says.

    Attributes:
        features: φ, (N, h), in the order of the inputs, on the CPU.
        logits: f, (N, C).
        head: The head they belong to.
    """

    features: Float[Tensor, "n h"]
    logits: Float[Tensor, "n c"]
    head: Head


def extract_features(
    model: nn.Module,
    inputs: Any,
    *,
    device: torch.device | None = None,
    max_cells: int = 4096,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> Features:
    """Run a classifier over a data set, in eval mode, without a graph.

    Args:
        model: The classifier; it is not changed.
        inputs: As for ``compute_ntk``.
        device: Where to run; by default where the model is.
        max_cells: Most samples × positions of a batch.
        dtype: What to compute in.
        progress: Whether to show a progress bar.

    Returns:
        Features and logits.

    Raises:
        InputError: Bad inputs, or a model without a linear head.
    """
    rows = to_rows(inputs, model)
    check_rows(rows, model)
    order = by_length(rows)
    ordered = [rows[i] for i in order]
    pad_id = padding_id(model, rows)
    device = device or next(model.parameters()).device
    with prepared(model, dtype, device):
        head = find_head(model, collate(ordered[:1], pad_id, device).tensors)
        parts = []
        with tqdm(total=len(rows), desc="features", unit="row", delay=1, disable=not progress) as bar:
            for batch in batches(
                ordered, boundary=0, max_cells=max_cells, max_rows=len(rows), pad_id=pad_id, device=device
            ):
                parts.append(features_and_logits(model, head, batch.tensors))
                bar.update(batch.size)
    back = torch.argsort(torch.tensor(order))
    phi, logits = (torch.cat([part[i] for part in parts]).cpu()[back] for i in (0, 1))
    return Features(phi, logits, head)
