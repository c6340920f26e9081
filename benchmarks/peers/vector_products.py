"""NTK-vector products by ``torch.func``: each column of a block as a product of the kernel with a unit vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from benchmarks.dense import FirstTokenLogits, padded
from benchmarks.inputs import Row


def vector_product_kernel(model: nn.Module, rows: Sequence[Row]) -> Tensor:
    """Compute Θ by a forward-mode product with a backward-mode product, for each pair of samples and each class.

    For one sample x at a time, and with it all x' at once, which is the fastest of 1, 4 and 16 at a time.

    Source: "Neural Tangent Kernels" in PyTorch's tutorials, method 2; Novak et al., ICML 2022, section 3.3.

    Args:
        model: A ``LinearHeadClassifier`` in eval mode that pools the first token.
        rows: N rows.

    Returns:
        Θ, of shape (N, C, N, C).
    """
    logits = FirstTokenLogits(model)
    parameters = {name: p.detach() for name, p in logits.named_parameters()}
    dtype = next(iter(parameters.values())).dtype
    samples = padded(rows, dtype)
    units = torch.eye(model.classifier.out_features, dtype=dtype)

    def block(one: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
        def of(sample: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
            return functional_call(logits, values, (), sample)

        backward = vjp(lambda values: of(one, values), parameters)[1]

        def product(vector: Tensor) -> Tensor:
            return jvp(lambda values: of(other, values), (parameters,), backward(vector))[1]

        return vmap(product)(units)

    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        blocks = [
            vmap(block, in_dims=(None, 0))({name: value[i] for name, value in samples.items()}, samples)
            for i in range(len(rows))
        ]
    return torch.stack(blocks).permute(0, 2, 1, 3)
