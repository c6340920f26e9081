"""``make bench-peers``: measure all peers on the same work, print the table, and write it to ``RESULTS.md``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.document import write_section
from benchmarks.first_call import best_dense, call
from benchmarks.inputs import text_of_length
from benchmarks.peers.environments import JAX, NNGEOMETRY, PLACE, Environment
from benchmarks.peers.report import Peer, lines
from benchmarks.processes import measure
from benchmarks.work import HEADS, write_work

SAMPLES, LENGTH = 16, 64
CHUNKS = (1, 2, 4, 8, 16)
MEMORY = 8 * 10**9
SECONDS = 600.0
WORK = PLACE / "work"
DERIVATIVES = ("jacobian-contraction", "ntk-vector-products", "structured-derivatives")


def _elsewhere(environment: Environment, module: str, method: str) -> dict[str, Any]:
    try:
        python: Path = environment.python()
    except RuntimeError as error:
        return {"failed": str(error), "seconds": []}
    return measure(
        [f"benchmarks.peers.{module}", str(WORK), method, *HEADS],
        python=python, memory=MEMORY, timeout=SECONDS, log=WORK / f"{method}.log",
    )  # fmt: skip


def measured() -> Iterator[Peer]:
    """Measure everything: the engine with each head, then the peers with one head after the other."""
    here = partial(call, WORK, memory=MEMORY, timeout=SECONDS)
    for head in HEADS:
        yield Peer("engine", f"ntk_lpft, {head}", (head, head), here("engine", head, head))
    try:
        best, chunks = best_dense(WORK, CHUNKS, *HEADS, memory=MEMORY, timeout=SECONDS)
        about = f"dense vmap(jacrev), {best} samples at a time, the best of {', '.join(map(str, CHUNKS))}"
        yield Peer(f"dense-{best}", about, HEADS, chunks[best])
    except RuntimeError as error:
        yield Peer("dense", "dense vmap(jacrev)", HEADS, {"failed": str(error), "seconds": []})
    yield Peer("vector-products", "NTK-vector products by torch.func", HEADS, here("vector-products", *HEADS))
    for method in DERIVATIVES:
        about = f"neural-tangents on Flax BERT, {method.replace('-', ' ').replace('ntk', 'NTK')}"
        yield Peer(method, about, HEADS, _elsewhere(JAX, "in_jax", method))
    for method in ("all-layers", "known-layers"):
        about = f"nngeometry, {'all layers' if method == 'all-layers' else 'without the embeddings'}"
        yield Peer(method, about, HEADS, _elsewhere(NNGEOMETRY, "in_nngeometry", method))


def main() -> None:
    """Measure, print and write."""
    write_work(WORK, text_of_length(SAMPLES, LENGTH))
    peers = list(measured())
    published = measure(["benchmarks.peers.published", str(WORK)], timeout=SECONDS)
    section = lines(peers, published, WORK, samples=SAMPLES, length=LENGTH, memory=MEMORY)
    print("\n".join(section))
    write_section("Peers", section)


if __name__ == "__main__":
    main()
