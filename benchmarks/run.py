"""``make bench``: run every case, print the table, and write ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.cases import CASES

HERE = Path(__file__).parent


def measure(case: str) -> dict[str, Any]:
    """Run one case in a process of its own."""
    print(f"measuring {case} …", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "benchmarks.cases", case], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def gib(amount: float) -> str:
    """Bytes for people, decimal gigabytes."""
    return f"{amount / 1e9:.2f} GB"


def table(found: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Rows: what, measured, target."""
    small, dense, published = found["structured"], found["dense"], found["published"]
    rows = [
        ("MiniLM, N = 32, T = 64, C = 2: structured engine", f"{small['seconds']:.2f} s, {gib(small['peak'])}", ""),
        ("the same by a dense vmap(jacrev) Jacobian", f"{dense['seconds']:.2f} s, {gib(dense['peak'])}", ""),
        ("… times faster", f"{dense['seconds'] / small['seconds']:.1f}", "≥ 5"),
        ("… share of its peak memory", f"{small['peak'] / dense['peak']:.3f}", "≤ 0.25"),
        ("… relative difference of the two kernels", f"{dense['error']:.1e}", ""),
        ("published algorithm, one such sample", f"{published['seconds_per_sample']:.0f} s", ""),
        ("… times faster, per sample", f"{published['seconds_per_sample'] / (small['seconds'] / 32):.0f}", "≥ 500"),
    ]
    cb = found["cb"]
    if "skipped" in cb:
        rows.append(("CB, 250 samples, C = 3, MiniLM", f"skipped: {cb['skipped']}", ""))
    else:
        total = sum(cb["flops"].values())
        rows += [
            ("CB, 250 samples, C = 3, MiniLM, all layers", f"{cb['seconds']:.1f} s, {cb['passes']} passes", ""),
            ("… operations needed (capture, contraction)",
             f"{total / 1e12:.2f} TFLOP ({cb['flops']['capture'] / 1e12:.2f}, {cb['flops']['contraction'] / 1e12:.2f})",
             ""),
            ("… rate, and that of a matrix product (before, after)",
             f"{total / cb['seconds'] / 1e9:.0f} GFLOP/s ({cb['rates'][0] / 1e9:.0f}, {cb['rates'][1] / 1e9:.0f})", ""),
            ("… share of the product rate", f"{cb['share']:.1%}", "≥ 60 %"),
            ("… peak memory of the process", gib(cb["peak"]), "< 6 GB"),
        ]  # fmt: skip
    large = found["roberta"]
    rows += [
        ("roberta-base size, N = 64, C = 2, T = 128", f"{large['seconds']:.1f} s, {large['passes']} passes", ""),
        ("… peak memory of the process (budget besides the model)",
         f"{gib(large['peak'])} ({gib(large['budget'])})", "24 GB machine"),
    ]  # fmt: skip
    many = found["many-classes"]
    rows += [
        (f"MiniLM, C = 77, N = 16, T = 32, outputs {name}",
         f"{many[name]['seconds']:.1f} s, relative error on two samples {many[name]['error']:.1e}", "")
        for name in ("full", "class_trace", "pseudo")
    ]  # fmt: skip
    decoder = found["large-decoder"]
    rows += [
        ("TinyLlama's shape, 1.04 billion parameters in bfloat16, LoRA (r = 8), N = 32, C = 2, T ≤ 64",
         f"{decoder['seconds']:.0f} s ({decoder['processor']:.0f} s of processor time)", ""),
        ("… peak memory of the process (weights and plan, as predicted)",
         f"{gib(decoder['peak'])} ({gib(decoder['predicted'])})", "< 16 GB"),
        ("… relative error of F against plain autograd on two samples (of P)",
         f"{decoder['error']:.1e} ({decoder['head_error']:.1e})", ""),
    ]  # fmt: skip
    for name in ("gpu-float32", "gpu-tf32"):
        result = found[name]
        what = f"roberta-base size, N = 250, C = 3, T ≤ 128, {name[4:]} on a GPU"
        if "skipped" in result:
            rows.append((what, f"not measured: {result['skipped']}", ""))
        else:
            measured = f"{result['seconds']:.2f} s, {result['share']:.0%} of product rate, {gib(result['peak'])}"
            rows.append((f"{what} ({result['device']})", measured, ""))
    rows += [(name, f"{value:.2f}", "") for name, value in found["forms"].items()]
    return rows


def main() -> None:
    """Measure, print and write."""
    chosen = sys.argv[1:] or list(CASES)
    found = {case: measure(case) for case in chosen}
    if set(chosen) != set(CASES):
        print(json.dumps(found, indent=2))
        return
    rows = table(found)
    width = max(len(row[0]) for row in rows)
    for what, value, target in rows:
        print(f"{what.ljust(width)}  {value}{f'  (target {target})' if target else ''}")
    about = (
        f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}, float32."
    )
    lines = ["# Benchmarks", "", "Written by `make bench`. " + about, "Ratios are taken within one run; times are of a "
             "shared machine and vary from run to run.", "", "| what | measured | target |", "|---|---|---|",
             *(f"| {a} | {b} | {c} |" for a, b, c in rows), ""]  # fmt: skip
    file = HERE / "RESULTS.md"
    # What was measured before and after a change cannot be measured again.
    _, heading, kept = file.read_text(encoding="utf-8").partition("\n## ")
    file.write_text("\n".join(lines) + heading + kept, encoding="utf-8")


if __name__ == "__main__":
    main()
