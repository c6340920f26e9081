"""The inside of a measuring process: reads the work, times calls from a cold start, and writes what came out.

It needs nothing but numpy and safetensors, so that it runs in every peer's environment.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

Row = dict[str, list[int]]
# From V (C, h) and b (C) to Θ (N, C, N, C).
Call = Callable[[np.ndarray, np.ndarray], np.ndarray]


def read_rows(folder: Path) -> list[Row]:
    """Read the rows of a work, without padding."""
    tensors = load_file(folder / "rows.safetensors")
    lengths = tensors.pop("lengths")
    return [{name: value[i, :length].tolist() for name, value in tensors.items()} for i, length in enumerate(lengths)]


def serve(prepare: Callable[[Path, str], Call], libraries: list[str]) -> None:
    """Run as a process: ``FOLDER METHOD HEAD…``; one call for each head, in this order, in this one process.

    What was found is printed as one line of JSON: ``seconds`` of each call, ``peak`` memory in bytes, ``versions``, or
    how it ``failed``.

    Args:
        prepare: Loads the model of a folder for a method, and returns what is to be timed.
        libraries: Distributions whose versions are to be told.
    """
    folder, method, *heads = Path(sys.argv[1]), *sys.argv[2:]
    found: dict[str, object] = {"versions": {name: version(name) for name in libraries}, "seconds": []}
    taken: list[float] = []
    try:
        call = prepare(folder, method)
        given = load_file(folder / "heads.safetensors")
        for head in heads:
            weight, bias = given[f"{head}.weight"], given[f"{head}.bias"]
            began = time.perf_counter()
            kernel = call(weight, bias)
            taken.append(time.perf_counter() - began)
            save_file({"kernel": np.ascontiguousarray(kernel)}, folder / f"{method}.{head}.safetensors")
    # Whatever a peer raises is its result.
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        found["failed"] = f"{type(error).__name__}: {line}"
    found |= {"seconds": taken, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    print(json.dumps(found))
