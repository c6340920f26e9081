"""Folders of fine-tuning runs: going on with one, metrics, predictions, logs, and grids over head scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.folders import contents, fill
from safetensors.torch import load_file, save_file

from ntk_lpft.errors import InputError
from ntk_lpft.runs import FinetuneRun, HeadScaleGrid, TrackingLog
from ntk_lpft.runs.tracking_log import Measurement

METRICS = {"method": "ft", "model": "minilm", "dataset": "cb", "seed": 1, "head": {}, "splits": {}}


def opened(run: FinetuneRun, *, overwrite: bool = False, resume: bool = False, **more: Any) -> None:
    with run.opened_to_train(overwrite=overwrite, resume=resume, **more):
        pass


def test_an_interrupted_run_is_gone_on_with_or_begun_anew(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path / "out")
    for call in (opened, FinetuneRun.check_to_train):
        with pytest.raises(InputError, match=r"^--resume: \S*out holds no run to go on with; leave --resume out$"):
            call(run, overwrite=False, resume=True)
    with run.opened_to_train(overwrite=False, resume=False):
        run.claim()
        run.write_config({"options": {}})
    for call in (opened, FinetuneRun.check_to_train):
        with pytest.raises(
            InputError, match="holds an interrupted run; give --resume to go on, --overwrite to start anew"
        ):
            call(run, overwrite=False, resume=False)
        call(run, overwrite=False, resume=True)
        call(run, overwrite=True, resume=False)
    with run.opened_to_train(overwrite=False, resume=True):
        run.claim()
        run.write_metrics(METRICS)
    for call in (opened, FinetuneRun.check_to_train):
        with pytest.raises(InputError, match=r"already holds config\.json, metrics\.json;"):
            call(run, overwrite=False, resume=False)
        call(run, overwrite=False, resume=True)
        call(run, overwrite=False, resume=False, options={})  # the same run, which is done
        with pytest.raises(InputError, match=r"already holds config\.json, metrics\.json;"):
            call(run, overwrite=False, resume=False, options={"seed": 1})


def test_a_fine_tuning_run_clears_its_model_and_checkpoints_too(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path)
    with run.opened(overwrite=False):
        run.claim()
        fill(tmp_path, "model/config.json", "adapter/adapter.safetensors", "metrics.json", "config.json")
        fill(tmp_path, "checkpoints/checkpoint-3/weights.safetensors")
    fill(tmp_path, "mine/config.json")
    (tmp_path / "checkpoints" / "checkpoint-4").mkdir()  # a process was killed when all in it was removed
    assert run.written() == ["model/", "adapter/", "config.json", "metrics.json"]
    with run.opened(overwrite=True):
        run.clear()
    assert set(contents(tmp_path)) == {"mine/config.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_metrics_of_a_finished_run(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path / "run")
    with pytest.raises(InputError, match=r"run folder \S*run does not exist"):
        run.metrics()
    run.path.mkdir()
    with pytest.raises(InputError, match=r"holds no finished run \(it has no metrics\.json\); finish it with --resume"):
        run.metrics()
    run.write_metrics(METRICS)
    assert run.metrics() == METRICS


@pytest.mark.parametrize("name", ["method", "model", "dataset", "seed"])
@pytest.mark.parametrize("value", [None, 0.5, ["ft"]])
def test_metrics_of_something_else_are_refused(tmp_path: Path, name: str, value: object) -> None:
    run = FinetuneRun(tmp_path)
    run.write_metrics({**METRICS, name: value})
    with pytest.raises(InputError, match=rf"metrics\.json is damaged: {name} is .*: Input should be a valid"):
        run.metrics()
    run.write_metrics({key: kept for key, kept in METRICS.items() if key != name})
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        run.metrics()


LOGITS = {"test": torch.randn(4, 3, dtype=torch.float64), "ood.x": torch.randn(2, 3, dtype=torch.float64)}
LABELS = {"test": torch.tensor([0, 1, 2, 0]), "ood.x": torch.tensor([2, 1])}


@pytest.fixture
def predicted(tmp_path: Path) -> FinetuneRun:
    run = FinetuneRun(tmp_path)
    run.write_predictions(LOGITS, LABELS, {"method": "ft"})
    return run


def test_predictions_come_back_as_they_were(predicted: FinetuneRun) -> None:
    found = predicted.predictions()
    assert set(found) == {"test", "ood.x"}
    for name, (logits, labels) in found.items():
        assert logits.dtype == torch.float64
        assert torch.equal(logits, LOGITS[name])
        assert torch.equal(labels, LABELS[name])
    plain = load_file(predicted.file("predictions.safetensors"))
    assert torch.equal(plain["ood.x/logits"], LOGITS["ood.x"])


def test_narrow_logits_are_stored_in_float32(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path)
    narrow = {name: logits.bfloat16() for name, logits in LOGITS.items()}
    run.write_predictions(narrow, LABELS, {"method": "ft"})
    for name, (logits, _) in run.predictions().items():
        assert logits.dtype == torch.float32
        assert torch.equal(logits, narrow[name].float())


def altered(data: bytes) -> bytes:
    """Change one bit of the last tensor."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (altered, "was altered after it was written"),
        (lambda data: data[:-3], "is truncated or no safetensors file"),
        (lambda data: data[:5], "is truncated or no safetensors file"),
        (lambda data: b"", "is truncated or no safetensors file"),
    ],
)
def test_damaged_predictions_are_refused(
    predicted: FinetuneRun, change: Callable[[bytes], bytes], message: str
) -> None:
    path = predicted.file("predictions.safetensors")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=rf"predictions\.safetensors {message}"):
        predicted.predictions()


