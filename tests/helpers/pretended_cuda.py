"""A pretended CUDA device: tensors in the processor's memory that must not meet those that are "not on the device".

What is moved to ``cuda`` gets a mark on its storage, which its views and all that is computed from it inherit. Where
marked and unmarked tensors meet in one operation, or a marked one is read as numpy, the exceptions of CUDA are raised;
whatever would make the processor wait for the device is counted, with the place in the library where it happens.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ntk_lpft

LIBRARY = str(Path(ntk_lpft.__file__).parent)
DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten

# Whose results have a size, or are a value, that the processor must know.
_WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.equal,
    aten.unique_consecutive, aten.unique_dim_consecutive, aten.repeat_interleave, aten.bincount, aten.is_nonzero,
    aten._linalg_check_errors, aten.linalg_eigh, aten._linalg_eigh, aten._linalg_svd, aten._linalg_solve_ex,
}  # fmt: skip
# Between devices by their nature, or with indices that CUDA takes from the processor.
_CROSSING = {aten.copy_, aten._to_copy, aten.index, aten.index_put_, aten._index_put_impl_, aten.set_}
_INDEXING = {aten.index, aten.index_put_, aten._index_put_impl_}
# What makes a tensor of none. Called from Python without a device, they make it on the processor; called from within
# torch, as in a backward pass, they are told a device that cannot be seen here, and what they make fits either.
_FACTORIES = {
    torch.tensor, torch.as_tensor, torch.zeros, torch.ones, torch.empty, torch.full, torch.eye, torch.arange,
    torch.linspace, torch.rand, torch.randn, torch.randint, torch.randperm, torch.scalar_tensor,
}  # fmt: skip


@dataclass
class Waits:
    """How often the processor waited for the device.

    Attributes:
        at: By operation and place, ``file:line`` of the library, or of what it called.
    """

    at: Counter[tuple[str, str]] = field(default_factory=Counter)

    def note(self, operation: str) -> None:
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(LIBRARY):
            frame = frame.f_back
        place = "elsewhere" if frame is None else f"{frame.f_code.co_filename[len(LIBRARY) + 1 :]}:{frame.f_lineno}"
        self.at[operation, place] += 1

    @property
    def total(self) -> int:
        """How often in all."""
        return sum(self.at.values())

    def within(self, *files: str) -> int:
        """How often in some files of the library, named as in its folder."""
        return sum(count for (_, place), count in self.at.items() if place.split(":")[0] in files)


def _storage(tensor: Tensor) -> Any:
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def on_device(tensor: Tensor) -> bool:
    """Whether a tensor is on the pretended device."""
    return _place(tensor) is True


def _place(tensor: Tensor) -> bool | None:
    """Whether a tensor is on the pretended device; None if it fits either."""
    with torch._C.DisableTorchFunction():
        return tensor.device.type == "cpu" and getattr(_storage(tensor), "pretended", False)


def _mark(value: Any, wanted: bool | None) -> Any:
    with torch._C.DisableTorchFunction():
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
                storage = _storage(leaf)
                if not hasattr(storage, "pretended"):
                    storage.pretended = wanted
    return value


def _moved(tensor: Tensor, wanted: bool, dtype: torch.dtype | None) -> Tensor:
    """Return a copy on the other device, as far as autograd sees an ordinary conversion."""
    return tensor.to(dtype=dtype or tensor.dtype, copy=True)


class _Operators(TorchDispatchMode):
    """What happens below autograd: marks results, refuses mixtures, counts waits."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits
        self.forced: list[bool] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        with torch._C.DisableTorchFunction():
            real = [t for t in tensors if t.device.type == "cpu"]
            marked = [_place(t) for t in real]
            weighty = {mark for t, mark in zip(real, marked, strict=True) if mark or (mark is False and t.dim())}
        if len(weighty) == 2 and not self._may_cross(packet, args):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cpu and cuda:0 ({func})")
        if any(marked):
            self._count(packet, args, kwargs)
        result = func(*args, **kwargs)
        if packet is aten.copy_:
            return result
        if self.forced:
            return _mark(result, self.forced[-1])
        return _mark(result, True if any(marked) else False if False in marked else None)

    def _may_cross(self, packet: Any, args: Sequence[Any]) -> bool:
        # Indices may come from the processor, the rest may not.
        return packet in _CROSSING and (packet not in _INDEXING or on_device(args[0]))

    def _count(self, packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        name = str(packet).removeprefix("aten.")
        if packet in _WAITS:
            self.waits.note(name)
        elif packet in _INDEXING:
            indices = [index for index in args[1] if isinstance(index, Tensor)]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.waits.note(f"{name} by mask")
            elif not all(on_device(index) for index in indices):
                self.waits.note(f"{name} by the processor's indices")
        elif packet is aten.copy_ and on_device(args[0]) != on_device(args[1]):
            blocking = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
            if blocking or on_device(args[1]):
                self.waits.note("copy")


def _named(device: Any) -> torch.device | None:
    if isinstance(device, str | torch.device):
        return torch.device(device)
    return torch.device("cuda", device) if isinstance(device, int) and not isinstance(device, bool) else None


class _Functions(TorchFunctionMode):
    """What happens above autograd: devices that are asked for and told."""

    def __init__(self, waits: Waits, operators: _Operators) -> None:
        super().__init__()
        self.waits = waits
        self.operators = operators
        self.own: dict[Any, Callable[..., Any]] = {
            Tensor.device.__get__: lambda t: DEVICE if on_device(t) else t.device,
            Tensor.is_cuda.__get__: on_device,
            Tensor.is_cpu.__get__: lambda t: not on_device(t) and t.is_cpu,
            Tensor.get_device: lambda t: 0 if on_device(t) else t.get_device(),
            Tensor.to: self._to,
            Tensor.cpu: lambda t, *args, **kwargs: self._to(t, "cpu"),
            Tensor.cuda: lambda t, *args, **kwargs: self._to(t, "cuda"),
            Tensor.type: self._type,
            Tensor.tolist: self._tolist,
            Tensor.numpy: self._numpy,
            Tensor.__array__: self._numpy,
            Tensor.pin_memory: self._pin,
            torch.mm: self._product,
            torch.bmm: self._product,
            Tensor.mm: self._product,
            Tensor.bmm: self._product,
        }

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.own:
            return self.own[func](*args, **kwargs)
        if func in _FACTORIES and kwargs.get("device") is None:
            return self._forced(False, func, *args, **kwargs)
        device = _named(kwargs.get("device"))
        if device is None or device.type not in ("cpu", "cuda") or func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise RuntimeError(f"Expected a '{device.type}' device type for generator but found '{generator.device}'")
        kwargs["device"] = torch.device("cpu")
        return self._forced(device.type == "cuda", func, *args, **kwargs)

    def _forced(self, wanted: bool, func: Any, *args: Any, **kwargs: Any) -> Any:
        self.operators.forced.append(wanted)
        try:
            return _mark(func(*args, **kwargs), wanted)
        finally:
            self.operators.forced.pop()

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype = _named(kwargs.pop("device", None)), kwargs.pop("dtype", None)
        rest = []
        for value in args:
            if isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, Tensor):
                device, dtype = DEVICE if on_device(value) else value.device, value.dtype
            elif not isinstance(value, bool) and _named(value) is not None:
                device = _named(value)
            elif value is not None:
                rest.append(value)
        other = kwargs.pop("other", None)
        if other is not None:
            device, dtype = DEVICE if on_device(other) else other.device, other.dtype
        if device is not None and device.type == "meta":
            return tensor.to("meta", dtype or tensor.dtype)
        wanted = on_device(tensor) if device is None else device.type == "cuda"
        if wanted == on_device(tensor):
            return tensor.to(dtype or tensor.dtype, copy=bool(kwargs.get("copy")))
        if not wanted or not (kwargs.get("non_blocking") or (rest and rest[0] is True)):
            self.waits.note("to cuda" if wanted else "to cpu")
        return self._forced(wanted, _moved, tensor, wanted, dtype)

    def _type(self, tensor: Tensor, dtype: Any = None, **kwargs: Any) -> Any:
        if isinstance(dtype, torch.dtype):
            return self._to(tensor, dtype)
        if on_device(tensor) and dtype is None:
            return tensor.type().replace("torch.", "torch.cuda.")
        return tensor.type() if dtype is None else tensor.type(dtype, **kwargs)

    def _tolist(self, tensor: Tensor) -> Any:
        if on_device(tensor):
            self.waits.note("tolist")
        return tensor.tolist()

    def _numpy(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if on_device(tensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return tensor.numpy(*args, **kwargs)

    def _pin(self, tensor: Tensor, *args: Any) -> Tensor:
        if on_device(tensor):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        return tensor.clone()

    def _product(self, left: Tensor, right: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``out_dtype`` exists on CUDA alone; the product of two bfloat16 numbers is a float32 number."""
        product = torch.mm if left.dim() == 2 else torch.bmm
        dtype = kwargs.pop("out_dtype", None)
        if dtype is None:
            return product(left, right, *args, **kwargs)
        if not (on_device(left) and on_device(right)):
            raise NotImplementedError("'aten::mm.dtype' is only available for these backends: [CUDA, Meta, ...]")
        if left.dtype != right.dtype or (left.dtype, dtype) not in {
            (torch.bfloat16, torch.float32), (torch.float16, torch.float32), (dtype, dtype),
        }:  # fmt: skip
            raise RuntimeError("out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs")
        return product(left.to(dtype), right.to(dtype))


@contextmanager
def pretended_cuda() -> Iterator[Waits]:
    """Pretend that there is one CUDA device with 16 GiB, and count how often the processor waits for it.

    Yields:
        The count so far.
    """
    waits = Waits()
    memory = 16 << 30
    told: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *args: "pretended",
        "get_device_capability": lambda *args: (9, 0),
        "mem_get_info": lambda *args: (memory, memory),
        "get_device_properties": lambda *args: SimpleNamespace(name="pretended", total_memory=memory, major=9, minor=0),
        "memory_allocated": lambda *args: 0,
        "memory_reserved": lambda *args: 0,
        "max_memory_allocated": lambda *args: 0,
        "max_memory_reserved": lambda *args: 0,
        "reset_peak_memory_stats": lambda *args: None,
        "set_sync_debug_mode": lambda mode: None,
        "empty_cache": lambda: None,
        "synchronize": lambda *args: waits.note("synchronize"),
        "is_current_stream_capturing": lambda: False,
    }
    with pytest.MonkeyPatch.context() as patch, ExitStack() as modes:
        for name, value in told.items():
            patch.setattr(torch.cuda, name, value)
        operators = modes.enter_context(_Operators(waits))
        modes.enter_context(_Functions(waits, operators))
        yield waits
