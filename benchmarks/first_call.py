"""One call in a fresh process: the engine against the dense Jacobian at its best, and where the engine's time goes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.dense import CHUNKS
from benchmarks.inputs import ragged_text
from benchmarks.processes import ROOT, measure
from benchmarks.work import HEADS, difference, read_kernel, write_work

SAMPLES, LONGEST = 32, 64
WORK = ROOT / "build" / "benchmarks" / "first-call"
HEAD_NAMES = {"random": "random head", "lp": "LP head"}
TARGETS = {"random": 4, "lp": 8}
Row = tuple[str, str, str]


def call(folder: Path, method: str, *heads: str, **limits: Any) -> dict[str, Any]:
    """Time a method of ``in_torch`` in a process of its own, one call for each head.

    Args:
        folder: The work.
        method: ``engine``, ``dense-CHUNK`` or ``vector-products``.
        heads: In the order of the calls.
        limits: As for ``measure``.

    Returns:
        What was measured.
    """
    return measure(["benchmarks.in_torch", str(folder), method, *heads], **limits)


def best_dense(folder: Path, chunks: Iterable[int], *heads: str, **limits: Any) -> tuple[int, dict[int, Any]]:
    """Time the dense Jacobian with each number of samples at a time.

    Args:
        folder: The work.
        chunks: The numbers.
        heads: As for ``call``.
        limits: As for ``measure``.

    Returns:
        The number whose fastest call is the fastest, and what was measured with each.

    Raises:
        RuntimeError: None came to an end.
    """
    found = {chunk: call(folder, f"dense-{chunk}", *heads, **limits) for chunk in chunks}
    done = [chunk for chunk in found if "failed" not in found[chunk]]
    if not done:
        raise RuntimeError(f"no dense Jacobian was computed: {next(iter(found.values()))['failed']}")
    return min(done, key=lambda chunk: min(found[chunk]["seconds"])), found


def first_calls() -> dict[str, Any]:
    """Measure engine and baseline with both heads, each in a process of its own.

    Returns:
        Of each head ``engine``, ``dense``, ``difference`` of the two and ``stages``; the ``best`` chunk and all
        ``chunks``.

    Raises:
        RuntimeError: A measurement failed.
    """
    write_work(WORK, ragged_text(SAMPLES, LONGEST))
    best, chunks = best_dense(WORK, (*CHUNKS, SAMPLES), "random")
    found: dict[str, Any] = {"best": best, "chunks": chunks}
    for head in HEADS:
        engine, dense = call(WORK, "engine", head), call(WORK, f"dense-{best}", head)
        stages = measure(["benchmarks.cases", "stages", str(WORK), head])
        for part in (engine, dense, stages):
            if "failed" in part:
                raise RuntimeError(f"the first call with {head} head failed: {part['failed']}")
        if head == "random":
            # The same as one of the chunks: the faster of the two counts.
            dense = min(dense, chunks[best], key=lambda one: one["seconds"][0])
        off = difference(read_kernel(WORK, "engine", head), read_kernel(WORK, f"dense-{best}", head))
        found[head] = {"engine": engine, "dense": dense, "difference": off, "stages": stages}
    return found


def first_call_rows(found: dict[str, Any]) -> list[Row]:
    """Say what was measured, by line: what, value, target."""
    chunks = ", ".join(
        f"{'all' if chunk == SAMPLES else chunk}: "
        + (one["failed"] if "failed" in one else f"{one['seconds'][0]:.1f} s, {one['peak'] / 1e9:.1f} GB")
        for chunk, one in found["chunks"].items()
    )
    rows = [("dense vmap(jacrev), by samples at a time", chunks, "")]
    for head, name in HEAD_NAMES.items():
        engine, dense = found[head]["engine"], found[head]["dense"]
        took, base = engine["seconds"][0], dense["seconds"][0]
        rows += [
            (f"MiniLM, N = {SAMPLES}, T ≤ {LONGEST} ragged, C = 2, {name}, one call in a fresh process",
             f"{took:.2f} s, {engine['peak'] / 1e9:.2f} GB", ""),
            (f"the same by dense vmap(jacrev), {found['best']} samples at a time",
             f"{base:.2f} s, {dense['peak'] / 1e9:.2f} GB", ""),
            ("… times faster", f"{base / took:.1f}", f"≥ {TARGETS[head]}"),
            ("… share of its peak memory", f"{engine['peak'] / dense['peak']:.3f}", "≤ 0.25"),
            ("… largest difference of the two, over max |Θ|", f"{found[head]['difference']:.1e}", ""),
        ]  # fmt: skip
    return rows


def stage_lines(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of stages, with the floor beside it."""
    names = list(found[HEADS[0]]["stages"]["stages"])
    rows = [
        [stage, *(f"{found[head]['stages']['stages'][stage]:.2f} s" for head in HEADS)] for stage in names
    ]  # fmt: skip
    for part, title in (("capture", "operations of capture"), ("contraction", "operations of contraction")):
        rows.append([f"{title}, at the rate of a matrix product", *(
            f"{one['flops'][part] / one['rate']:.2f} s" for one in (found[head]["stages"] for head in HEADS)
        )])  # fmt: skip
    rows.append(["floor: all operations, at the rate of a matrix product", *(
        f"{sum(one['flops'].values()) / one['rate']:.2f} s ({sum(one['flops'].values()) / 1e9:.0f} GFLOP at "
        f"{one['rate'] / 1e9:.0f} GFLOP/s)" for one in (found[head]["stages"] for head in HEADS)
    )])  # fmt: skip
    return ["stage", *(HEAD_NAMES[head] for head in HEADS)], rows
