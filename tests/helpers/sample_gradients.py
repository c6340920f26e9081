"""Per-sample gradients of one module by plain autograd, and what the compact records of a rule stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from helpers.rule_cases import RuleCase
from ntk_lpft.kernel.gradients import DenseGradients, OuterGradients, SampleGradients
from ntk_lpft.kernel.rules import LayerCalls, find_rule

# Roundings, in float64, of a forward pass and its gradients, relative to the largest term. A norm subtracts numbers of
# the size of its inputs to get numbers of the size of their spread, hence so many.
_ROUNDINGS = 2**10 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Call:
    """One call of a module on a batch, with the gradients of k channels with respect to what it returned.

    Attributes:
        inputs: (n, t), or (n, t, i).
        grads: (n, t, k, o).
    """

    inputs: Shaped[Tensor, "n t *i"]
    grads: Float[Tensor, "n t k o"]


@dataclass(frozen=True)
class Terms:
    """Gradients of one parameter as sums over positions, ready to compare with.

    Attributes:
        jacobian: Σ_t, (n, k, …).
        magnitude: Σ_t of absolute values, which bounds the rounding of any order of summation.
        positions: Largest number of terms in a sum.
    """

    jacobian: Float[Tensor, "n k *p"]
    magnitude: Float[Tensor, "n k *p"]
    positions: int

    def assert_equal(self, found: Tensor, what: str, dtype: torch.dtype = torch.float64) -> None:
        """Compare entry by entry, and list those that differ.

        Args:
            found: What should be the Jacobian, in float64.
            what: Name for the message.
            dtype: The narrowest type in which the terms, or their factors, were kept or added up.
        """
        assert found.shape == self.jacobian.shape, what
        # A term has two rounded factors and is added up to t - 1 times; eps is twice the unit roundoff.
        rounding = (self.positions + 1) * torch.finfo(dtype).eps
        assert_entries_close(found, self.jacobian, rounding * self.magnitude + slack(self.magnitude), what)


def slack(magnitude: Tensor) -> float:
    """Return the rounding in float64 that a sum may show, from the sum of its terms' absolute values."""
    return _ROUNDINGS * float(magnitude.max()) if magnitude.numel() else 0.0


def assert_entries_close(found: Tensor, expected: Tensor, allowed: Tensor | float, what: str) -> None:
    """Fail where two tensors differ by more than is allowed for each entry, and show the first entries that do."""
    wrong = ~((found - expected).abs() <= allowed)  # so that NaN is wrong
    places = [tuple(place) for place in wrong.nonzero()[:5].tolist()]
    shown = "; ".join(f"{place}: {float(found[place])!r}, not {float(expected[place])!r}" for place in places)
    assert not places, f"{what}: {int(wrong.sum())} of {wrong.numel()} entries differ, {shown}"


def random_call(case: RuleCase, module: nn.Module, generator: Generator, n: int, t: int, k: int) -> Call:
    """Draw a case's inputs, and output gradients of which none is zero."""
    inputs = case.inputs(generator, n, t)
    with torch.no_grad():
        outputs = module(inputs).shape[-1]
    return Call(inputs, torch.randn(n, t, k, outputs, generator=generator, dtype=torch.float64))


def terms_of(module: nn.Module, batches: Sequence[Sequence[Call]]) -> dict[str, Terms]:
    """Per-sample gradients of every parameter by autograd: one sample, position and channel at a time.

    Args:
        module: The module; nothing is asked of it but its forward pass.
        batches: Batches of samples that follow each other; each one is a list of calls of the module.

    Returns:
        The gradients of all samples by the parameter's name.
    """
    names = [name for name, _ in module.named_parameters()]
    samples = [_terms_of_sample(module, batch, n) for batch in batches for n in range(len(batch[0].inputs))]
    return {
        name: Terms(
            jacobian=torch.stack([sample[index].sum(dim=0) for sample in samples]),
            magnitude=torch.stack([sample[index].abs().sum(dim=0) for sample in samples]),
            positions=max(len(sample[index]) for sample in samples),
        )
        for index, name in enumerate(names)
    }


def _terms_of_sample(module: nn.Module, calls: Sequence[Call], n: int) -> list[Float[Tensor, "t k *p"]]:
    parameters = list(module.parameters())
    terms = []
    for call in calls:
        outputs = module(call.inputs[n : n + 1])[0]
        for output, channels in zip(outputs, call.grads[n], strict=True):
            terms.append([torch.autograd.grad(output, parameters, seed, retain_graph=True) for seed in channels])
    return [
        torch.stack([torch.stack([channel[index] for channel in position]) for position in terms])
        for index in range(len(parameters))
    ]


def record_batches(
    module: nn.Module, batches: Sequence[Sequence[Call]], dtype: torch.dtype = torch.float64
) -> dict[str, list[SampleGradients]]:
    """Ask the module's rule for the records of every parameter, one for each batch."""
    rule = find_rule(module)
    assert rule is not None
    records: dict[str, list[SampleGradients]] = {name: [] for name, _ in module.named_parameters()}
    start = 0
    for batch in batches:
        inputs, grads = torch.cat([c.inputs for c in batch], dim=1), torch.cat([c.grads for c in batch], dim=1)
        for name, parts in records.items():
            parts.append(rule.record(module, name, LayerCalls(inputs, grads, start, dtype)))
        start += len(inputs)
    return records


def tensors_of(record: SampleGradients) -> list[Tensor]:
    """Return the floating-point tensors of a record."""
    if isinstance(record, DenseGradients):
        return [record.jacobian]
    if isinstance(record, OuterGradients):
        return [record.inputs, record.grads]
    return [record.values]


def dense_jacobian(
    records: Sequence[SampleGradients], shape: Sequence[int], *, transposed: bool
) -> Float[Tensor, "n k *p"]:
    """Write records out in float64, by plain sums.

    Args:
        records: Records of one parameter.
        shape: Numbers of samples and channels, and the parameter's shape.
        transposed: Whether the parameter is the transpose of Σ_t g_t a_tᵀ.

    Returns:
        Gradients of all samples; zero where no record has any.
    """
    jacobian = torch.zeros(*shape, dtype=torch.float64)
    for record in records:
        if isinstance(record, DenseGradients):
            jacobian[record.start : record.start + record.size] += record.jacobian.double().view(-1, *shape[1:])
        elif isinstance(record, OuterGradients):
            matrices = torch.einsum("ntko,nti->nkoi", record.grads.double(), record.inputs.double())
            jacobian[record.start : record.start + record.size] += matrices.mT if transposed else matrices
        else:
            for owner, token, value in zip(record.owners, record.tokens, record.values, strict=True):
                jacobian[owner, :, token] += value
    return jacobian
