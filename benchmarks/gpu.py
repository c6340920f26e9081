"""``make gpu``: tests marked ``gpu`` and measurements on a CUDA device, into a section of ``benchmarks/RESULTS.md``.

It needs no network, no data and no package index, installs nothing, and ends within nine minutes: each measurement is a
process of its own with a limit, the tests get what is left. What has been found is written after every step.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "bfloat16x3", "bfloat16x6")
SAMPLES, CLASSES, LONGEST = 250, 3, 128
SECONDS = 520.0  # for everything
SECONDS_OF_ONE = 100.0
NEEDED = (
    "torch", "transformers", "peft", "accelerate", "safetensors", "scipy", "threadpoolctl", "numpy", "pandas", "tqdm",
    "jaxtyping", "pydantic", "psutil", "filelock", "lazy_loader",
)  # fmt: skip
TESTING = ("pytest", "beartype", "hypothesis", "tokenizers", "datasets", "sklearn")

Row = dict[str, list[int]]
Result = dict[str, Any]


def rows_of_text(samples: int = SAMPLES, longest: int = LONGEST, vocabulary: int = 50265) -> list[Row]:
    """Rows of token ids as frequent as those of text are (Zipf), most of them long; the same each time."""
    rng = random.Random(0)
    lengths = [min(longest, max(8, round(rng.gauss(0.7, 0.25) * longest))) for _ in range(samples)]
    weights = [1 / rank for rank in range(1, vocabulary - 2)]
    return [{"input_ids": rng.choices(range(3, vocabulary), weights, k=length)} for length in lengths]


def model_of_base_size() -> Any:
    """Make a random model of roberta-base's size with a linear head of three classes."""
    from benchmarks.inputs import roberta_base_size

    return roberta_base_size(CLASSES)


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of a call."""
    import torch

    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def product_rates(size: int = 8192) -> Result:
    """Floating-point operations per second of large products: float32, TF32, bfloat16 summed in float32."""
    import torch

    from ntk_lpft.devices import float32_products

    matrix = torch.randn(size, size, device="cuda")
    narrow = matrix.to(torch.bfloat16)
    rates = {}
    for name, work in (
        ("float32", lambda: matrix @ matrix),
        ("tf32", lambda: matrix @ matrix),
        ("bfloat16", lambda: torch.mm(narrow, narrow, out_dtype=torch.float32)),
    ):
        with float32_products(tf32=name == "tf32"):
            work()
            rates[name] = 2 * size**3 / seconds(work, 5)
    return rates


def waits_of(work: Callable[[], Any]) -> Counter[str]:
    """Count, by file of the library, how often the processor waits for the device during a call."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [Path(w.filename) for w in caught if "synchroniz" in str(w.message)]
    return Counter(place.name if "ntk_lpft" in place.parts else "elsewhere" for place in places)


def needed_flops(model: Any, rows: Sequence[Row], precision: str) -> dict[str, float]:
    """Floating-point operations that the algorithm needs: capture, and contraction without redundant halves."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ntk_lpft.kernel.capture import capture
    from ntk_lpft.kernel.cost import measure_costs
    from ntk_lpft.kernel.setup import open_setup

    with open_setup(model, rows, precision=precision, device="cuda") as setup:
        batch = next(iter(setup.batches(2048)))
        with FlopCounterMode(display=False) as counter:
            capture(setup.classifier.module, setup.parameters, batch, setup.seeds, torch.float32)
        tokens = sum(len(row["input_ids"]) for row in setup.rows)
        share = tokens / int(batch.tensors["attention_mask"].sum())
        contraction = sum(cost.flops + cost.sample_flops * setup.layout.samples for cost in measure_costs(setup))
        return {"capture": counter.get_total_flops() * share, "contraction": contraction}


def batches_of(work: Callable[[], Any]) -> int:
    """Count the batches that a computation captures."""
    from ntk_lpft.kernel import passes

    count, capture = 0, passes.capture

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return capture(*args, **kwargs)

    passes.capture = counted  # type: ignore[assignment]
    try:
        work()
    finally:
        passes.capture = capture
    return count


def measure(precision: str, exact: Path) -> Result:
    """Measure one precision: time, memory, waits, and the error against float64's kernel.

    Args:
        precision: Its name.
        exact: File of F in float64, (N·C, N·C), which the measurement of float64 writes.

    Returns:
        What was found, as JSON holds it.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from ntk_lpft.kernel.engine import compute_ntk

    model, rows = model_of_base_size().to("cuda"), rows_of_text()

    def work() -> Any:
        return compute_ntk(model, rows, precision=precision)

    began = time.perf_counter()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ntk = work()
    first = time.perf_counter() - began
    peak, reserved = torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved()
    result: Result = {
        "first": first,
        "seconds": seconds(work, 2),
        "peak": peak,
        "reserved": reserved,
        "predicted": ntk.metadata["plan"]["predicted_peak"],
        "passes": ntk.metadata["plan"]["passes"],
        "self_check": ntk.metadata["self_check"]["error"],
        "split": ntk.metadata["self_check"].get("split"),
    }
    waits: list[Counter[str]] = []
    result["batches"] = batches_of(lambda: waits.append(waits_of(work)))
    result["waits"] = dict(waits[0])
    size = ntk.ft_effective.shape[0] * ntk.num_labels
    kernel = ntk.ft_effective.reshape(size, size).double()
    if precision == "float64":
        save_file({"kernel": kernel.cpu()}, exact)
    elif exact.exists():
        reference = load_file(exact)["kernel"].to(kernel)
        result["error"] = float((kernel - reference).norm() / reference.norm())
    if precision == "float32":
        result |= {"rates": product_rates(), "flops": needed_flops(model, rows, precision)}
    return result


