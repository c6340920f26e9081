"""Features of a fine-tuned classifier and of the pretrained one on the same samples, with the rows of their heads.

``python -m analysis.experiments.features --run RUN --split test --output-dir FOLDER`` writes what the paper's figures
5 and 6 draw.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ntk_lpft.classifier import extract_features, load_classifier, load_tokenizer, scale_head
from ntk_lpft.classifier.head import Head
from ntk_lpft.classifier.head_file import head_from_file
from ntk_lpft.classifier.loading import initialise_head
from ntk_lpft.command import open_output, parse_options, run_command, write_json
from ntk_lpft.errors import InputError
from ntk_lpft.finetune_options import FinetuneOptions
from ntk_lpft.finetuning.methods import PROBE_HEAD, head_norm
from ntk_lpft.kernel.engine import resolve_device
from ntk_lpft.kernel.identity import versions
from ntk_lpft.storage import write_tensors
from ntk_lpft.tasks import EncodedSplit, Task

PROG = "python -m analysis.experiments.features"
DESCRIPTION = (
    "Write the features that a fine-tuned classifier and its pretrained model give the same samples, and the rows of "
    "the head before and after training, for pictures of the feature space."
)
RESULT = "features.safetensors"
RESULTS = ("config.json", RESULT)
_NORM_TOLERANCE = 1e-4  # relative; a head file keeps more digits than the model, and devices round differently


def _option(default: Any, text: str) -> Any:
    """Dataclass field with a help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class FeatureOptions:
    """Options of ``python -m analysis.experiments.features``."""

    run: str = _option("", "folder of a finished `python -m ntk_lpft.finetune`")
    split: str = _option("test", "train, validation, test, or ood.NAME")
    n_eval: int | None = _option(None, "most rows, drawn uniformly from those of the run (default: all of them)")
    device: str | None = _option(None, "cpu, cuda, cuda:1 (default: cuda where there is one)")
    output_dir: str | None = _option(None, "folder for the results")
    overwrite: bool = _option(False, "replace results in the output folder")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        if not self.run:
            raise InputError("--run is needed: the folder of a finished `python -m ntk_lpft.finetune`")
        if self.output_dir is None:
            raise InputError("--output-dir is needed: a folder for the results")
        if self.n_eval is not None and self.n_eval < 1:
            raise InputError(f"--n-eval {self.n_eval} is not positive")
        resolve_device(self.device, torch.device("cpu"))


@dataclass(frozen=True)
class Run:
    """A finished fine-tuning run.

    Attributes:
        folder: Where it is.
        options: The command's own options.
        seed: Of its training.
        fingerprints: Of its splits' token rows and labels.
        norms: ‖V‖ of its head at several moments, from ``metrics.json``.
    """

    folder: Path
    options: FinetuneOptions
    seed: int
    fingerprints: Mapping[str, str]
    norms: Mapping[str, float]


