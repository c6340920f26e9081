"""Clocks, peak memory, and the rate of a plain matrix product that all else is held against."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Median time of a call, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        _synchronise()
        began = time.perf_counter()
        work()
        _synchronise()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def product_rate(device: str = "cpu", size: int = 2048) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    matrix = torch.randn(size, size, device=device)
    return 2 * size**3 / seconds(lambda: matrix @ matrix, repeats=9)
