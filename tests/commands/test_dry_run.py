"""``compute --dry-run``: what a kernel will cost, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.small import examples, save_csv, save_model

from ntk_lpft.commands.compute import main
from ntk_lpft.kernel import price


def test_a_dry_run_says_what_it_costs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price, "_MEASURED", 0.01)
    save_model(tmp_path / "bert")
    save_csv(tmp_path / "train.csv", examples(40))
    out = tmp_path / "results" / "out"
    rows = tmp_path / "train.csv"
    given = ["--model", tmp_path / "bert", "--train-file", rows, "--test-file", rows,
             "--max-length", 20, "--n-train", 7, "--n-eval", 4, "--head-init", "random", "--no-kernel-classifier",
             "--output-dir", out]  # fmt: skip
    words = [str(word) for word in given]
    assert main([*words, "--dry-run"]) == 0
    assert not out.parent.exists()
    said = capsys.readouterr().out
    for word in ("passes:", "work:", "memory:", "disk:", "time:   about"):
        assert f"\n{word}" in said
    assert main(words) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert main([*words, "--dry-run"]) == 0  # beside a finished run
    assert {path: path.read_bytes() for path in out.iterdir()} == before
