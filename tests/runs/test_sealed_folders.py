"""A complete run's files are believed as they were written, and not otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.bit_flips import FLIPS, flipped

from analysis.experiments.folders import FeatureRun, ScalingRun
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.kernel.decomposition import save_parts
from ntk_lpft.model_sources import resolve_source
from ntk_lpft.runs import CalibrationRun, FinetuneRun, HeadScaleGrid, KernelRun, RunFolder, TrackingLog
from ntk_lpft.runs.tracking_log import Measurement

METRICS = {"method": "ft", "model": "m", "dataset": "cb", "seed": 3, "head": {"norm_before": 1.0},
           "splits": {"test": {"rows": 2, "accuracy": 0.5, "loss": 0.7}}}  # fmt: skip


def kernel_run(folder: Path, scale: float = 1.0) -> KernelRun:
    run = KernelRun(folder)
    run.write_config({"options": {"seed": 1}, "label_names": ["a", "b"]})
    features = scale * torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    ntk = NTKDecomposition(features, {"all": torch.ones(2, 2, 2, 2)}, torch.zeros(2, 2), torch.zeros(2, 2))
    save_parts(folder, {"train": ntk})
    table = pd.DataFrame({"kernel": ["P"], "rank": [2]})
    run.write_tables(table, table, {"statistics": [{"kernel": "P", "rank": 2, "frobenius_norm": scale}]})
    run.seal()
    return run


def finetune_run(folder: Path, scale: float = 1.0) -> FinetuneRun:
    run = FinetuneRun(folder)
    run.write_config({"options": {"seed": 3}, "label_names": ["a", "b"]})
    log = TrackingLog(run.file(run.TRACKING))
    log.append(0, 0.0, [Measurement("train", "loss", 0.7 * scale)])
    log.append(1, 1.0, [Measurement("train", "loss", 0.5 * scale)])
    run.write_predictions({"test": scale * torch.tensor([[0.1, 0.2], [0.5, -1.0]])}, {"test": torch.tensor([0, 0])}, {})
    (run.file(run.MODEL)).mkdir(parents=True)
    (run.file(run.MODEL) / "config.json").write_text("{}")
    run.write_metrics(METRICS)
    return run


def calibration_run(folder: Path, scale: float = 1.0) -> CalibrationRun:
    run = CalibrationRun(folder)
    run.write_config({"options": {}})
    rows = [["test", stage, "ece", scale * value] for stage, value in (("before", 0.25), ("after", 0.125))]
    table = pd.DataFrame(rows, columns=["split", "stage", "measure", "value"])
    run.write_tables(table, table, table)
    run.seal()
    return run


def grid(folder: Path, scale: float = 1.0) -> HeadScaleGrid:
    run = HeadScaleGrid(folder)
    run.write_config({"options": {}})
    run.write_grid(pd.DataFrame([[1.0, scale, "test", 0.5, 0.25]], columns=list(run.COLUMNS)))
    run.seal()
    return run


def scaling_run(folder: Path, scale: float = 1.0) -> ScalingRun:
    run = ScalingRun(folder)
    run.write_config({"options": {}})
    run.write_results(pd.DataFrame({"draw": [1]}), {"ranks": [{"rank": 2, "error": scale}]})
    return run


def feature_run(folder: Path, scale: float = 1.0) -> FeatureRun:
    run = FeatureRun(folder)
    run.write_config({"label_names": ["a"]})
    run.write_features({"features": scale * torch.ones(2, 3)}, {})
    return run


# How to make a run, and for each file how it is read.
READERS: list[tuple[Callable[..., RunFolder], str, Callable[[Any], Any]]] = [
    (kernel_run, "config.json", lambda run: run.config()),
    (kernel_run, "summary.json", lambda run: run.summary()),
    (kernel_run, "kernel.safetensors", lambda run: NTKDecomposition.load(run.path).feature_kernel.tolist()),
    (kernel_run, "checksums.json", lambda run: (run.config(), run.summary())),
    (finetune_run, "metrics.json", lambda run: run.metrics()),
    (finetune_run, "predictions.safetensors", lambda run: run.predictions()),
    (finetune_run, "tracking.csv", lambda run: run.tracking().to_csv()),
    (finetune_run, "checksums.json", lambda run: (run.metrics(), run.predictions(), run.tracking().to_csv())),
    (calibration_run, "calibration.csv", lambda run: run.measures().to_csv()),
    (grid, "head_scale.csv", lambda run: run.grid().to_csv()),
    (scaling_run, "summary.json", lambda run: run.summary()),
    (feature_run, "features.safetensors", lambda run: run.features()),
]


@pytest.mark.parametrize(("make", "name", "read"), READERS, ids=[f"{m.__name__}-{n}" for m, n, _ in READERS])
def test_a_flipped_bit_is_refused_or_changes_nothing(
    make: Callable[..., RunFolder], name: str, read: Callable[[Any], Any], tmp_path: Path
) -> None:
    run = make(tmp_path / "run")
    assert run.finished
    refused = flipped(run.path / name, lambda: read(run))
    assert refused > (0.3 if name == "checksums.json" else 0.99) * FLIPS


@pytest.mark.parametrize(("make", "name", "read"), READERS, ids=[f"{m.__name__}-{n}" for m, n, _ in READERS])
def test_files_of_another_run_and_files_that_are_gone_are_refused(
    make: Callable[..., RunFolder], name: str, read: Callable[[Any], Any], tmp_path: Path
) -> None:
    run, other = make(tmp_path / "run"), make(tmp_path / "other", 2.0)
    read(run)
    content = (run.path / name).read_bytes()
    shutil.copy(other.path / name, run.path / name)
    if (run.path / name).read_bytes() != content:
        with pytest.raises(InputError, match=r"was altered after it was written|altered or damaged"):
            read(run)
    (run.path / name).unlink()
    with pytest.raises(InputError, match=r"is gone|has no checksums\.json, so that|holds no finished run|has no pred"):
        read(run)


def test_a_run_is_complete_once_it_is_sealed(tmp_path: Path) -> None:
    run = finetune_run(tmp_path)
    (tmp_path / "checksums.json").unlink()  # killed between its last file and their checksums
    assert not run.finished
    with pytest.raises(InputError, match=r"has no checksums\.json, .* run `python -m ntk_lpft\.finetune` again"):
        run.metrics()
    run.seal()
    assert run.finished
    assert run.metrics() == METRICS
    run.clear()
    assert not (tmp_path / "checksums.json").exists()


def test_results_of_earlier_versions_are_read_without_checksums(tmp_path: Path) -> None:
    run = finetune_run(tmp_path)
    (tmp_path / "checksums.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    del config["checksums"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run.finished
    assert run.metrics() == METRICS


def test_the_models_files_have_checksums(tmp_path: Path) -> None:
    run = finetune_run(tmp_path)
    assert set(json.loads((tmp_path / "checksums.json").read_text())["files"]) == {
        "config.json", "metrics.json", "predictions.safetensors", "tracking.csv", "model/config.json",
    }  # fmt: skip
    run.believed("model/config.json")
    (tmp_path / "model" / "config.json").write_text("{ }")
    with pytest.raises(InputError, match=r"model/config\.json was altered"):
        run.check_model()
    with pytest.raises(InputError, match=r"model/config\.json was altered"):
        resolve_source(tmp_path)
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(InputError, match=r"model/config\.json is gone"):
        run.check_model()
    with pytest.raises(InputError, match=r"mine\.csv has no checksum in checksums\.json"):
        run.believed("mine.csv")