def about() -> dict[str, str]:
    """Name the device, its driver and the versions."""
    import torch
    import transformers

    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        driver = "unknown"
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": torch.cuda.get_device_name(),
        "memory": f"{properties.total_memory / 1e9:.0f} GB",
        "driver": driver.strip(),
        "versions": f"torch {torch.__version__} (CUDA {torch.version.cuda}), transformers {transformers.__version__}, "
        f"Python {platform.python_version()}",
    }


def section(facts: dict[str, str], found: dict[str, Result], tests: str) -> str:
    """Write the section of the results, from what has been found so far."""
    lines = [
        f"## On a GPU: {facts['device']}", "",
        f"Written by `make gpu`. {facts['memory']}, driver {facts['driver']}, {facts['versions']}.",
        f"Random model of roberta-base's size, N = {SAMPLES}, C = {CLASSES}, T ≤ {LONGEST}, structured engine; "
        "error of F relative to float64's; peak of memory beside the model, and the plan's; how often the processor "
        "waits for the device, by file.", "",
        "| precision | seconds (first call) | error of F | memory, planned | waits, batches, passes |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for precision, result in found.items():
        if "failed" in result:
            lines.append(f"| {precision} | failed: {result['failed']} | | | |")
            continue
        waits = ", ".join(f"{name} {count}" for name, count in sorted(result["waits"].items(), key=lambda w: -w[1]))
        error = f"{result['error']:.1e}" if "error" in result else ""
        lines.append(
            f"| {precision} | {result['seconds']:.2f} ({result['first']:.2f}) | {error} "
            f"| {result['peak'] / 1e9:.2f} GB, {result['predicted'] / 1e9:.2f} GB "
            f"| {sum(result['waits'].values())} ({waits}), {result['batches']}, {result['passes']} |"
        )
    plain = found.get("float32", {})
    if "rates" in plain:
        rates = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in plain["rates"].items())
        flops = plain["flops"]
        share = sum(flops.values()) / plain["seconds"] / plain["rates"]["float32"]
        lines += [
            "",
            f"Products of 8192 × 8192, TFLOP/s: {rates}. Needed by float32: {flops['capture'] / 1e12:.1f} TFLOP of "
            f"capture and {flops['contraction'] / 1e12:.1f} of contraction, which is {share:.0%} of the product rate.",
        ]
    for precision, result in found.items():
        if result.get("split"):
            split = result["split"]
            lines += [
                "",
                f"{precision}: largest error of a sum of products {split['sum_error']:.1e} (bound "
                f"{split['sum_bound']:.1e}), of one product {split['term_error']:.1e} ({split['term_bound']:.1e}).",
            ]
    return "\n".join([*lines, "", f"Tests marked `gpu`: {tests}", ""])


def put(text: str, file: Path = RESULTS) -> None:
    """Put a section into the results, in the place of an earlier one with its heading."""
    heading = text.split("\n", 1)[0]
    parts = file.read_text(encoding="utf-8").split("\n## ")
    kept = [part for part in parts[1:] if not f"## {part}".startswith(heading + "\n")]
    whole = "\n## ".join([parts[0].rstrip("\n") + "\n", *(part.rstrip("\n") + "\n" for part in kept)])
    file.write_text(f"{whole}\n{text}", encoding="utf-8")


def run_measurement(precision: str, exact: Path, limit: float) -> Result:
    """Measure in a process of its own; what goes wrong there is a result too."""
    command = [sys.executable, "-m", "benchmarks.gpu", precision, str(exact)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {limit:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        print(done.stderr, file=sys.stderr)
        return {"failed": lines[-1][:200].replace("|", "/") if lines else f"status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def run_tests(limit: float) -> str:
    """Run the tests marked ``gpu`` and return how they ended."""
    lacking = [name for name in TESTING if importlib.util.find_spec(name) is None]
    if lacking:
        return f"not run: this Python has no {', '.join(lacking)}"
    files = [str(path) for path in sorted((HERE.parent / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit, env=environment,
            cwd=HERE.parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        shown = error.stdout or b""
        print(shown.decode(errors="replace") if isinstance(shown, bytes) else shown)
        return f"not done within {limit:.0f} s"
    print(done.stdout)
    return done.stdout.strip().splitlines()[-1].strip("= ")


def refusal() -> str:
    """Say in one line why nothing can be measured here, or nothing."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        return (
            f"{sys.executable} has no {', '.join(lacking)}; name a Python that has, with make gpu PYTHON=..., or put "
            "them into a folder on PYTHONPATH"
        )
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} of {sys.executable} sees no CUDA device; nothing is measured"
    return ""


def main() -> None:
    """Measure every precision, run the tests, and write down what was found."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
        return
    reason = refusal()
    if reason:
        print(f"make gpu: {reason}", file=sys.stderr)
        raise SystemExit(2)
    began = time.monotonic()
    facts, found = about(), dict[str, Result]()
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            print(f"measuring {precision} …", file=sys.stderr, flush=True)
            left = SECONDS - (time.monotonic() - began)
            found[precision] = run_measurement(precision, Path(folder) / "exact", min(SECONDS_OF_ONE, left))
            put(section(facts, found, "not run yet"))
    print("running the tests …", file=sys.stderr, flush=True)
    text = section(facts, found, run_tests(max(30.0, SECONDS - (time.monotonic() - began))))
    put(text)
    print(text)
    failed = any("failed" in result for result in found.values()) or "failed" in text or "not done" in text
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
