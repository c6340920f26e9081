"""The baseline: the dense Jacobian by ``vmap(jacrev)``, in chunks of samples, multiplied with itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.inputs import Row

# Chunks of few samples are several times faster than all at once; which is best depends on the machine.
CHUNKS = (1, 2, 4, 8, 16)


class FirstTokenLogits(nn.Module):
    """Logits of a classifier on its first token, by a mask that ``vmap`` can map: added to scores, not looked into.

    Args:
        model: A ``LinearHeadClassifier`` that pools the first token.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if model.pooling != "first":
            raise ValueError(f"the baseline pools the first token, the model {model.pooling}")
        self.body, self.classifier = model.body, model.classifier

    def forward(self, mask: Tensor, **inputs: Tensor) -> Tensor:
        """Logits of one sample, (C), of inputs (T) and a mask (T) of 0 for tokens and the least number for padding."""
        one = {name: value[None] for name, value in inputs.items()}
        states = self.body(**one, attention_mask=mask[None, None, None]).last_hidden_state
        return self.classifier(states[0, 0])


def padded(rows: Sequence[Row], dtype: torch.dtype) -> dict[str, Tensor]:
    """Pad rows to the longest, and make the mask that is added to attention's scores.

    Args:
        rows: N rows.
        dtype: Of the mask.

    Returns:
        Each input, and ``mask``, of shape (N, T).
    """
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in rows]) for name in rows[0]
    }  # fmt: skip
    lengths = torch.tensor([[len(row["input_ids"])] for row in rows])
    mask = torch.zeros(len(rows), longest, dtype=dtype)
    return {**batch, "mask": mask.masked_fill_(torch.arange(longest) >= lengths, torch.finfo(dtype).min)}


def dense_jacobian_kernel(model: nn.Module, rows: Sequence[Row], chunk: int) -> Tensor:
    """Contract the dense Jacobian of all parameters, made of a chunk of samples of similar length at a time.

    Args:
        model: A ``LinearHeadClassifier`` in eval mode that pools the first token.
        rows: N rows of any lengths.
        chunk: Most samples that ``vmap`` is given at a time.

    Returns:
        Θ, of shape (N, C, N, C).
    """
    logits = FirstTokenLogits(model)
    parameters = {name: p.detach() for name, p in logits.named_parameters()}
    dtype = next(iter(parameters.values())).dtype
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))

    def of_one(values: dict[str, Tensor], sample: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(logits, values, (), sample)

    jacobian_of = torch.func.vmap(torch.func.jacrev(of_one), in_dims=(None, 0))
    jacobian: dict[str, Tensor] = {}
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for start in range(0, len(rows), chunk):
            some = [rows[i] for i in order[start : start + chunk]]
            piece = jacobian_of(parameters, padded(some, dtype))
            if len(some) == len(rows):
                jacobian = piece
                break
            for name in list(piece):
                value = piece.pop(name)
                if not start:
                    jacobian[name] = value.new_empty(len(rows), *value.shape[1:])
                jacobian[name][start : start + len(some)] = value
    n, c = len(rows), model.classifier.out_features
    kernel = torch.zeros(n * c, n * c, dtype=dtype)
    while jacobian:
        flat = jacobian.popitem()[1].reshape(n * c, -1)
        kernel += flat @ flat.T
    back = torch.argsort(torch.tensor(order))
    return kernel.view(n, c, n, c)[back][:, :, back]
