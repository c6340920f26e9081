"""C += A Aᵀ, upper triangle only, on the CPU: BLAS's symmetric rank-k update, which torch does not offer."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import cython_blas
from threadpoolctl import ThreadpoolController
from torch import Tensor

_ROUTINES = {torch.float32: ("ssyrk", ctypes.c_float), torch.float64: ("dsyrk", ctypes.c_double)}

# A share of fewer columns is not worth a thread.
_LEAST_COLUMNS = 512


def supports(out: Tensor, matrix: Tensor) -> bool:
    """Whether ``add_upper_`` can do this product."""
    return (
        out.device.type == "cpu"
        and out.dtype == matrix.dtype
        and out.dtype in _ROUTINES
        and out.stride(1) == 1
        and matrix.stride(1) == 1
        and min(matrix.shape) > 0
    )


def add_upper_(out: Float[Tensor, "r r"], matrix: Float[Tensor, "r p"]) -> None:
    """Add the upper triangle of A Aᵀ to C; what lies below the diagonal stays as it is.

    Every thread takes a share of A's columns and calls BLAS with one thread of its own. BLAS's own threads, and
    torch's, spin while they wait for work, and so slow each other down where calls to the two alternate.

    Args:
        out: C, changed in place.
        matrix: A.
    """
    threads = max(1, min(torch.get_num_threads(), matrix.shape[1] // _LEAST_COLUMNS))
    bounds = [matrix.shape[1] * i // threads for i in range(threads + 1)]
    # numpy's zeros and sums, as torch's would leave its threads spinning.
    parts = [out, *(torch.from_numpy(np.zeros(out.shape, out.numpy().dtype)) for _ in range(threads - 1))]

    def work(i: int) -> None:
        _update(parts[i], matrix[:, bounds[i] : bounds[i + 1]])

    with _blas().limit(limits=1, user_api="blas"):
        if threads == 1:
            work(0)
        else:
            list(_pool(threads).map(work, range(threads)))
    total = out.numpy()
    for part in parts[1:]:
        total += part.numpy()


def _update(out: Tensor, matrix: Tensor) -> None:
    routine, number = _routine(out.dtype)
    # BLAS counts columns first: its lower triangle is our upper one, and A as it lies is its Aᵀ.
    uplo, trans, one = ctypes.c_char(b"L"), ctypes.c_char(b"T"), number(1.0)
    sizes = [ctypes.c_int(v) for v in (matrix.shape[0], matrix.shape[1], matrix.stride(0), out.stride(0))]
    n, k, lda, ldc = (ctypes.byref(v) for v in sizes)
    alpha = beta = ctypes.byref(one)
    routine(ctypes.byref(uplo), ctypes.byref(trans), n, k, alpha, matrix.data_ptr(), lda, beta, out.data_ptr(), ldc)


@cache
def _routine(dtype: torch.dtype) -> tuple[Any, Any]:
    """Look the routine up in scipy's BLAS, as a function that lets go of Python's lock while it runs."""
    name, number = _ROUTINES[dtype]
    routines: dict[str, Any] = dict(cython_blas.__pyx_capi__)
    capsule = routines[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get_pointer(capsule, get_name(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 10)(address), number


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="syrk")


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
