"""Frozen weights in the dtype that they are stored in: widened where a layer uses them, never all of them at a time.

A wide copy holds the very numbers of the narrow weight, so that activations and gradients are those of a model that
was widened as a whole. It lives until the next layer needs one; the backward pass makes it again.
"""

from __future__ import annotations

import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntk_lpft.classifier.offloaded import offload_hooks, offloaded_weights
from ntk_lpft.classifier.quantised import dense_size, dequantiser, is_quantised

_Owner = tuple[nn.Module, str]


def is_narrow(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether a weight is frozen, and stored in fewer bits than the dtype that it is computed in."""
    return (
        not weight.requires_grad
        and weight.is_floating_point()
        and weight.dtype != dtype
        and torch.promote_types(weight.dtype, dtype) == dtype
    )


def _pretrained() -> type:
    """Return transformers' class of models; importing it takes seconds, which what needs no model must not wait for."""
    from transformers import PreTrainedModel

    return PreTrainedModel


@dataclass(frozen=True)
class _Saved:
    """What a graph keeps instead of a view of a wide weight."""

    owner: _Owner
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class FrozenWeights:
    """Frozen weights of one model that are not held as they are computed: narrow, quantised, or not in memory at all.

    Args:
        model: The model.
        dtype: What it is computed in.

    Attributes:
        dtype: What it is computed in.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        # For each of them what makes it as it is stored, but not quantised; and what stands in the module.
        self._makers: dict[_Owner, Callable[[], Tensor]] = {}
        self._stored: dict[_Owner, Tensor] = {}
        elsewhere = {(weight.module, weight.name): weight.load for weight in offloaded_weights(model).values()}
        for module in model.modules():
            if isinstance(module, nn.RNNBase | torch.jit.ScriptModule):
                continue  # their code keeps the weights by another way than their names
            for name, weight in module._parameters.items():
                if weight is None or weight.requires_grad:
                    continue
                if name == "weight" and is_quantised(module):
                    maker = dequantiser(module)
                elif (module, name) in elsewhere:
                    maker = elsewhere[module, name]
                elif is_narrow(weight, dtype):
                    maker = weight.detach
                else:
                    continue
                self._makers[module, name], self._stored[module, name] = maker, weight
        # What has been handed out, by its place in memory, with its version then; only as long as someone holds it.
        self._known: dict[int, tuple[_Owner, weakref.ref[Tensor], int]] = {}
        self._last: dict[_Owner, int] = {}
        # Those of the last module that used some: one that reads a weight several times, as experts do, widens it once.
        self._current: dict[_Owner, Tensor] = {}
        self._as_stored = False

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._makers)

    @property
    def kept(self) -> set[Tensor]:
        """The parameters that stay as they are stored."""
        return set(self._stored.values())

    @property
    def largest(self) -> int:
        """Bytes of the wide copies of that module which has the largest; tables of embeddings need none."""
        sizes: Counter[nn.Module] = Counter()
        for (module, _), weight in self._stored.items():
            if type(module).forward is not _Lookup.forward:
                sizes[module] += dense_size(module) if is_quantised(module) else weight.numel()
        return max(sizes.values(), default=0) * self.dtype.itemsize

    @property
    def held_in(self) -> list[str]:
        """The dtypes that they are stored in, by name."""
        return sorted({_held_in(module, weight) for (module, _), weight in self._stored.items()})

    def wide(self, owner: _Owner, loaded: Tensor | None = None) -> Tensor:
        """Return a weight as it is computed with; the same tensor as before where that is still in use.

        Args:
            owner: Its module, and its name there.
            loaded: The weight, where it is offloaded and has just been brought in.

        Returns:
            A tensor of the dtype that the model is computed in, which takes no part in any graph.
        """
        place = self._last.get(owner, 0)
        held = self._at(place)
        if held is None or held[0] != owner:
            if any(module is not owner[0] for module, _ in self._current):
                self._current = {}
            with torch.no_grad():
                value = (self._makers[owner]() if loaded is None else loaded.detach()).to(self.dtype)
            try:
                place = value.untyped_storage().data_ptr()
            except (RuntimeError, NotImplementedError):  # one of torch.func's, whose graphs take no hooks
                return value
            self._last[owner], self._known[place] = place, (owner, weakref.ref(value), value._version)
            self._current[owner] = value
            return value
        return held[1]

    def _at(self, place: int) -> tuple[_Owner, Tensor] | None:
        """Return what was handed out at a place in memory, if it still lies there, unchanged."""
        if place not in self._known:
            return None
        owner, reference, version = self._known[place]
        value = reference()
        if value is None or value._version != version or value.untyped_storage().data_ptr() != place:
            del self._known[place]
            return None
        return owner, value

    def read(self, module: nn.Module, name: str, value: Any) -> Any:
        """Return what a module's attribute is, given what stands there."""
        owner = (module, name)
        if self._as_stored or owner not in self._makers or not isinstance(value, Tensor):
            return value
        stored = self._stored[owner]
        if value is stored or value.is_meta:
            return self.wide(owner)
        if stored.is_meta:
            return self.wide(owner, value)
        return value.to(self.dtype) if is_narrow(value, self.dtype) else value  # another, that torch.func has put there

    def is_wide(self, value: Tensor) -> bool:
        """Whether a tensor is a wide weight, or a view of one."""
        return self._owner(value) is not None

    def _owner(self, value: Tensor) -> _Owner | None:
        known = self._at(value.untyped_storage().data_ptr()) if value.dtype == self.dtype else None
        return None if known is None else known[0]

    def saving(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Keep no wide weight in the graph that is recorded inside this context."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, value: Tensor) -> Tensor | _Saved:
        owner = self._owner(value)
        return value if owner is None else _Saved(owner, value.shape, value.stride(), int(value.storage_offset()))

    def _unpack(self, saved: Tensor | _Saved) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        return self.wide(saved.owner).as_strided(saved.size, saved.stride, saved.offset)

    @contextmanager
    def installed(self, model: nn.Module) -> Iterator[None]:
        """Let modules read their weights through `read`, and graphs that are made by `logits_of` keep no wide one.

        Args:
            model: The model; the classes of its modules are changed inside the context, and put back afterwards.
        """
        if not self:
            yield
            return
        owners = {module for module, _ in self._makers}
        chosen = [module for module in model.modules() if module in owners or issubclass(type(module), _pretrained())]
        before = [(module, module.__class__) for module in chosen]
        kinds: dict[type, type] = {}
        hooks = offload_hooks(model)
        token = _ACTIVE.set(self)
        try:
            for module, kind in before:
                if kind not in kinds:
                    kinds[kind] = _reading(kind, self, quantised=is_quantised(module))
                module.__class__ = kinds[kind]
            for hook in hooks:
                for name in _MOVES:
                    setattr(hook, name, self._moving(getattr(hook, name)))
            yield
        finally:
            _ACTIVE.reset(token)
            self._current = {}
            for hook in hooks:
                for name in _MOVES:
                    vars(hook).pop(name, None)
            for module, kind in before:
                module.__class__ = kind

    def _moving(self, move: Callable[..., Any]) -> Callable[..., Any]:
        """Let a hook that brings weights in, and drops them again, see them as they are stored."""

        def moved(*args: Any, **kwargs: Any) -> Any:
            before, self._as_stored = self._as_stored, True
            try:
                return move(*args, **kwargs)
            finally:
                self._as_stored = before

        return moved


_MOVES = ("pre_forward", "post_forward")  # what a hook of accelerate does around a forward pass
_ACTIVE: ContextVar[FrozenWeights | None] = ContextVar("frozen weights of the model that is opened", default=None)


def active_weights() -> FrozenWeights | None:
    """Frozen weights of the model that is opened; None where no model is."""
    return _ACTIVE.get()


def saving_no_wide_weights() -> Any:
    """Keep no wide copy of a frozen weight in the graph that is recorded inside this context."""
    weights = _ACTIVE.get()
    return nullcontext() if weights is None else weights.saving()


def _held_in(module: nn.Module, weight: Tensor) -> str:
    if is_quantised(module) and weight.dtype != torch.int8:
        return "4 bits"
    return str(weight.dtype).removeprefix("torch.")


class _Lookup(nn.Embedding):
    """Looks rows up before it widens them, so that no wide table is made."""

    def forward(self, input: Tensor) -> Tensor:
        weights, own = _ACTIVE.get(), self._parameters["weight"]
        if weights is None or own is None or own.is_meta or self.max_norm is not None:
            return super().forward(input)
        if not is_narrow(own, weights.dtype):
            return super().forward(input)
        return nn.functional.embedding(input, own, self.padding_idx).to(weights.dtype)


def _forward_of_dequantised(self: Any, x: Tensor) -> Tensor:
    return nn.functional.linear(x, self.weight, self.bias)


def _reading(kind: type, weights: FrozenWeights, *, quantised: bool) -> type:
    """Make a class whose modules read weights through `FrozenWeights.read`, and which is like theirs in all else."""

    def __getattr__(self: nn.Module, name: str) -> Any:
        return weights.read(self, name, kind.__getattr__(self, name))  # type: ignore[attr-defined]

    content: dict[str, Any] = {
        "__getattr__": __getattr__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    if issubclass(kind, _pretrained()):
        # Else that of the first of its weights.
        content["dtype"] = property(lambda self: weights.dtype)
    if quantised:
        content["forward"] = _forward_of_dequantised
    bases: tuple[type, ...] = (kind,)
    if issubclass(kind, nn.Embedding):
        # Behind a class of its own, which may multiply what it looks up.
        bases = (_Lookup,) if kind is nn.Embedding else (kind, _Lookup)
    return types.new_class(kind.__name__, bases, exec_body=lambda namespace: namespace.update(content))
