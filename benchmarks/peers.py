"""The algorithms that the structured engine is measured against, written for this comparison."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ntk_lpft.kernel import group_parameters

Row = dict[str, list[int]]


def dense_jacobian_kernel(model: nn.Module, rows: Sequence[Row]) -> Tensor:
    """Contract the dense Jacobian that ``vmap(jacrev)`` makes of all parameters at once; rows of equal length."""
    batch = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    mask = torch.ones_like(batch["input_ids"][:1])

    def logits(values: dict[str, Tensor], sample: dict[str, Tensor]) -> Tensor:
        one = {name: value[None] for name, value in sample.items()} | {"attention_mask": mask}
        return torch.func.functional_call(model, values, (), one).logits[0]

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobian = torch.func.vmap(torch.func.jacrev(logits), in_dims=(None, 0))(parameters, batch)
    n, c = len(rows), model.config.num_labels  # type: ignore[union-attr]
    kernel = torch.zeros(n * c, n * c)
    for value in jacobian.values():
        flat = value.reshape(n * c, -1)
        kernel += flat @ flat.T
    return kernel.view(n, c, n, c).detach()


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
    groups = group_parameters(name for name, _ in body.named_parameters())  # type: ignore[union-attr]
    parameters = dict(body.named_parameters())  # type: ignore[union-attr]
    tensors = {name: torch.tensor([values]) for name, values in row.items()}
    began = time.perf_counter()
    phi = body(**tensors).last_hidden_state[0, 0]  # type: ignore[operator]
    for feature in range(features):
        for names in groups.values():
            chosen = [parameters[n] for n in names]
            torch.autograd.grad(phi[feature], chosen, retain_graph=True, allow_unused=True)
    return (time.perf_counter() - began) / features * phi.shape[0]
