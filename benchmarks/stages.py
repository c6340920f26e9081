"""Where the time of one call goes: timers around the engine's stages, put there from outside."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

# What is timed, and the names under which the engine calls it. A stage within another counts as itself alone.
STAGES = {
    "inputs read": ("ntk_lpft.kernel.engine", "prepare_job"),
    "set-up": ("ntk_lpft.kernel.engine", "set_up"),
    "self-check": ("ntk_lpft.kernel.engine", "route_parameters"),
    "plan": ("ntk_lpft.kernel.engine", "set_out"),
    "capture": ("ntk_lpft.kernel.passes", "PassRunner._capture"),
    "contraction": ("ntk_lpft.kernel.passes", "PassRunner._contract"),
    "put together": ("ntk_lpft.kernel.engine", "_assemble"),
}


class Stopwatch:
    """Own time of each stage: without that of stages within it.

    Attributes:
        taken: Seconds by stage.
    """

    def __init__(self) -> None:
        self.taken = dict.fromkeys(STAGES, 0.0)
        self._inside = [0.0]

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed under the stage's name."""

        @functools.wraps(work)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                whole = time.perf_counter() - began
                self.taken[stage] += whole - self._inside.pop()
                self._inside[-1] += whole

        return watched


@contextmanager
def watched_stages() -> Iterator[Stopwatch]:
    """Time the stages of every kernel that is computed inside.

    Yields:
        The stopwatch.

    Raises:
        AttributeError: The engine has no function of a stage's name; ``STAGES`` is to follow it.
    """
    watch = Stopwatch()
    with ExitStack() as stack:
        for stage, (module, path) in STAGES.items():
            *owners, name = path.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            stack.enter_context(mock.patch.object(owner, name, watch.timed(stage, getattr(owner, name))))
        yield watch


def stages_of_call(call: Callable[[], Any]) -> dict[str, float]:
    """Time one call by stage.

    Args:
        call: Computes a kernel.

    Returns:
        Seconds by stage, ``the rest`` and ``whole``.
    """
    with watched_stages() as watch:
        began = time.perf_counter()
        call()
        whole = time.perf_counter() - began
    return {**watch.taken, "the rest": whole - sum(watch.taken.values()), "whole": whole}
