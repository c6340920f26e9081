"""Dense per-sample gradients by plain autograd and by torch.func: the two reference ways."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.head import logits_of, models_own_code
from ntk_lpft.classifier.rows import Batch, Row


def random_seeds(num_labels: int) -> Float64[Tensor, "2 c"]:
    """Two combinations of the logits that stand for all: what is wrong agrees on them with probability zero."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, num_labels), generator=generator, dtype=torch.float64, device="cpu")


def sample_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], batch: Batch, seeds: Float[Tensor, "k c"]
) -> list[Float[Tensor, "k p"]]:
    """Gradients of seeds @ logits of ONE sample, by ``torch.autograd.grad``.

    Args:
        model: The classifier, in eval mode.
        parameters: What to differentiate by.
        batch: A batch of one sample.
        seeds: Linear combinations of the logits, (k, C).

    Returns:
        For each parameter (k, p), p its number of entries; zero where it does not take part.
    """
    with torch.enable_grad():
        logits = logits_of(model, batch.tensors)
    if not logits.requires_grad:  # no parameter that is trained takes part
        return [p.new_zeros((len(seeds), p.numel()), device=seeds.device, requires_grad=False) for p in parameters]
    with models_own_code(batch.tensors):
        gradients = channel_gradients(logits, parameters, seeds)
    rows = [
        [(torch.zeros_like(p) if gradient is None else gradient).flatten().to(seeds.device) for gradient in channels]
        for p, channels in zip(parameters, gradients, strict=True)
    ]
    # A single one need not be copied: it may be as large as a table of embeddings.
    return [channels[0][None] if len(channels) == 1 else torch.stack(channels) for channels in rows]


def channel_gradients(
    logits: Float[Tensor, "n c"], targets: Sequence[Tensor] | Sequence[GradientEdge], seeds: Float[Tensor, "k c"]
) -> list[list[Tensor | None]]:
    """Gradients of seeds @ logits, summed over samples, by plain autograd.

    Args:
        logits: Of one batch, with their graph, which is used up.
        targets: What to differentiate by.
        seeds: Linear combinations of the logits, (k, C).

    Returns:
        For each target one gradient a combination; None where it does not take part.
    """
    if not targets:
        return []
    rows = [
        torch.autograd.grad(
            logits,
            targets,
            grad_outputs=seed.to(logits).expand_as(logits),
            retain_graph=channel + 1 < len(seeds),
            allow_unused=True,
        )
        for channel, seed in enumerate(seeds)
    ]
    return [list(of_target) for of_target in zip(*rows, strict=True)]


def functional_gradients(
    model: nn.Module, names: Sequence[str], batch: Batch, seeds: Float[Tensor, "k c"]
) -> list[Float[Tensor, "n k p"]]:
    """Gradients of seeds @ logits by ``torch.func``: ``vmap`` over samples of ``jacrev`` over parameters.

    Samples in the batch must have equal lengths: the attention mask, all ones, is not mapped over, since
    transformers looks at its values. Models whose forward pass looks at other values go sample by sample.

    Args:
        model: The classifier, in eval mode.
        names: Parameters to differentiate by.
        batch: A batch without padding.
        seeds: Linear combinations of the logits, (k, C).

    Returns:
        For each parameter (n, k, p).
    """
    chosen = {name: p.detach() for name, p in model.named_parameters() if name in set(names)}
    tensors = {name: value for name, value in batch.tensors.items() if name != "attention_mask"}
    mask = batch.tensors["attention_mask"][:1]

    def seeded(values: dict[str, Tensor], sample: dict[str, Tensor]) -> Tensor:
        one = {name: value[None] for name, value in sample.items()} | {"attention_mask": mask}
        output = torch.func.functional_call(model, values, (), one)
        return seeds @ (output.logits if hasattr(output, "logits") else output[0])[0]

    jacobian = torch.func.jacrev(seeded)
    with warnings.catch_warnings():
        # Some operators have no batching rule and are looped over; slower, not different.
        warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
        try:
            jacobians = torch.func.vmap(jacobian, in_dims=(None, 0))(chosen, tensors)
        except RuntimeError as error:
            if "vmap" not in str(error) and "data-dependent" not in str(error):
                raise
            parts = [jacobian(chosen, {k: v[i] for k, v in tensors.items()}) for i in range(batch.size)]
            jacobians = {name: torch.stack([part[name] for part in parts]) for name in names}
    return [jacobians[name].detach().reshape(batch.size, len(seeds), -1).to(seeds.device) for name in names]


def equal_length_batches(classifier: Classifier, rows: Sequence[Row], most: int) -> Iterator[Batch]:
    """Neighbouring rows of equal length, at most ``most`` at a time."""
    start = 0
    for _, group in groupby(rows, key=lambda row: len(row["input_ids"])):
        alike = list(group)
        for at in range(0, len(alike), most):
            yield classifier.collate(alike[at : at + most], start + at)
        start += len(alike)