def read_run(folder: Path) -> Run:
    """Read what a run's folder says of it.

    Raises:
        InputError: There is no finished run in it, or its files are damaged.
    """
    if not folder.is_dir():
        raise InputError(f"run folder {folder} does not exist")
    if not (folder / "metrics.json").is_file():
        raise InputError(f"{folder} holds no finished run (it has no metrics.json); finish it with --resume")
    try:
        config, metrics = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "metrics.json")
        )
        known = {f.name for f in dataclasses.fields(FinetuneOptions)}
        options = FinetuneOptions(**{name: value for name, value in config["options"].items() if name in known})
        prints = {name: part["fingerprint"] for name, part in config["data"].items()}
        return Run(folder, options, int(config["options"]["seed"]), prints, dict(metrics["head"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            f"config.json or metrics.json in {folder} is damaged, or was not written by `python -m ntk_lpft.finetune`"
        ) from problem


def run_split(run: Run, task: Task, split: str) -> EncodedSplit:
    """Return the rows that a run had of a split.

    Args:
        run: The run.
        task: Its data.
        split: ``train``, ``validation``, ``test`` or ``ood.NAME``.

    Raises:
        InputError: The run had no such split, its data cannot be read, or has changed since.
    """
    options = run.options
    if split not in run.fingerprints:
        raise InputError(f"--split: the run has no split {split!r}; choose one of {', '.join(run.fingerprints)}")
    whole = task.ood_split(split.removeprefix("ood.")) if split.startswith("ood.") else task.split(split)
    train = split == "train"
    drawn = whole.subsample(options.n_train if train else options.n_eval, run.seed, balanced=train)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    encoded = drawn.encode(tokenizer, options.max_length)
    if encoded.fingerprint != run.fingerprints[split]:
        raise InputError(
            f"the rows of {split} are not those that the run in {run.folder} had: the data or the tokenizer has "
            "changed since; run it again"
        )
    return encoded


@dataclass(frozen=True)
class FeaturePair:
    """Features of the same samples after and before training, with heads.

    Attributes:
        features: φ of the fine-tuned classifier, (N, h).
        labels: Classes, (N,).
        head_weight: Its V, (C, h).
        head_bias: Its b, (C,), or None where its head has none.
        pretrained_features: φ of the pretrained model, (N, h).
        heads: Heads before training, as far as they can be had: ``pretrained_head_weight`` and ``…_bias`` before
            anything, ``start_head_weight`` and ``…_bias`` where fine-tuning began, after probing and scaling.
        left_out: Why heads before training are left out; empty where none is.
    """

    features: Float[Tensor, "n h"]
    labels: Int[Tensor, " n"]
    head_weight: Float[Tensor, "c h"]
    head_bias: Float[Tensor, " c"] | None
    pretrained_features: Float[Tensor, "n h"]
    heads: Mapping[str, Tensor]
    left_out: str

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, without what there is not."""
        found = {name: getattr(self, name) for name in ("features", "labels", "head_weight", "pretrained_features")}
        return {**found, **({} if self.head_bias is None else {"head_bias": self.head_bias}), **self.heads}


def feature_pair(run: Run, samples: EncodedSplit, num_labels: int, device: torch.device) -> FeaturePair:
    """Compute features before and after a run's training.

    Args:
        run: The run.
        samples: Rows, made by the run's tokenizer.
        num_labels: C.
        device: Where to compute.

    Returns:
        The features, float32, in the order of the samples, on the CPU.

    Raises:
        InputError: The run's or the pretrained model cannot be loaded.
    """
    options = run.options
    common: dict[str, Any] = {"head": options.head, "device": device, "trust_remote_code": options.trust_remote_code}
    after = extract_features(
        load_classifier(run.folder, num_labels, keep_head=True, **common), samples, device=device, progress=True
    )
    pretrained = load_classifier(
        options.model,
        num_labels,
        pooling=options.pooling,
        seed=run.seed,
        keep_head=options.head_init == "keep",
        **common,
    )
    before = extract_features(pretrained, samples, device=device, progress=True)
    heads, left_out = _heads_before(run, before.head)
    bias = after.head.module.bias
    return FeaturePair(
        after.features,
        torch.from_numpy(samples.labels.copy()),
        after.head.module.weight.detach().cpu(),
        None if bias is None else bias.detach().cpu(),
        before.features,
        heads,
        left_out,
    )


def _heads_before(run: Run, head: Head) -> tuple[dict[str, Tensor], str]:
    """Make the run's heads before training anew, and hold them to the norms that it wrote down.

    Returns:
        The heads that agree, and why others are left out.
    """
    options, reasons = run.options, list[str]()
    found: dict[str, Tensor] = {}
    try:
        if options.head_init == "random":
            initialise_head(head, run.seed)
        elif options.head_init != "keep":
            head_from_file(head, options.head_init)
    except InputError as problem:
        reasons.append(str(problem))
    else:
        reasons.append(_take(found, "pretrained_head", head, run.norms.get("norm_before")))
    try:
        if options.method.startswith("lp"):
            head_from_file(head, run.folder / PROBE_HEAD)
        elif not found:
            return found, "; ".join(filter(None, reasons))
        if options.method != "lp":
            scale_head(head, options.head_scale[0], bias=options.scale_bias)
            reasons.append(_take(found, "start_head", head, run.norms.get("norm_at_start")))
    except InputError as problem:
        reasons.append(str(problem))
    return found, "; ".join(filter(None, reasons))


def _take(found: dict[str, Tensor], name: str, head: Head, norm: float | None) -> str:
    """Add a head that has the norm which the run wrote down; else return why not."""
    if norm is None or abs(head_norm(head) - norm) > _NORM_TOLERANCE * abs(norm):
        return f"{name} of norm {head_norm(head):.6g} is not the run's, of norm {norm}"
    found[f"{name}_weight"] = head.module.weight.detach().cpu().clone()
    if head.module.bias is not None:
        found[f"{name}_bias"] = head.module.bias.detach().cpu().clone()
    return ""


def write_features(options: FeatureOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the run or its data.
    """
    options.check()
    folder = Path(str(options.output_dir)).expanduser()
    run = read_run(Path(options.run).expanduser())
    task = run.options.task()
    samples = run_split(run, task, options.split).subsample(options.n_eval, run.seed, balanced=False)
    open_output(folder, RESULTS, overwrite=options.overwrite)
    device = resolve_device(options.device, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    pair = feature_pair(run, samples, task.num_labels, device)
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    config = {
        "command": PROG,
        "options": {k: v for k, v in dataclasses.asdict(options).items() if k != "overwrite"},
        "versions": versions(),
        "run": {"method": run.options.method, "model": run.options.model, "seed": run.seed},
        "data": {
            options.split: {
                "fingerprint": samples.fingerprint,
                "indices": samples.indices.tolist(),
                "labels": samples.labels.tolist(),
                "truncated": samples.n_truncated,
            }
        },
        "label_names": list(task.label_names),
        "source": task.source,
        "left_out": pair.left_out,
    }
    write_json(folder / "config.json", config)
    description = {"command": PROG, "run": config["run"], "split": options.split, "left_out": pair.left_out}
    write_tensors(folder / RESULT, pair.tensors(), description)  # last, as it marks the command as finished
    print(f"{len(samples)} {options.split} samples of {task.name}, {pair.features.shape[1]} features before and after")
    if pair.left_out:
        print(f"notice: a head before training is left out: {pair.left_out}")
    print(f"Results in {folder}: {', '.join(RESULTS)}")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(lambda: write_features(parse_options(FeatureOptions, DESCRIPTION, arguments, PROG)))


if __name__ == "__main__":
    sys.exit(main())
