"""C += A Aᵀ, upper triangle only, on the CPU, by the BLAS that scipy brings; torch offers no such product."""

import ctypes
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import cython_blas
from threadpoolctl import ThreadpoolController
from torch import Tensor

_NUMBERS = {torch.float32: ("s", ctypes.c_float), torch.float64: ("d", ctypes.c_double)}

# A share of fewer columns is not worth a thread.
_LEAST_COLUMNS = 512

# Bytes that copies of C may take: more is not worth the tenth of time that blocks of C cost.
MOST_COPIES = 1 << 25


def supports(out: Tensor, matrix: Tensor) -> bool:
    """Whether ``add_upper_`` can do this product."""
    return (
        out.device.type == "cpu"
        and out.dtype == matrix.dtype
        and out.dtype in _NUMBERS
        and out.stride(1) == 1
        and matrix.stride(1) == 1
        and min(matrix.shape) > 0
    )


def add_upper_(out: Float[Tensor, "r r"], matrix: Float[Tensor, "r p"]) -> None:
    """Add the upper triangle of A Aᵀ to C; what lies below the diagonal stays as it is.

    Each thread calls BLAS with one thread of its own: BLAS's threads, and torch's, spin while they wait for work, and
    so slow each other down where calls to the two alternate. Of a small C every thread adds its share of A's columns to
    a copy; a large one is cut into blocks, which the threads take one after the other and add to in place.

    Args:
        out: C, changed in place.
        matrix: A.
    """
    threads = torch.get_num_threads()
    with _blas().limit(limits=1, user_api="blas"):
        if threads == 1:
            _symmetric(out, matrix)
        elif (threads - 1) * out.numel() * out.element_size() > MOST_COPIES:
            _by_blocks(out, matrix, threads)
        else:
            _by_columns(out, matrix, threads)


def _by_blocks(out: Tensor, matrix: Tensor, threads: int) -> None:
    # So many that the threads can share them evenly: those on the diagonal are half the work of the others.
    rows, count = matrix.shape[0], 2 * math.ceil((threads / 2) ** 0.5)
    bounds = [rows * i // count for i in range(count + 1)]
    parts = [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
    work: list[Callable[[], None]] = []
    # The larger pieces of work first, so that the threads end together.
    for i, upper in enumerate(parts):
        for lower in parts[i + 1 :]:
            work.append(lambda i=upper, j=lower: _product(out[i, j], matrix[i], matrix[j]))  # type: ignore[misc]
    for part in parts:
        work.append(lambda i=part: _symmetric(out[i, i], matrix[i]))  # type: ignore[misc]
    list(_pool(threads).map(lambda step: step(), work))


def _by_columns(out: Tensor, matrix: Tensor, threads: int) -> None:
    shares = max(1, min(threads, matrix.shape[1] // _LEAST_COLUMNS))
    bounds = [matrix.shape[1] * i // shares for i in range(shares + 1)]
    # numpy's zeros and sums, as torch's would leave its threads spinning.
    copies = [out, *(torch.from_numpy(np.zeros(out.shape, out.numpy().dtype)) for _ in range(shares - 1))]
    list(_pool(threads).map(lambda i: _symmetric(copies[i], matrix[:, bounds[i] : bounds[i + 1]]), range(shares)))
    total = out.numpy()
    for part in copies[1:]:
        total += part.numpy()


def _symmetric(out: Tensor, matrix: Tensor) -> None:
    # BLAS counts columns first: its lower triangle is our upper one, and A as it lies is its Aᵀ.
    letters = [ctypes.c_char(b"L"), ctypes.c_char(b"T")]
    sizes = [matrix.shape[0], matrix.shape[1]]
    _call("syrk", out.dtype, letters, sizes, [(matrix, matrix.stride(0))], (out, out.stride(0)))


def _product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """``out += left @ right.T``."""
    letters = [ctypes.c_char(b"T"), ctypes.c_char(b"N")]
    sizes = [right.shape[0], left.shape[0], left.shape[1]]
    _call("gemm", out.dtype, letters, sizes, [(right, right.stride(0)), (left, left.stride(0))], (out, out.stride(0)))


def _call(
    name: str,
    dtype: torch.dtype,
    letters: list[Any],
    sizes: list[int],
    factors: list[tuple[Tensor, int]],
    out: tuple[Tensor, int],
) -> None:
    letter, number = _NUMBERS[dtype]
    one = number(1.0)
    # Everything is handed over by reference, and must live until the call returns.
    whole = [ctypes.c_int(size) for size in sizes]
    leading = [ctypes.c_int(stride) for _, stride in [*factors, out]]
    arguments = [ctypes.addressof(value) for value in [*letters, *whole]] + [ctypes.addressof(one)]
    for (tensor, _), stride in zip(factors, leading, strict=False):
        arguments += [tensor.data_ptr(), ctypes.addressof(stride)]
    arguments += [ctypes.addressof(one), out[0].data_ptr(), ctypes.addressof(leading[-1])]
    _routine(letter + name, len(arguments))(*arguments)


@cache
def _routine(name: str, arguments: int) -> Any:
    """Look a routine up in scipy's BLAS, as a function that lets go of Python's lock while it runs."""
    routines: dict[str, Any] = dict(cython_blas.__pyx_capi__)
    capsule = routines[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get_pointer(capsule, get_name(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="syrk")


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
