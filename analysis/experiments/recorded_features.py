"""Features of a fine-tuned classifier and of the pretrained one on the same samples, with the rows of their heads.

``python -m analysis.experiments.features --run RUN --split test --output-dir FOLDER`` writes what the paper's figures
5 and 6 draw.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analysis.experiments.folders import FeatureRun
from analysis.experiments.options import FeatureOptions
from analysis.experiments.shared import is_done
from ntk_lpft.classifier import Head, extract_features, head_norm, load_classifier, load_tokenizer, scale_head
from ntk_lpft.classifier.head_file import head_from_file
from ntk_lpft.classifier.head_weights import initialise_head
from ntk_lpft.commands.data import task_of
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.devices import command_device
from ntk_lpft.errors import InputError
from ntk_lpft.options import inputs_of
from ntk_lpft.provenance import versions
from ntk_lpft.runs import FinetuneRun
from ntk_lpft.tasks import EncodedSplit, Task

_NORM_TOLERANCE = 1e-4  # relative; a head file keeps more digits than the model, and devices round differently


@dataclass(frozen=True)
class RecordedRun:
    """What a finished fine-tuning run says of itself.

    Attributes:
        folder: Where it is.
        options: The command's own options.
        seed: Of its training.
        fingerprints: Of its splits' token rows and labels.
        norms: ‖V‖ of its head at several moments.
    """

    folder: FinetuneRun
    options: FinetuneOptions
    seed: int
    fingerprints: Mapping[str, str]
    norms: Mapping[str, float]


def read_run(folder: FinetuneRun) -> RecordedRun:
    """Read what a run's folder says of it.

    Raises:
        InputError: There is no finished run in it, or its files are damaged.
    """
    metrics, config = folder.metrics(), folder.config()
    try:
        known = {f.name for f in dataclasses.fields(FinetuneOptions)}
        options = FinetuneOptions(**{name: value for name, value in config["options"].items() if name in known})
        prints = {name: part["fingerprint"] for name, part in config["data"].items()}
        return RecordedRun(folder, options, int(config["options"]["seed"]), prints, dict(metrics["head"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder.CONFIG} or {folder.METRICS} in {folder.path} is damaged, or was not written by `{folder.COMMAND}`"
        ) from error


def run_split(run: RecordedRun, task: Task, split: str) -> EncodedSplit:
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
            f"the rows of {split} are not those that the run in {run.folder.path} had: the data or the tokenizer has "
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
        tensors = {name: getattr(self, name) for name in ("features", "labels", "head_weight", "pretrained_features")}
        return {**tensors, **({} if self.head_bias is None else {"head_bias": self.head_bias}), **self.heads}


def feature_pair(run: RecordedRun, samples: EncodedSplit, num_labels: int, device: torch.device) -> FeaturePair:
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
        load_classifier(run.folder.path, num_labels, keep_head=True, **common), samples, device=device, progress=True
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


def _heads_before(run: RecordedRun, head: Head) -> tuple[dict[str, Tensor], str]:
    """Make the run's heads before training anew, and hold them to the norms that it wrote down.

    Returns:
        The heads that agree, and why others are left out.
    """
    options, reasons = run.options, list[str]()
    heads: dict[str, Tensor] = {}
    try:
        if options.head_init == "random":
            initialise_head(head, run.seed)
        elif options.head_init != "keep":
            head_from_file(head, options.head_init)
    except InputError as error:
        reasons.append(str(error))
    else:
        reasons.append(_take(heads, "pretrained_head", head, run.norms.get("norm_before")))
    try:
        if options.method.startswith("lp"):
            head_from_file(head, run.folder.believed(run.folder.PROBE_HEAD))
        elif not heads:
            return heads, "; ".join(filter(None, reasons))
        if options.method != "lp":
            scale_head(head, options.head_scale[0], bias=options.scale_bias)
            reasons.append(_take(heads, "start_head", head, run.norms.get("norm_at_start")))
    except InputError as error:
        reasons.append(str(error))
    return heads, "; ".join(filter(None, reasons))


def _take(heads: dict[str, Tensor], name: str, head: Head, norm: float | None) -> str:
    """Add a head that has the norm which the run wrote down; else return why not."""
    if norm is None or abs(head_norm(head) - norm) > _NORM_TOLERANCE * abs(norm):
        return f"{name} of norm {head_norm(head):.6g} is not the run's, of norm {norm}"
    heads[f"{name}_weight"] = head.module.weight.detach().cpu().clone()
    if head.module.bias is not None:
        heads[f"{name}_bias"] = head.module.bias.detach().cpu().clone()
    return ""


def _fingerprint(folder: FinetuneRun) -> dict[str, str]:
    """Tell a run from another in the same folder, by what it measured and predicted."""
    names = (folder.METRICS, folder.PREDICTIONS)
    return {name: hashlib.sha256(folder.file(name).read_bytes()).hexdigest() for name in names}


def write_features(options: FeatureOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the run or its data.
    """
    device = command_device(options.device)
    results = FeatureRun(str(options.output_dir))
    run = read_run(FinetuneRun(options.run))
    task = task_of(run.options)
    samples = run_split(run, task, options.split).subsample(options.n_eval, run.seed, balanced=False)
    about = {"method": run.options.method, "model": run.options.model, "seed": run.seed}
    config = {
        "options": stored_options(options),
        "versions": versions(),
        "run": about,
        "model": _fingerprint(run.folder),
        "data": {options.split: samples.description()},
        "label_names": list(task.label_names),
        "source": task.source,
    }
    with results.opened(overwrite=options.overwrite, inputs=inputs_of(options), options=stored_options(options)):
        if is_done(results, config, overwrite=options.overwrite):
            return results.path
        pair = feature_pair(run, samples, task.num_labels, device)
        results.clear()
        results.write_config({**config, "left_out": pair.left_out})
        results.write_features(pair.tensors(), {"run": about, "split": options.split, "left_out": pair.left_out})
        print(
            f"{len(samples)} {options.split} samples of {task.name}, {pair.features.shape[1]} features before and after"
        )
        if pair.left_out:
            print(f"notice: a head before training is left out: {pair.left_out}")
        print(f"Results in {results.path}: {', '.join(results.written())}")
    return results.path
