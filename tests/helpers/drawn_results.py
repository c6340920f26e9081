"""A results folder written by hand, small enough for what is drawn from it to be worked out on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from analysis.suite.results import Results, read_results
from ntk_lpft.kernel.decomposition import NTKDecomposition, save_parts
from ntk_lpft.storage import write_tensors

METHODS = ("ft", "lp-ft", "lora", "lp-lora")


class Folder:
    """A results folder that is filled job by job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs: list[dict[str, object]] = []
        path.mkdir(parents=True)

    def add(self, kind: str, dataset: str, method: str, seed: int, *, state: str = "finished") -> Path:
        """Add a job and its record; the caller writes its files."""
        self.jobs.append({"kind": kind, "dataset": dataset, "method": method, "seed": seed, "arguments": [],
                          "needs": [], "flops": 0.0})  # fmt: skip
        name = f"{kind}/{dataset}/{method}/seed-{seed}"
        if state != "waiting":
            record = self.path / "jobs" / f"{name}.json"
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"state": state, "arguments": [], "error": ""}))
        settings = {"name": "smoke", "model": "tiny", "probe_size": 4, "datasets": {}}
        suite = {"name": "smoke", "says": "by hand", "settings": settings, "versions": {}, "jobs": self.jobs}
        (self.path / "suite.json").write_text(json.dumps(suite))
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self) -> Results:
        return read_results(self.path)

    def training(
        self, kind: str, dataset: str, method: str, seed: int, norms: Mapping[float, float], accuracy: float = 0.5
    ) -> None:
        """Add a probe or a run, with the head norm at some moments; accuracy is lower by 0.2 in validation."""
        folder = self.add(kind, dataset, method, seed)
        lines = ["step,epoch,split,measure,value"]
        for step, (moment, norm) in enumerate(norms.items()):
            lines += [f"{step},{moment},all,head_norm,{norm}", f"{step},{moment},all,head_norm.class_0,99.0"]
            lines += [f"{step},{moment},train,accuracy,{accuracy}"]
            lines += [f"{step},{moment},validation,accuracy,{accuracy - 0.2}"]
        (folder / ("probe.csv" if kind == "probe" else "tracking.csv")).write_text("\n".join(lines) + "\n")
        (folder / "metrics.json").write_text("{}")

    def grid(
        self, dataset: str, method: str, seed: int, norm: float, differences: Mapping[str, Mapping[float, float]]
    ) -> None:
        """Add a head-norm experiment: the head's own norm, and by split the difference of each factor."""
        lines = ["head_scale,norm_at_start,split,feature_difference,accuracy"]
        for split, by_factor in differences.items():
            lines += [f"{factor},{factor * norm},{split},{value},0.5" for factor, value in by_factor.items()]
        (self.add("head_scale", dataset, method, seed) / "head_scale.csv").write_text("\n".join(lines) + "\n")

    def kernel(self, dataset: str, method: str, seed: int, features: Sequence[Sequence[float]], f: torch.Tensor,
               labels: Sequence[int], names: Sequence[str]) -> None:  # fmt: skip
        """Add a kernel: ⟨φ, φ'⟩ + 1, and F of shape (N, C, N, C)."""
        folder = self.add("kernel", dataset, method, seed)
        logits = torch.zeros(len(labels), len(names))
        kernel = NTKDecomposition(torch.tensor(features), {"a": f / 4, "b": 3 * f / 4}, logits, logits, symmetric=True)
        save_parts(folder, {"train": kernel})
        config = {"data": {"train": {"labels": list(labels)}}, "label_names": list(names)}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "summary.json").write_text("{}")

    def features(
        self, dataset: str, method: str, seed: int, moved: float, *, count: int = 12, classes: int = 2
    ) -> None:
        """Add features that lie in a cloud for each class, and move by some length in training."""
        folder = self.add("features", dataset, method, seed)
        before, labels = clouds(count, classes)
        random = torch.from_numpy(np.random.default_rng(3).normal(size=(classes, 4)))
        after = before + moved * torch.tensor([0.0, 0.0, 1.0, 0.0])
        start = 9 * random if method.startswith("lp") else random
        tensors = {"features": after, "pretrained_features": before, "labels": labels, "head_weight": 2 * random,
                   "start_head_weight": start}  # fmt: skip
        write_tensors(folder / "features.safetensors", tensors, {})
        (folder / "config.json").write_text(json.dumps({"label_names": [f"kind {i}" for i in range(classes)]}))


def clouds(count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of shape (count, 4) around a centre for each class, and the classes."""
    labels = torch.arange(count) % classes
    noise = torch.from_numpy(np.random.default_rng(7).normal(size=(count, 4)))
    return noise + 20.0 * labels[:, None] * torch.tensor([1.0, 1.0, 0.0, 0.0]), labels


def signed(strengths: Sequence[Sequence[float]], classes: int = 2) -> torch.Tensor:
    """F of shape (N, C, N, C) with blocks a·diag(1, −1, …), whose trace norm is C·|a|."""
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])[:classes]
    return torch.einsum("nm,cd->ncmd", torch.tensor(strengths), torch.diag(signs))


def everything(path: Path) -> Folder:
    """Make results of two data sets from which every figure can be drawn."""
    folder = Folder(path)
    strengths = [[9.0, 1.0, 3.0], [1.0, 9.0, 2.0], [3.0, 2.0, 9.0]]
    for dataset, classes in (("amazon-snippets", 2), ("cb", 3)):
        names = ["entailment", "contradiction", "neutral"][:classes]
        splits = ["test"] + (["ood.movie-snippets", "ood.nyt-snippets"] if classes == 2 else [])
        for seed in (1, 2):
            folder.training("probe", dataset, "lp", seed, {0: 1.0, 1: 2.0 * seed, 2: 2.0 + 2.0 * seed})
            folder.training("finetune", dataset, "ft", seed, {0.0: 1.0, 1.0: 1.0 + 0.5 * seed})
            for method in METHODS:
                strength = [[value * seed for value in row] for row in strengths]
                features = [[5.0, 1.0, 2.0], [1.0, 6.0, 3.0], [2.0, 3.0, 7.0]]
                folder.kernel(dataset, method, seed, features, signed(strength, classes), [1, 0, 1], names)
            for method in ("ft", "lp-ft"):
                norm = 1.0 if method == "ft" else 30.0
                folder.grid(
                    dataset, method, seed, norm, {split: {0.1: 2.0, 1.0: 1.0 * seed, 10.0: 0.2} for split in splits}
                )
        for method in METHODS:
            folder.features(dataset, method, 1, 0.01 if method.startswith("lp") else 30.0, classes=classes)
    return folder
