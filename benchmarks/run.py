"""``make bench``: the engine against the dense Jacobian, by stage, and against what the machine can do.

Names of cases as arguments measure these alone and print them; nothing is written then.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.document import machine, table, write_section
from benchmarks.first_call import first_call_rows, first_calls, stage_lines
from benchmarks.processes import measure

FIRST_CALL = "first-call"
CASES = (FIRST_CALL, "cb", "roberta", "forms", "gpu-float32", "gpu-tf32")
Row = tuple[str, str, str]


def run_case(name: str) -> dict[str, Any]:
    """Measure one case in processes of its own."""
    return first_calls() if name == FIRST_CALL else measure(["benchmarks.cases", name])


def gib(amount: float) -> str:
    """Bytes for people, decimal gigabytes."""
    return f"{amount / 1e9:.2f} GB"


def _cb(cb: dict[str, Any]) -> list[Row]:
    total, (capture, contraction) = sum(cb["flops"].values()), cb["flops"].values()
    return [
        ("CB, 250 samples, C = 3, MiniLM, all layers", f"{cb['seconds']:.1f} s, {cb['passes']} passes", ""),
        ("… operations needed (capture, contraction)",
         f"{total / 1e12:.2f} TFLOP ({capture / 1e12:.2f}, {contraction / 1e12:.2f})", ""),
        ("… rate, and that of a matrix product (before, after)",
         f"{total / cb['seconds'] / 1e9:.0f} GFLOP/s ({cb['rates'][0] / 1e9:.0f}, {cb['rates'][1] / 1e9:.0f})", ""),
        ("… share of the product rate", f"{cb['share']:.1%}", "≥ 60 %"),
        ("… peak memory of the process", gib(cb["peak"]), "< 6 GB"),
    ]  # fmt: skip


def _roberta(large: dict[str, Any]) -> list[Row]:
    return [
        ("roberta-base size, N = 64, C = 2, T = 128", f"{large['seconds']:.1f} s, {large['passes']} passes", ""),
        ("… peak memory of the process (budget besides the model)",
         f"{gib(large['peak'])} ({gib(large['budget'])})", "24 GB machine"),
    ]  # fmt: skip


def _many_classes(found: dict[str, Any]) -> list[Row]:
    return [
        (f"MiniLM, C = 77, N = 16, T = 32, outputs {name}",
         f"{found[name]['seconds']:.1f} s, relative error on two samples {found[name]['error']:.1e}", "")
        for name in ("full", "class_trace", "pseudo")
    ]  # fmt: skip


def _large_decoder(found: dict[str, Any]) -> list[Row]:
    return [
        ("TinyLlama's shape, 1.04 billion parameters in bfloat16, LoRA (r = 8), N = 32, C = 2, T ≤ 64",
         f"{found['seconds']:.0f} s ({found['processor']:.0f} s of processor time)", ""),
        ("… peak memory of the process (weights and plan, as predicted)",
         f"{gib(found['peak'])} ({gib(found['predicted'])})", "< 16 GB"),
        ("… relative error of F against plain autograd on two samples (of P)",
         f"{found['error']:.1e} ({found['head_error']:.1e})", ""),
    ]  # fmt: skip


def _gpu(result: dict[str, Any], what: str) -> list[Row]:
    measured = f"{result['seconds']:.2f} s, {result['share']:.0%} of product rate, {gib(result['peak'])}"
    return [(f"{what} ({result['device']})", measured, "")]


_ROWS = {"cb": _cb, "roberta": _roberta, "many-classes": _many_classes, "large-decoder": _large_decoder}


def rows_of(name: str, found: dict[str, Any]) -> list[Row]:
    """Lines of one case: what, measured, target."""
    what = {
        "cb": "CB, 250 samples, C = 3, MiniLM",
        "roberta": "roberta-base size, N = 64, C = 2, T = 128",
        "many-classes": "MiniLM, C = 77",
        "large-decoder": "TinyLlama's shape, LoRA",
    }.get(name, f"roberta-base size, N = 250, C = 3, T ≤ 128, {name[4:]} on a GPU")
    for word in ("skipped", "failed"):
        if word in found:
            return [(what, f"{'not measured' if word == 'skipped' else 'failed'}: {found[word]}", "")]
    if name == FIRST_CALL:
        return first_call_rows(found)
    if name == "forms":
        return [(form, f"{value:.2f}", "") for form, value in found.items()]
    return _ROWS[name](found) if name in _ROWS else _gpu(found, what)


def main() -> None:
    """Measure, print and write."""
    chosen = sys.argv[1:] or list(CASES)
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        raise SystemExit(f"unknown case {unknown[0]!r}; choose from {', '.join(CASES)}")
    found = {name: run_case(name) for name in chosen}
    if set(chosen) != set(CASES):
        print(json.dumps(found, indent=2))
        return
    lines = [
        f"Written by `make bench`. {machine()}, float32.",
        "Ratios are taken within one run; times are of a shared machine and vary from run to run. A call in a fresh",
        "process is the first one there, imports excluded; an LP head is the library's linear probe, fitted before.",
        "",
        *table(("what", "measured", "target"), [row for name in chosen for row in rows_of(name, found[name])]),
        "",
        "Where the time of that first call goes (timers around the engine's functions), and what its operations need:",
        "",
        *table(*stage_lines(found[FIRST_CALL])),
    ]
    print("\n".join(lines))
    write_section("Engine", lines)


if __name__ == "__main__":
    main()
