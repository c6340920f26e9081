"""A report of results of which some are damaged: it shows what can be shown, and names the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.drawn_results import everything

from analysis.report.__main__ import main as report
from figures.__main__ import main as figures

pytestmark = pytest.mark.slow

KERNEL = "kernel/cb/ft/seed-1/kernel.safetensors"
GRID = "head_scale/cb/ft/seed-1/head_scale.csv"
TRACKING = "finetune/cb/ft/seed-1/tracking.csv"
FEATURES = "features/cb/ft/seed-1/features.safetensors"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    folder = everything(tmp_path / "results").path
    for name in (KERNEL, FEATURES):
        (folder / name).write_bytes((folder / name).read_bytes()[:30])
    (folder / GRID).write_text((folder / GRID).read_text().replace("0.5", "x.5"))
    (folder / TRACKING).write_text((folder / TRACKING).read_text() + "99999999999999999999,1.0,train,accuracy,0.5\n")
    return folder


def test_what_can_be_shown_is_shown(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ["figure1", "figure2", "figure3", "figure5"]
    assert figures([str(damaged), "--only", *only]) == 0
    assert {path.stem for path in (damaged / "figures").glob("[!.]*")} == set(only)
    capsys.readouterr()
    assert report([str(damaged)]) == 0
    page = (damaged / "report.html").read_text()
    for job in (KERNEL, GRID, TRACKING, FEATURES):
        kind, dataset, method, _, file = job.split("/")
        assert f"{kind}/{dataset}/{method}, seed 1: {file}" in page, job