def test_predictions_of_others_are_refused(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path)
    with pytest.raises(InputError, match=r"has no predictions\.safetensors, so no logits; give a folder of a finished"):
        run.predictions()
    save_file({"test/logits": torch.zeros(2, 3), "test/labels": torch.zeros(2)}, run.file(run.PREDICTIONS))
    with pytest.raises(InputError, match="was not written by ntk_lpft"):
        run.predictions()
    run.write_predictions({}, LABELS, {})
    with pytest.raises(InputError, match="holds no logits"):
        run.predictions()
    run.write_predictions(LOGITS, {"test": LABELS["test"]}, {})
    with pytest.raises(InputError, match=r"has logits of ood\.x but no labels"):
        run.predictions()


def test_logs_of_a_run_are_read_where_there_are_any(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path)
    assert (run.tracking(), run.probe_path()) == (None, None)
    TrackingLog(run.file(run.TRACKING)).append(3, 0.5, [Measurement("train", "loss", 0.25)])
    found = run.tracking()
    assert found is not None
    assert found.to_dict("records") == [
        {"step": 3, "epoch": 0.5, "split": "train", "measure": "loss", "value": 0.25}]  # fmt: skip
    run.file(run.PROBE_PATH).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"probe\.csv is no tracking log"):
        run.probe_path()


def test_a_comparison_is_two_tables(tmp_path: Path) -> None:
    run = FinetuneRun(tmp_path)
    run.write_comparison(pd.DataFrame({"rate": [0.1]}), pd.DataFrame({"step": [1]}))
    assert (tmp_path / "prediction.csv").read_text() == "rate\n0.1\n"
    assert (tmp_path / "gradient_flow.csv").read_text() == "step\n1\n"


def test_a_grid_has_a_run_for_each_factor(tmp_path: Path) -> None:
    grid = HeadScaleGrid(tmp_path / "grid")
    assert not grid.begun
    assert [grid.member(factor).path.name for factor in (0.5, 1.0, 10)] == [
        "head-scale-0.5", "head-scale-1", "head-scale-10"]  # fmt: skip
    grid.member(1.0).write_config({"options": {}})
    assert (grid.begun, grid.member(1.0).begun, grid.member(0.5).begun) == (True, True, False)


GRID = pd.DataFrame(
    {"head_scale": [0.5, 2.0], "norm_at_start": [1.0, 4.0], "split": ["test", "test"],
     "feature_difference": [0.1 + 0.2, 0.25], "accuracy": [1, 0], "more": ["x", "y"]}
)  # fmt: skip


def test_the_table_of_a_grid_comes_back(tmp_path: Path) -> None:
    grid = HeadScaleGrid(tmp_path)
    grid.write_grid(GRID)
    assert grid.finished
    pd.testing.assert_frame_equal(grid.grid(), GRID, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing or damaged"),
        (b"", "is missing or damaged"),
        (b"\xff\xfe\x00", "is missing or damaged"),
        (b'a,b\n"1,2\n', "is missing or damaged"),
        (b"head_scale,split\n1,test\n", "is damaged: it needs the columns head_scale, norm_at_start"),
        (GRID.drop(columns="accuracy").to_csv().encode(), "is damaged: it needs the columns"),
        (GRID.to_csv().replace("0.25", "many").encode(), "is damaged: it needs the columns"),
        (GRID.head(0).to_csv().encode(), "is damaged: it needs the columns"),
    ],
)
def test_damaged_tables_of_a_grid_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    grid = HeadScaleGrid(tmp_path)
    if content is not None:
        (tmp_path / "head_scale.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"head_scale\.csv {message}") as caught:
        grid.grid()
    assert "\n" not in str(caught.value)
