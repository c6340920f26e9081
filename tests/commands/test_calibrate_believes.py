"""What `calibrate` believes of a run: the logits and labels that it was measured on, in files of one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from ntk_lpft.commands.calibrate.inputs import read_runs
from ntk_lpft.errors import InputError
from ntk_lpft.runs import FinetuneRun

ABOUT = {"method": "ft", "dataset": "cb", "seed": 3}


def drawn(seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (2 * torch.randn(40, 3, generator=generator), torch.randint(0, 3, (40,), generator=generator))
        for name in ("validation", "test", "ood.sst5")
    }


def measured(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Measure by NumPy alone."""
    scores, classes = logits.double().numpy(), labels.numpy()
    losses = -log_softmax(scores, axis=1)[np.arange(len(classes)), classes]
    accuracy = float((scores.argmax(axis=1) == classes).mean())
    return {"rows": len(classes), "accuracy": accuracy, "loss": float(losses.mean())}


def make(folder: Path, seed: int = 3, **about: Any) -> FinetuneRun:
    run, splits = FinetuneRun(folder), drawn(seed)
    described = {**ABOUT, "seed": seed, **about}
    options = {"method": described["method"], "seed": described["seed"], "model": "minilm"}
    run.write_config({"options": options, "dataset": described["dataset"]})
    run.write_predictions(
        {name: logits for name, (logits, _) in splits.items()},
        {name: labels for name, (_, labels) in splits.items()},
        described,
    )
    numbers = {name: measured(*pair) for name, pair in splits.items()}
    run.write_metrics({**described, "model": "minilm", "head": {"norm_after": 2.0}, "splits": numbers})
    return run


def rewrite(run: FinetuneRun, change: Callable[[dict[str, tuple[torch.Tensor, torch.Tensor]]], object]) -> None:
    """Write the predictions anew, with checksums that fit."""
    splits = drawn(3)
    change(splits)
    run.write_predictions(
        {name: logits for name, (logits, _) in splits.items()},
        {name: labels for name, (_, labels) in splits.items()},
        ABOUT,
    )


def negate(splits: dict[str, tuple[torch.Tensor, torch.Tensor]], name: str = "test") -> None:
    splits[name] = (-splits[name][0], splits[name][1])


def relabel(splits: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    logits, labels = splits["validation"]
    splits["validation"] = (logits, torch.cat([(labels[:1] + 1) % 3, labels[1:]]))


def stretch(splits: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    splits["ood.sst5"] = (1.01 * splits["ood.sst5"][0], splits["ood.sst5"][1])


def cut(splits: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    splits["test"] = (splits["test"][0][:-1], splits["test"][1][:-1])


CHANGES = {"negated": negate, "relabelled": relabel, "stretched": stretch, "cut": cut}


def test_a_run_is_read(tmp_path: Path) -> None:
    (found,) = read_runs([str(make(tmp_path / "a").path)])
    assert (found.method, found.dataset, found.seed, found.norms) == ("ft", "cb", 3, {"norm_after": 2.0})


@pytest.mark.parametrize("name", CHANGES)
def test_logits_and_labels_that_were_altered_are_refused(tmp_path: Path, name: str) -> None:
    run = make(tmp_path / "a")
    rewrite(run, CHANGES[name])
    with pytest.raises(InputError, match=r"predictions\.safetensors was altered after it was written"):
        read_runs([str(run.path)])
    run.seal()  # even with checksums that fit, they are not those that the run was measured on
    with pytest.raises(InputError, match=r"logits of .* have (accuracy|loss|rows) .*, metrics\.json says .*altered"):
        read_runs([str(run.path)])


@pytest.mark.parametrize("about", [{"method": "lp"}, {"dataset": "rte"}, {"seed": 4}])
@pytest.mark.parametrize("name", ["metrics.json", "predictions.safetensors", "config.json"])
def test_files_of_another_run_are_refused(tmp_path: Path, name: str, about: dict[str, Any]) -> None:
    run, other = make(tmp_path / "a"), make(tmp_path / "b", **about)
    run.file(name).write_bytes(other.file(name).read_bytes())
    with pytest.raises(InputError, match=rf"{name} was altered after it was written"):
        read_runs([str(run.path)])
    run.seal()
    with pytest.raises(InputError, match=rf"holds files of two runs: .*{next(iter(about))}.*; run it again"):
        read_runs([str(run.path)])


def test_runs_of_earlier_versions_are_held_to_their_measures(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    run.file("checksums.json").unlink()
    run.file("config.json").unlink()
    read_runs([str(run.path)])
    rewrite(run, negate)
    with pytest.raises(InputError, match=r"have accuracy"):
        read_runs([str(run.path)])


def test_measures_that_were_undefined_are_not_compared(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    metrics = json.loads(run.file("metrics.json").read_text())
    metrics["splits"]["test"] |= {"loss": None, "accuracy": None}
    run.write_metrics(metrics)
    read_runs([str(run.path)])
