"""Estimates of F's word-embedding block from a part of the parameters and of the feature's entries."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ntk_lpft.classifier.rows import token_table
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.capture import capture
from ntk_lpft.kernel.gradients import SparseGradients
from ntk_lpft.kernel.setup import open_setup

_CELLS = 2048  # positions of a batch
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class EmbeddingGradients:
    """Gradients of logits with respect to the word embeddings; zero but in the rows of a sample's own tokens.

    Attributes:
        owners: Number of the sample, (u,).
        places: Which of ``tokens``, (u,).
        values: ∂f_c(x_owner) / ∂ E_token, (u, C, d).
        tokens: Rows of E that any sample holds, ascending, (U,).
        samples: N.
        entries: V·d, the number of all parameters.
        width: h, the number of the feature's entries.
    """

    owners: Int[Tensor, " u"]
    places: Int[Tensor, " u"]
    values: Float[Tensor, "u c d"]
    tokens: Int[Tensor, " present"]
    samples: int
    entries: int
    width: int

    @property
    def present(self) -> tuple[int, int]:
        """(U, d): the parameters whose gradient is not zero for every sample."""
        return len(self.tokens), self.values.shape[2]

    def chunks(self, limit: int = _CHUNK_BYTES) -> Iterator[tuple[slice, Float[Tensor, "p nc"]]]:
        """Dense gradients of some tokens at a time: which, and (their parameters, N·C)."""
        count, width = self.present
        classes = self.values.shape[1]
        step = max(1, limit // (width * self.samples * classes * self.values.element_size()))
        for begin in range(0, count, step):
            inside = (self.places >= begin) & (self.places < begin + step)
            size = min(step, count - begin)
            dense = self.values.new_zeros(size, width, self.samples, classes)
            dense[self.places[inside] - begin, :, self.owners[inside]] = self.values[inside].transpose(1, 2)
            yield slice(begin, begin + size), dense.view(size * width, -1)

    def block(self, power: int = 1) -> Float[Tensor, "n c n c"]:
        """Σ_p (a_p b_p)^power over all parameters p: for 1 the exact block, for 2 what its variance needs."""
        return self._shaped(sum(dense.pow(power).T @ dense.pow(power) for _, dense in self.chunks()))

    def sampled_blocks(self, masks: Bool[Tensor, "draws present d"]) -> Float[Tensor, "draws n c n c"]:
        """Σ_p a_p b_p over the drawn parameters, one block for each draw."""
        classes = self.values.shape[1]
        total = self.values.new_zeros(len(masks), self.samples * classes, self.samples * classes)
        for which, dense in self.chunks():
            for draw, mask in enumerate(masks[:, which]):
                drawn = dense.index_select(0, mask.flatten().nonzero().flatten().to(dense.device))
                total[draw].addmm_(drawn.T, drawn)
        return total.view(len(masks), self.samples, classes, self.samples, classes)

    def _shaped(self, matrix: Any) -> Float[Tensor, "n c n c"]:
        classes = self.values.shape[1]
        return matrix.view(self.samples, classes, self.samples, classes)


def embedding_gradients(
    model: nn.Module,
    inputs: Any,
    *,
    precision: str = "float32",
    device: str | None = None,
    output_weights: Float[Tensor, "n h"] | None = None,
) -> EmbeddingGradients:
    """Compute the gradients of a classifier's logits with respect to its word embeddings.

    Args:
        model: The classifier; it is not changed.
        inputs: As for ``compute_ntk``.
        precision: ``float32`` or ``float64``.
        device: A torch device; None takes the one the model is on.
        output_weights: Factors on the entries of each sample's feature, so that gradients are those of
            V (s_n ⊙ φ(x_n)).

    Returns:
        The gradients, in the order of the inputs.

    Raises:
        InputError: Bad inputs, or a model whose word embeddings are not one table that is looked up.
    """
    model = copy.deepcopy(model)
    table = token_table(model)
    if table is None:
        raise InputError("the model does not say which table its word embeddings are; this experiment needs one")
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is table.weight)
    owners, places, values = [], [], []
    with open_setup(model, inputs, precision=precision, device=device) as setup:
        where, head = setup.classifier.device, setup.classifier.head.module
        tokens = torch.tensor(sorted({token for row in setup.rows for token in row["input_ids"]}), device=where)
        lookups = [each for each in setup.parameters if each.tensor is table.weight and each.rule is not None]
        for batch in setup.batches(_CELLS):
            numbers = torch.tensor(setup.column_order[batch.start : batch.start + batch.size])
            factors = None if output_weights is None else output_weights[numbers].to(where, setup.precision.model)
            with _weighted(head, factors):
                captured = [*capture(model, lookups, batch, setup.seeds, setup.precision.kernel).values()]
            if not captured or not isinstance(captured[0], SparseGradients):
                raise InputError("the model's word embeddings are not a plain lookup, one row of tokens a sample")
            owners.append(numbers.to(where)[captured[0].owners - batch.start])
            places.append(torch.searchsorted(tokens, captured[0].tokens))
            values.append(captured[0].values)
    return EmbeddingGradients(
        torch.cat(owners),
        torch.cat(places),
        torch.cat(values),
        tokens,
        len(setup.rows),
        table.weight.numel(),
        head.in_features,
    )


@contextmanager
def _weighted(head: nn.Linear, factors: Float[Tensor, "n h"] | None) -> Iterator[None]:
    """Multiply what the head sees, sample by sample."""
    if factors is None:
        yield
        return

    def weigh(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> tuple[tuple[Tensor], dict]:
        value = args[0] if args else next(iter(kwargs.values()))
        return (value * (factors if value.dim() == 2 else factors[:, None]),), {}

    hook = head.register_forward_pre_hook(weigh, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def draw_masks(
    present: tuple[int, int], entries: int, sampled: int, draws: int, rng: np.random.Generator
) -> Bool[Tensor, "draws present d"]:
    """Draw parameters of the whole matrix, uniformly without replacement, and keep what falls on the samples' tokens.

    Args:
        present: (U, d).
        entries: V·d.
        sampled: How many of the V·d are drawn each time.
        draws: How many times.
        rng: Source of randomness.

    Returns:
        True where a parameter is drawn.
    """
    inside = present[0] * present[1]
    masks = torch.zeros(draws, inside, dtype=torch.bool)
    for mask in masks:
        # How many of the draws fall on these parameters; which, is uniform again.
        hits = int(rng.hypergeometric(inside, entries - inside, sampled))
        mask[torch.from_numpy(rng.choice(inside, hits, replace=False, shuffle=False))] = True
    return masks.view(draws, *present)


def draw_outputs(samples: int, width: int, fraction: float, rng: np.random.Generator) -> Float[Tensor, "n h"]:
    """Draw entries of each sample's feature as the published code does: int(f·h) of them, divided by f."""
    weights = torch.zeros(samples, width, dtype=torch.float64)
    for row in weights:
        row[torch.from_numpy(rng.choice(width, max(1, int(width * fraction)), replace=False))] = 1 / fraction
    return weights


def sampling_variance(
    block: Float[Tensor, "n c n c"], squares: Float[Tensor, "n c n c"], entries: int, sampled: int
) -> Float[Tensor, "n c n c"]:
    """Variance of each entry of the scaled estimate (M/m) Σ_{p drawn} a_p b_p of Σ_p a_p b_p.

    The variance of a total under sampling without replacement, M² (1 − m/M) S² / m with
    S² = (Σ (a_p b_p)² − (Σ a_p b_p)² / M) / (M − 1).

    Source: Cochran (1977), "Sampling Techniques", theorem 2.2.

    Args:
        block: Σ_p a_p b_p.
        squares: Σ_p (a_p b_p)².
        entries: M, zeros included.
        sampled: m.
    """
    spread = (squares.double() - block.double().square() / entries) / max(1, entries - 1)
    return (entries * (entries - sampled) / sampled * spread).clamp_min(0)
