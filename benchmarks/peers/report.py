"""The table of peers: how long, how much memory, how far from the engine's numbers, or how they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.document import machine, table
from benchmarks.work import HEADS, difference, read_kernel

# Twice what float32 leaves between two algorithms on this work, and far below what a lost layer changes.
SAME = 1e-5
GOAL, PUBLISHED_GOAL = 8, 1200
_LONGEST_LINE = 160
_NOTES = """\
Same weights (of MiniLM), heads and rows for all. Each peer is alone in a process, {memory:.0f} GB of memory at most.
Models are loaded and libraries imported before the clock starts; the first call has everything else in it, compilation
by jax too. A peer's first call has the random head, its second in the same process the LP head, as its time does not
depend on it; the engine's does, so that each head has two calls of its own. Times faster: first calls / second calls.
Difference: the largest over both heads of max |Θ − Θ_engine| / max |Θ_engine|.
The published algorithm is extrapolated: 3 of the 384 entries of φ of one sample, scaled up to all entries and samples.
Not measured: TRAK, LoGra and bergson project gradients at random: they estimate this kernel, they do not compute it."""


@dataclass(frozen=True)
class Peer:
    """One measured process.

    Attributes:
        method: Under which its kernels lie in the work's folder.
        about: What it is, for people.
        heads: The head of each call.
        found: What ``measure`` returned.
    """

    method: str
    about: str
    heads: tuple[str, ...]
    found: dict[str, Any]

    def difference(self, folder: Path) -> float:
        """Largest difference from the engine's kernels over max |Θ|, of all heads."""
        return max(
            difference(read_kernel(folder, self.method, head), read_kernel(folder, "engine", head))
            for head in dict.fromkeys(self.heads)
        )


def shortened(line: str) -> str:
    """Cut an error line so that it fits a table."""
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def _times(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in values)


def _ratios(seconds: Sequence[float], engine: Sequence[float]) -> list[float]:
    return [theirs / ours for theirs, ours in zip(seconds, engine, strict=False)]


def lines(
    peers: Sequence[Peer], published: dict[str, Any], folder: Path, *, samples: int, length: int, memory: int
) -> list[str]:
    """Make the section.

    Args:
        peers: The engine with each head first, then the others.
        published: What the published algorithm was measured with.
        folder: Where kernels lie.
        samples: N.
        length: T.
        memory: Most bytes of a peer.

    Returns:
        Lines of Markdown.

    Raises:
        RuntimeError: The engine itself failed.
    """
    engine = {peer.heads[0]: peer for peer in peers if peer.method == "engine"}
    for peer in engine.values():
        if "failed" in peer.found:
            raise RuntimeError(f"the engine failed: {peer.found['failed']}")
    ours = {head: engine[head].found["seconds"] for head in HEADS}
    rows, same = [], {}
    for peer in peers:
        found = peer.found
        if "failed" in found:
            rows.append([peer.about, f"fails: {shortened(found['failed'])}", "", "", "", "", ""])
            continue
        times = [f"{value:.2f} s" for value in found["seconds"]]
        if peer.method == "engine":
            rows.append([peer.about + " head", *times, f"{found['peak'] / 1e9:.2f} GB", "", "", ""])
            continue
        off = peer.difference(folder)
        ratios = [_ratios(found["seconds"], ours[head]) for head in HEADS]
        if off <= SAME:
            same[peer.about] = found["seconds"]
        rows.append(
            [peer.about, *times, f"{found['peak'] / 1e9:.2f} GB", f"{off:.1e}", *(_times(ratio) for ratio in ratios)]
        )
    goals: list[list[str]] = []
    if same:
        # By the call that favours the peer most.
        least = {head: min(min(_ratios(seconds, ours[head])) for seconds in same.values()) for head in HEADS}
        which = min(same, key=lambda about: min(_ratios(same[about], ours["lp"])))
        goals += [
            [f"times faster than the fastest peer with the same numbers, LP head ({which.partition(',')[0]})",
             f"{least['lp']:.1f}", f"≥ {GOAL}"],
            ["… random head", f"{least['random']:.1f}", ""],
        ]  # fmt: skip
    if "failed" in published:
        rows.append(["published algorithm", f"fails: {shortened(published['failed'])}", "", "", "", "", ""])
    else:
        whole = published["seconds_per_sample"] * samples
        of = [whole / ours[head][0] for head in HEADS]
        memory_of_one = f"{published['peak'] / 1e9:.2f} GB (one sample)"
        rows.append(
            ["published algorithm, extrapolated", f"{whole:.0f} s", "", memory_of_one, "", *(f"{r:.0f}" for r in of)]
        )
        goals += [
            ["times faster than the published algorithm, LP head", f"{of[1]:.0f}", f"≥ {PUBLISHED_GOAL}"],
            ["… random head", f"{of[0]:.0f}", ""],
        ]
    header = ("way", "first call", "second call", "peak memory", "difference", "engine times faster, random head",
              "LP head")  # fmt: skip
    return [
        f"Written by `make bench-peers`. MiniLM, N = {samples}, T = {length}, C = 2, the whole N × C × N × C kernel, "
        f"float32, {machine()}.",
        *_NOTES.format(memory=memory / 1e9).splitlines(),
        "",
        *table(header, rows),
        "",
        *table(("goal", "measured", "target"), goals),
        "",
        f"Versions: {_versions(peers)}.",
    ]


def _versions(peers: Sequence[Peer]) -> str:
    told = dict.fromkeys(
        ", ".join(f"{name} {number}" for name, number in peer.found["versions"].items())
        for peer in peers
        if peer.found.get("versions")
    )
    return "; ".join(told)
