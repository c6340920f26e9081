"""One forward and k backward passes with hooks: inputs and output gradients of every wanted layer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ntk_lpft.classifier.head import logits_of
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.autograd import channel_gradients
from ntk_lpft.kernel.body_parameters import BodyParameter
from ntk_lpft.kernel.gradients import SampleGradients, active_positions
from ntk_lpft.kernel.rules import LayerCalls
from ntk_lpft.library_errors import lacks_memory


class CaptureError(RuntimeError):
    """A module was called in a way that its rule does not know, or with an input whose samples cannot be told apart."""


@dataclass
class _Call:
    inputs: Tensor
    edge: GradientEdge
    output_features: int


@dataclass
class _Observer:
    """Collects the calls of the wanted modules during one forward pass.

    Attributes:
        modules: The wanted modules.
        batch: What the model is given.
        share: Whether a model may go on to look positions up once for all samples.
        expanded: Whether one was kept from it.
    """

    modules: Sequence[nn.Module]
    batch: Batch
    share: bool = False
    expanded: bool = False
    calls: dict[nn.Module, list[_Call]] = field(default_factory=dict)
    unknown: dict[nn.Module, CaptureError] = field(default_factory=dict)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hooks are there inside this context only."""
        with ExitStack() as hooks:
            for module in self.modules:
                if isinstance(module, nn.Embedding) and not self.share:
                    hooks.enter_context(module.register_forward_pre_hook(self._expand))
                hooks.enter_context(module.register_forward_hook(self._note, with_kwargs=True))
            yield

    def _expand(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Look positions up once for each sample where the model shares one row of them, (1, T)."""
        shared = args[0] if args else None
        if self.batch.size == 1 or not isinstance(shared, Tensor) or shared.dim() != 2 or shared.shape[0] != 1:
            return None
        self.expanded = True
        return (shared.expand(self.batch.size, -1), *args[1:])

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = [*args, *kwargs.values()]
        if len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(output, Tensor):
            self.unknown[module] = CaptureError(f"{type(module).__name__} takes or returns more than one tensor")
            return
        if not output.requires_grad:
            return
        value = given[0]
        # The edge, unlike the tensor, still means this output if the model goes on to change it in place.
        call = _Call(value.detach(), get_gradient_edge(output), output.shape[-1])
        self.calls.setdefault(module, []).append(call)


def _split_samples(value: Tensor, features: int | None, batch: Batch, module: nn.Module) -> Tensor:
    """Bring a tensor into the form (n, t, features), or (n, t) where ``features`` is None."""
    n = batch.size
    tail = () if features is None else (features,)
    if n == 1 or value.shape[0] == n or (value.dim() == 2 and value.shape[0] == n * batch.length):
        return value.reshape(n, -1, *tail)
    raise CaptureError(
        f"{type(module).__name__} got a tensor of shape {tuple(value.shape)}, with no dimension for the {n} samples"
    )


def capture(
    model: nn.Module,
    parameters: Sequence[BodyParameter],
    batch: Batch,
    seeds: Float[Tensor, "k c"],
    dtype: torch.dtype,
) -> dict[str, SampleGradients | CaptureError]:
    """Per-sample gradients of seeds @ logits with respect to each parameter.

    Args:
        model: The classifier, in eval mode.
        parameters: Parameters to capture; each has a rule.
        batch: One padded batch; of one sample, every call's leading dimensions count as positions.
        seeds: Linear combinations of the logits that are differentiated, (k, C); the identity for the full kernel.
        dtype: What captured floating-point tensors are stored in.

    Returns:
        A record for each parameter that takes part in the forward pass. Where a module's input has no dimension for
        the samples, or its rule fails, the exception that says so stands in the record's place.
    """
    modules = list(dict.fromkeys(module for parameter in parameters for module in parameter.modules))
    observer, logits = _observe(model, modules, batch)
    flat = [(module, call) for module, calls in observer.calls.items() for call in calls]
    gradients = channel_gradients(logits, [call.edge for _, call in flat], seeds)
    grads: dict[nn.Module, list[tuple[Tensor, Tensor] | CaptureError]] = {
        module: [mismatch] for module, mismatch in observer.unknown.items()
    }
    for index, (module, call) in enumerate(flat):
        channels = gradients[index]
        gradients[index] = []  # let go of each one as soon as it is copied
        try:
            inputs, outputs = _as_positions(module, call, channels, batch)
            # Layers of a model that is spread over devices are brought together here.
            grads.setdefault(module, []).append((inputs.to(seeds.device), outputs.to(seeds.device)))
        except CaptureError as error:
            grads.setdefault(module, []).append(error)
    joined = {
        modules: _joined(modules, grads, batch.start, dtype)
        for modules in dict.fromkeys(tuple(parameter.modules) for parameter in parameters)
    }
    if logits.is_cuda:
        _find_active(parameters, joined)
    return {
        parameter.name: record
        for parameter in parameters
        if (record := _record(parameter, joined[tuple(parameter.modules)])) is not None
    }


def _observe(model: nn.Module, modules: Sequence[nn.Module], batch: Batch) -> tuple[_Observer, Tensor]:
    """Run the model once with hooks on the modules, and return what they saw and the logits."""
    observer = _Observer(modules, batch)
    try:
        with torch.enable_grad(), observer.installed():
            return observer, logits_of(model, batch.tensors)
    except InputError:
        if not observer.expanded:
            raise
    # The model repeats by itself what it looks up once (the virtual tokens of prompt tuning), and got it repeated.
    observer = _Observer(modules, batch, share=True)
    with torch.enable_grad(), observer.installed():
        return observer, logits_of(model, batch.tensors)


def _as_positions(module: nn.Module, call: _Call, channels: list[Tensor | None], batch: Batch) -> tuple[Tensor, Tensor]:
    """Return inputs (n, t, …) and gradients (n, t, k, o) of one call."""
    lookup = isinstance(module, nn.Embedding)
    inputs = _split_samples(call.inputs, None if lookup else call.inputs.shape[-1], batch, module)
    shape = (*inputs.shape[:2], call.output_features)
    known = next((g for g in channels if g is not None), None)
    if known is None:
        return inputs, torch.zeros((shape[0], shape[1], len(channels), shape[2]), device=inputs.device)
    stacked = torch.stack(
        [
            torch.zeros(shape, dtype=known.dtype, device=known.device)
            if g is None
            else _split_samples(g, call.output_features, batch, module)
            for g in channels
        ],
        dim=2,
    )
    return inputs, stacked


def _joined(
    modules: Sequence[nn.Module],
    grads: Mapping[nn.Module, list[tuple[Tensor, Tensor] | CaptureError]],
    start: int,
    dtype: torch.dtype,
) -> LayerCalls | CaptureError | None:
    """Put the calls of modules that share a parameter together; None where there is no call."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for call in (call for module in modules for call in grads.get(module, [])):
        if isinstance(call, CaptureError):
            return call
        pairs.append(call)
    if not pairs:
        return None
    # Several calls (shared layers, tied weights) are one sum over positions.
    inputs = pairs[0][0] if len(pairs) == 1 else torch.cat([a for a, _ in pairs], dim=1)
    outputs = pairs[0][1] if len(pairs) == 1 else torch.cat([g for _, g in pairs], dim=1)
    return LayerCalls(inputs, outputs, start, dtype)


def _find_active(
    parameters: Sequence[BodyParameter], joined: dict[tuple[nn.Module, ...], LayerCalls | CaptureError | None]
) -> None:
    """Note the active positions of all layers that drop others, at once: each question would wait for the GPU."""
    wanted = {
        tuple(parameter.modules): calls
        for parameter in parameters
        if parameter.rule is not None
        and parameter.rule.drops_positions(parameter.owners[0][1])
        and isinstance(calls := joined[tuple(parameter.modules)], LayerCalls)
    }
    found = active_positions([calls.grads for calls in wanted.values()])
    for (modules, calls), active in zip(wanted.items(), found, strict=True):
        joined[modules] = replace(calls, active=active)


def _record(parameter: BodyParameter, calls: LayerCalls | CaptureError | None) -> SampleGradients | CaptureError | None:
    if not isinstance(calls, LayerCalls) or parameter.rule is None:
        return calls if isinstance(calls, CaptureError) and parameter.rule is not None else None
    module, local = parameter.owners[0]
    try:
        return parameter.rule.record(module, local, calls)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if lacks_memory(error):
            raise
        # The module only looks like those that the rule is for.
        return CaptureError(f"the rule for {type(module).__name__} fails: {' '.join(str(error).split())[:120]}")
