"""Before P is trusted: the head's part of the kernel against plain autograd, on two samples of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.head import Head
from ntk_lpft.classifier.rows import Row
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.autograd import random_seeds, sample_gradients
from ntk_lpft.kernel.precision import Precision


def feature_gram(head: Head, rows: Float[Tensor, "n h"], columns: Float[Tensor, "m h"]) -> Float[Tensor, "n m"]:
    """Make the feature kernel of a head whose V and b are trained, or only one of them.

    Source: Tomihari and Sato (2024), the pre-train-effective component P = (⟨φ, φ'⟩ + 1) ⊗ I.

    Args:
        head: The head.
        rows: φ of the row samples, of shape (N, h).
        columns: φ of the column samples, of shape (M, h).

    Returns:
        ⟨φ, φ'⟩, + 1 where b is trained, of shape (N, M), in float64, as P is one small product and carries the large,
        nearly constant part of the kernel.
    """
    weight, bias = head.module.weight, head.module.bias
    gram = rows.double() @ columns.double().T * float(weight.requires_grad)
    return gram + (1.0 if bias is not None and bias.requires_grad else 0.0)


def check_head(
    classifier: Classifier, rows: Sequence[Row], body: Sequence[nn.Parameter], precision: Precision
) -> float:
    """Compare P of the longest and the shortest sample with plain autograd by the head's parameters.

    Two random combinations of the logits stand for all of them, as in the self-check of F.

    Args:
        classifier: The classifier, opened.
        rows: Samples.
        body: Trainable parameters of the body.
        precision: dtypes, and the relative error that passes.

    Returns:
        ‖P − reference‖ / ‖reference‖ on the two samples, Frobenius norms; 0 where the head is not trained.

    Raises:
        InputError: P does not hold for this model, or gradients do not reach its body.
    """
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    batches = [classifier.collate([row]) for row in (ordered[-1], ordered[0])]
    _check_graph(classifier, batches[0].tensors, body)
    head = classifier.head
    trained = [parameter for parameter in head.parameters if parameter.requires_grad]
    if not trained:
        return 0.0
    seeds = random_seeds(head.module.out_features).to(classifier.device, precision.model)
    parts = [torch.cat(sample_gradients(classifier.module, trained, batch, seeds), dim=1) for batch in batches]
    jacobian = torch.cat(parts).double()
    reference = jacobian @ jacobian.T
    features = classifier.outputs(batches).features
    expected = torch.kron(feature_gram(head, features, features), seeds.double() @ seeds.double().T)
    error = float((expected - reference).norm() / reference.norm().clamp_min(1e-300))
    if not error <= precision.tolerance:
        raise InputError(
            f"P = ⟨φ, φ'⟩ ⊗ I does not hold for the head {head.name}: plain autograd differs from it by {error:.1e} of "
            "its norm; the head is used in more than one place, or a hook or a function of it changes its gradient"
        )
    return error


def _check_graph(classifier: Classifier, tensors: dict[str, Tensor], body: Sequence[nn.Parameter]) -> None:
    """Refuse a model whose forward keeps no record of what made its logits."""
    with torch.enable_grad():
        logits = classifier.logits(tensors)
    if not logits.requires_grad:
        raise InputError(
            "the model's logits carry no gradient: its forward runs without (torch.no_grad, detach), or what it was "
            "told to train takes no part in it"
        )
    if not body:
        return
    nodes, trained = _graph(logits.grad_fn), {id(parameter) for parameter in body}
    if any("NotImplemented" in node.name() for node in nodes):
        raise InputError(
            "the model has layers without gradients, such as quantised ones; load it in float32, or train its head "
            "alone (requires_grad_(False) on its body)"
        )
    if not any(id(getattr(node, "variable", None)) in trained for node in nodes):
        raise InputError(
            f"no gradient reaches any of the {len(body)} trainable parameters of the body: its forward runs without "
            "(torch.no_grad, detach), or adapters are merged or switched off; freeze the body if that is meant "
            "(requires_grad_(False))"
        )


def _graph(start: Any) -> list[Any]:
    """All nodes of a graph; no gradient is computed, which may need much memory."""
    waiting, seen = [start], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return list(seen)
