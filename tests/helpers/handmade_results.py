"""Results folders written by hand: a suite.json, records of jobs, and the files that jobs leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ntk_lpft.kernel.decomposition import NTKDecomposition, save_parts

SETTINGS: dict[str, Any] = {
    "name": "smoke",
    "model": "{results}/models/tiny",
    "datasets": {"cb": {"rows": None, "epochs": 3, "kernel_rows": [8, 4], "scale_rows": [6, 5], "scale_epochs": 1}},
}


class Handmade:
    """A results folder that is filled job by job."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] = SETTINGS) -> None:
        self.folder = folder
        self.settings = settings
        self.jobs: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        kind: str,
        dataset: str,
        method: str,
        seed: int,
        files: Mapping[str, str] | None = None,
        *,
        state: str = "finished",
        arguments: Sequence[str] = (),
        error: str = "",
    ) -> Path:
        """Add a job, its record and its files; write suite.json anew."""
        job = {"kind": kind, "dataset": dataset, "method": method, "seed": seed}
        self.jobs.append({**job, "arguments": list(arguments), "needs": [], "flops": 0.0})
        name = f"{kind}/{dataset}/{method}/seed-{seed}"
        record = self.folder / "jobs" / f"{name}.json"
        if state != "waiting":
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"state": state, "arguments": list(arguments), "error": error}))
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        for file, text in (files or {}).items():
            (place / file).write_text(text)
        suite = {"name": "smoke", "says": "by hand", "settings": self.settings, "versions": {}, "jobs": self.jobs}
        (self.folder / "suite.json").write_text(json.dumps(suite))
        return place

    def run(self, dataset: str, method: str, seed: int, *, arguments: Sequence[str] = (), start: str = "",
            **numbers: Any) -> Path:  # fmt: skip
        """Add a finished run; see `metrics_of` for the numbers."""
        files = {"metrics.json": json.dumps(metrics_of(dataset, method, seed, **numbers))}
        if start:
            files["tracking.csv"] = f"step,epoch,split,measure,value\n{start}"
        return self.add("finetune", dataset, method, seed, files, arguments=arguments)

    def kernel(self, dataset: str, method: str, seed: int, *, features: Sequence[Sequence[float]] | None = None,
               **rows: Mapping[str, Any]) -> Path:  # fmt: skip
        """Add a kernel; ``features`` is ΦΦᵀ + 1, and ``P``, ``F`` and ``PF`` are the rows of its statistics."""
        statistics = [
            {"kernel": name, "pair_base_rate": 2 / 3, "unconverged_fits": 0, "rank_tolerance": 0.5, "ft_ratio": None,
             "median_ft_ratio": 0.5 if name == "F" else None} | dict(rows[key])
            for name, key in (("P", "P"), ("F", "F"), ("P+F", "PF"))
        ]  # fmt: skip
        files = {"summary.json": json.dumps({"statistics": statistics, "num_labels": 3})}
        place = self.add("kernel", dataset, method, seed, files)
        if features is not None:
            count = len(features)
            f, logits = torch.zeros(count, 3, count, 3), torch.zeros(count, 3)
            whole = NTKDecomposition(torch.tensor(features), {"all": f}, logits, logits, symmetric=True)
            save_parts(place, {"train": whole})
        return place

    def calibration(self, dataset: str, method: str, seed: int, before: tuple[float, float],
                    after: tuple[float, float]) -> Path:  # fmt: skip
        """Add a calibration with (ECE, MCE), as fractions, on the test split; the validation split has others."""
        lines = ["run,split,stage,measure,value"]
        for split, shift in (("validation", 0.3), ("test", 0.0)):
            for stage, (ece, mce) in (("before", before), ("after", after), ("change", (0.9, 0.9))):
                lines += [f"r,{split},{stage},ece,{ece + shift}", f"r,{split},{stage},mce,{mce + shift}"]
                lines.append(f"r,{split},{stage},accuracy,0.7")
        return self.add("calibration", dataset, method, seed, {"calibration.csv": "\n".join(lines) + "\n"})

    def probe(self, dataset: str, seed: int, norms: Sequence[float], accuracies: Sequence[float]) -> Path:
        """Add a recorded linear probe."""
        lines = ["step,epoch,split,measure,value"]
        for step, (norm, accuracy) in enumerate(zip(norms, accuracies, strict=True)):
            lines += [f"{step},{step}.0,train,accuracy,{accuracy}", f"{step},{step}.0,validation,accuracy,1.0",
                      f"{step},{step}.0,all,head_norm,{norm}"]  # fmt: skip
        files = {"probe.csv": "\n".join(lines) + "\n", "metrics.json": "{}"}
        return self.add("probe", dataset, "lp", seed, files)

    def grid(self, dataset: str, method: str, seed: int, norms: Sequence[float], changes: Sequence[float]) -> Path:
        """Add runs from heads of many norms."""
        lines = ["head_scale,norm_at_start,split,feature_difference,accuracy"]
        lines += [f"{n},{n},{split},{c + shift},0.5" for n, c in zip(norms, changes, strict=True)
                  for split, shift in (("train", 3.0), ("test", 0.0))]  # fmt: skip
        return self.add("head_scale", dataset, method, seed, {"head_scale.csv": "\n".join(lines) + "\n"})


def metrics_of(
    dataset: str,
    method: str,
    seed: int,
    *,
    norm: float = 1.0,
    before: float = 0.5,
    cs: float = 0.9,
    diff: float = 1.0,
    fdr: float = 2.0,
    accuracy: float = 0.5,
    matthews: float | None = None,
    ood: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Make a run's metrics; ``lp-…`` methods also have the norm after LP, a tenth less than after training."""
    head = {"norm_before": before, "norm_after": norm}
    if method.startswith("lp"):
        head["norm_after_lp"] = 0.9 * norm if method != "lp" else norm
    test = {"cosine_similarity": cs, "feature_difference": diff, "fisher_discriminant_ratio": fdr,
            "accuracy": accuracy}  # fmt: skip
    test |= {} if matthews is None else {"matthews": matthews}
    splits = {"train": {**test, "accuracy": 1.0, "feature_difference": 99.0}, "test": test}
    splits |= {f"ood.{name}": {**test, **changed} for name, changed in (ood or {}).items()}
    return {"method": method, "dataset": dataset, "seed": seed, "model": "tiny", "head": head, "splits": splits,
            "metric": "accuracy" if matthews is None else "matthews"}  # fmt: skip
