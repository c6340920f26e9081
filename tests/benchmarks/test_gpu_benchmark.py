"""``make gpu``: it refuses in one line where there is nothing to measure, and measures on a pretended device."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.pretended_cuda import pretended_cuda
from helpers.zoo import ZOO, ragged_rows

from benchmarks import gpu

ROOT = Path(gpu.__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_refuses_in_one_line() -> None:
    before = gpu.RESULTS.read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("make gpu: torch ")
    assert done.stderr.endswith("sees no CUDA device; nothing is measured\n")
    assert gpu.RESULTS.read_text(encoding="utf-8") == before


def test_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NEEDED", ("torch", "no_such_package", "nor_this_one"))
    assert "has no no_such_package, nor_this_one; name a Python that has" in gpu.refusal()
    monkeypatch.setattr(gpu, "TESTING", ("no_such_package",))
    assert gpu.run_tests(1) == "not run: this Python has no no_such_package"


def test_the_rows_are_those_of_the_benchmark() -> None:
    rows = gpu.rows_of_text()
    lengths = [len(row["input_ids"]) for row in rows]
    assert len(rows) == 250
    assert max(lengths) == 128
    assert all(2 < token < 50265 for row in rows for token in row["input_ids"])
    assert rows == gpu.rows_of_text()


def test_every_precision_is_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "model_of_base_size", lambda: ZOO["roberta"].build(dtype=torch.float32))
    monkeypatch.setattr(gpu, "rows_of_text", lambda: ragged_rows(ZOO["roberta"], n=6))
    monkeypatch.setattr(gpu, "product_rates", partial(gpu.product_rates, size=32))
    with pretended_cuda():
        found = {name: json.loads(json.dumps(gpu.measure(name, tmp_path / "exact"))) for name in gpu.PRECISIONS}
        facts = gpu.about()
    assert found["float32"]["error"] < 1e-5
    assert found["bfloat16x6"]["error"] < 1e-5
    assert found["bfloat16"]["error"] > 1e-4
    assert found["float32"]["flops"]["contraction"] > 0
    assert found["float32"]["batches"] == 1
    file = tmp_path / "RESULTS.md"
    earlier = "# Benchmarks\n\nA table.\n\n## On a GPU: pretended\n\nold\n\n## Other\n\nkept\n"
    file.write_text(earlier, encoding="utf-8")
    found["tf32"] = {"failed": "no such product"}
    for _ in range(2):
        gpu.put(gpu.section(facts, found, "3 passed"), file)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n\nA table.\n\n## Other\n\nkept\n\n## On a GPU: pretended\n")
    assert text.count("## On a GPU") == 1
    assert "old" not in text
    assert "| tf32 | failed: no such product |" in text
    assert text.endswith("\nTests marked `gpu`: 3 passed\n")
    assert f"| float32 | {found['float32']['seconds']:.2f} (" in text
    assert "bfloat16x6: largest error of a sum of products" in text


def test_a_measurement_that_fails_or_hangs_is_a_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert gpu.run_measurement("float32", tmp_path, 60) == {"failed": "status 1"}
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    assert gpu.run_measurement("float32", tmp_path, 0.2) == {"failed": "not done within 0 s"}
