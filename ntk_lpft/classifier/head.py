"""The linear head of a classifier, f = Vφ + b: which module it is, and the feature φ that it sees."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ntk_lpft.classifier.frozen_weights import saving_no_wide_weights
from ntk_lpft.classifier.wrappers import config_of
from ntk_lpft.errors import InputError
from ntk_lpft.library_errors import told_as_bad_input


@dataclass(frozen=True)
class Head:
    """The last linear layer of a classifier: V = ``module.weight`` (C, h), b = ``module.bias`` (C) or none.

    Attributes:
        name: The module's name in ``model.named_modules()``.
        module: The layer itself.
    """

    name: str
    module: nn.Linear

    @property
    def parameters(self) -> list[nn.Parameter]:
        """V, and b where there is one."""
        return list(self.module.parameters())


def number_of_labels(model: nn.Module) -> int:
    """Read how many classes a single-label classifier has.

    Args:
        model: The classifier, with a transformers config.

    Returns:
        C, the number of logits.

    Raises:
        InputError: The model is a regression or multi-label model, or says nothing of its labels.
    """
    config = config_of(model)
    count = getattr(config, "num_labels", None)
    problem = getattr(config, "problem_type", None)
    if problem in ("regression", "multi_label_classification"):
        raise InputError(f"the model is set up for {problem.replace('_', ' ')}; a single-label classifier is needed")
    if count is None:
        raise InputError("the model's config has no num_labels; a sequence classifier is needed")
    if count < 2:
        raise InputError(f"the model has {count} output, as for regression; a classifier with 2 or more is needed")
    return int(count)


def models_own_code(tensors: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """Say in one line what a model's own code raises while it, or its backward pass, is run on a batch.

    Args:
        tensors: The batch.

    Returns:
        A context in which that is said, as an ``InputError``.
    """
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
    return told_as_bad_input(
        f"the model's own code fails on {shapes}",
        "give what it takes, or another precision if it computes in one dtype only",
    )


def logits_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> Float[Tensor, "n c"]:
    """Run the model on one batch and return its logits.

    Args:
        model: The classifier.
        tensors: One padded batch.

    Returns:
        f, (n, C).

    Raises:
        InputError: The model's own code fails on the batch.
    """
    with models_own_code(tensors), saving_no_wide_weights():
        output = model(**tensors)
    return output.logits if hasattr(output, "logits") else output[0]


@contextmanager
def _observed(module: nn.Module, seen: dict[str, Tensor]) -> Iterator[None]:
    """Cut the graph in front of ``module``, and note its input, as a new leaf, and its output."""

    def before(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> tuple[tuple[Tensor], dict]:
        # The body ran without a graph; only what the model does behind the head's input needs one.
        torch.set_grad_enabled(True)
        value = args[0] if args else next(iter(kwargs.values()))
        seen["input"] = value.detach().requires_grad_()
        return (seen["input"],), {}

    def after(_: nn.Module, args: object, output: Tensor) -> None:
        seen["output"] = output

    with module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after):
        yield


def features_and_logits(
    model: nn.Module, head: Head, tensors: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "n h"], Float[Tensor, "n c"]]:
    """Pooled features φ(x) that the head sees, and the logits, so that logits = φ Vᵀ + b.

    Decoder classifiers apply the head to every position and pick one of the results; the weight of each position
    in the logits is then read off the graph.

    Args:
        model: The classifier, in eval mode.
        head: Its head.
        tensors: One padded batch.

    Returns:
        φ, (n, h), and f, (n, C), both detached.

    Raises:
        InputError: The model does not call that head.
    """
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), _observed(head.module, seen):
        logits = logits_of(model, tensors)
    if "input" not in seen:
        raise InputError(f"the head {head.name} is not called by the model any more; find the model's head again")
    value = seen["input"].detach()
    if value.dim() > 2:
        if not logits.requires_grad:  # the head's output does not reach the logits
            return logits.new_full((value.shape[0], value.shape[-1]), torch.nan), logits
        with torch.enable_grad():  # also where the caller records no graph
            (weights,) = torch.autograd.grad(logits[:, 0].sum(), seen["output"])
        value = torch.einsum("nt,nth->nh", weights[..., 0].flatten(1), value.flatten(1, -2))
    return value.to(logits.device), logits.detach()


def head_input_gradients(
    model: nn.Module, head: Head, tensors: Mapping[str, Tensor], seeds: Float[Tensor, "k c"]
) -> Float[Tensor, "k ..."]:
    """Gradients of seeds @ logits with respect to what the head is given, summed over the samples.

    Args:
        model: The classifier, in eval mode.
        head: Its head.
        tensors: One padded batch.
        seeds: Linear combinations of the logits, (k, C).

    Returns:
        One gradient for each combination, of the shape of the head's input.
    """
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), _observed(head.module, seen):
        logits = logits_of(model, tensors)
    value = seen["input"]
    if not logits.requires_grad:  # the head's output does not reach the logits
        return value.new_zeros((len(seeds), *value.shape), requires_grad=False)
    with torch.enable_grad():
        rows = [
            torch.autograd.grad(logits, value, seed.to(logits).expand_as(logits), retain_graph=True)[0]
            for seed in seeds
        ]
    return torch.stack(rows)


def find_head(model: nn.Module, tensors: Mapping[str, Tensor]) -> Head:
    """Find the linear layer that makes the logits, by running the model once on a batch.

    A candidate is a ``torch.nn.Linear`` with C outputs that the forward pass calls; it is the head if the logits
    equal φ Vᵀ + b for the features it sees.

    Args:
        model: The classifier, in eval mode.
        tensors: A batch of at least one sample.

    Returns:
        The head.

    Raises:
        InputError: No layer fits, its weights are not its own, or the logits are NaN or infinite.
    """
    labels = number_of_labels(model)
    called: list[tuple[str, nn.Linear]] = []

    def note(name: str, module: nn.Linear) -> Any:
        return module.register_forward_hook(lambda *_: called.append((name, module)))

    with torch.no_grad(), ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and module.out_features == labels:
                hooks.enter_context(note(name, module))
        logits = logits_of(model, tensors)
    if logits.dim() != 2 or logits.shape[1] != labels:
        raise InputError(f"the model returns logits of shape {tuple(logits.shape)}, not (samples, {labels})")
    if not torch.isfinite(logits).all():
        dtype = str(logits.dtype).removeprefix("torch.")
        raise InputError(
            f"the model's logits are NaN or infinite on the first sample, in {dtype}; "
            "load a sound checkpoint, or take another precision if its code overflows in this one"
        )
    for name, module in reversed(called):
        head = Head(name, module)
        features, _ = features_and_logits(model, head, tensors)
        if features.dim() != 2 or features.shape[0] != logits.shape[0]:
            continue
        rebuilt = nn.functional.linear(features.to(module.weight.device), module.weight, module.bias)
        if torch.allclose(rebuilt.to(logits.device), logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max() + 1e-30)):
            _check_own_weights(model, head)
            return head
    tried = [name for name, _ in called]
    if len(set(tried)) == 1:
        raise InputError(
            f"no head found: the logits are not the V·φ + b of {tried[0]}, the one layer of {labels} outputs (tried "
            f"{tried[0]}); what scales or changes them behind it must go into its weights, or be taken out"
        )
    raise InputError(
        "no head found: no linear layer makes the logits as V·φ + b "
        f"(tried {', '.join(tried) or 'none with ' + str(labels) + ' outputs'})"
    )


def _check_own_weights(model: nn.Module, head: Head) -> None:
    """Refuse a head whose V and b are no parameters of its own: P is not ⟨φ, φ'⟩ ⊗ I then, and V cannot be set."""
    module = head.module
    own = module._parameters
    computed = [name for name in ("weight", "bias") if name not in own]
    if computed:
        others = sorted(name for name, _ in module.named_parameters() if name not in ("weight", "bias"))
        raise InputError(
            f"the head {head.name} computes its {computed[0]} from {', '.join(others) or 'something else'}, so that P "
            "is not ⟨φ, φ'⟩ ⊗ I; make it a plain layer first (torch.nn.utils.parametrize.remove_parametrizations, "
            "remove_weight_norm, prune.remove)"
        )
    mine = {id(parameter) for parameter in own.values() if parameter is not None}
    for name, other in model.named_modules():
        if other is not module and mine & {id(p) for p in other._parameters.values() if p is not None}:
            raise InputError(
                f"the head {head.name} shares its weights with {name}, so that they belong to both P and F; give the "
                "head weights of its own (a clone of them)"
            )
