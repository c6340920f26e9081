"""What the ``calibrate`` command reads: run folders of ``finetune``, or files of logits and labels."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ntk_lpft.calibration import Predictions
from ntk_lpft.calibration.arrays import read_named
from ntk_lpft.commands.calibrate.options import CalibrateOptions, named_file
from ntk_lpft.errors import InputError
from ntk_lpft.runs import FinetuneRun
from ntk_lpft.storage import tensor_digest
from ntk_lpft.tasks.fingerprint import digest

FIT_SPLIT = "validation"


@dataclass(frozen=True)
class PredictedRun:
    """One classifier's predictions, and what is known of it.

    Attributes:
        name: What tables call it: its folder, or the file of its validation logits.
        splits: Its predictions on ``validation``, and on ``test`` and each ``ood.NAME`` where there are such.
        dataset: Name of its data; empty for files.
        model: Name of its model; empty for files.
        method: How it was trained, with the factor on its head where that is not 1; empty for files.
        seed: Seed of its training; None for files.
        norms: ‖V‖: ``norm_before`` any training, ``norm_after_lp`` after linear probing, ``norm_after`` training; as
            far as they are known.
    """

    name: str
    splits: Mapping[str, Predictions]
    dataset: str
    model: str
    method: str
    seed: int | None
    norms: Mapping[str, float]

    @property
    def group(self) -> tuple[str, str, str]:
        """What runs share that differ by their seed alone: data, model and method."""
        return self.dataset, self.model, self.method

    @property
    def fingerprint(self) -> str:
        """A sha256 over its predictions and what is known of it."""
        content = {
            f"{split}/{name}": torch.from_numpy(value)
            for split, predictions in self.splits.items()
            for name, value in (("probabilities", predictions.probabilities), ("labels", predictions.labels))
        }
        return digest([tensor_digest(content), *self.group, self.seed, dict(self.norms)])

    @property
    def reports(self) -> list[str]:
        """The splits that the temperature is not fitted on."""
        return [split for split in self.splits if split != FIT_SPLIT]


def read_predicted(options: CalibrateOptions) -> list[PredictedRun]:
    """Read the runs that options name, or their files as one.

    Args:
        options: Options of the command, checked.

    Returns:
        One value for each run, in the order given; a single one for files.

    Raises:
        InputError: Something cannot be read or used.
    """
    if options.runs:
        return read_runs(options.runs)
    assert options.logits is not None
    test = None if options.test_logits is None else (options.test_logits, options.test_labels)
    # None where labels lie beside the logits.
    ood = list(itertools.zip_longest(options.ood_logits, options.ood_labels))
    return [read_files(options.logits, options.labels, test, ood)]


def read_runs(folders: Sequence[str]) -> list[PredictedRun]:
    """Read run folders.

    Args:
        folders: Folders that ``finetune`` wrote.

    Returns:
        The runs, in that order.

    Raises:
        InputError: A folder is given twice, does not hold a finished run, or its predictions cannot be used.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise InputError(f"run folder {path} is given twice")
        seen.add(path.resolve())
    return [_read_run(path) for path in paths]


def _read_run(folder: Path) -> PredictedRun:
    run = FinetuneRun(folder)
    predictions, metrics = run.predictions(), run.metrics()
    path = run.file(run.PREDICTIONS)
    if FIT_SPLIT not in predictions:
        raise InputError(
            f"{path} has no validation split to fit the temperature on (it has {', '.join(predictions)}); give logits "
            "by --logits, --labels, --test-logits and --test-labels"
        )
    others = ["test"] if "test" in predictions else []
    wanted = [FIT_SPLIT, *others, *(name for name in predictions if name.startswith("ood."))]
    splits = {name: Predictions.from_logits(*predictions[name], f"{name} logits of {path}") for name in wanted}
    _check_classes(splits, str(path))
    head = metrics["head"] if isinstance(metrics.get("head"), dict) else {}
    norms = {name: float(value) for name, value in head.items() if _is_norm(value)}
    return PredictedRun(
        str(folder),
        splits,
        metrics["dataset"],
        metrics["model"],
        _method(metrics, norms),
        metrics["seed"],
        norms,
    )


def _is_norm(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _method(metrics: Mapping[str, Any], norms: Mapping[str, float]) -> str:
    """Name the method, and the factor on its head at the start of training."""
    before = norms.get("norm_after_lp", norms.get("norm_before", 0.0))
    factor = norms["norm_at_start"] / before if before > 0 and "norm_at_start" in norms else 1.0
    return metrics["method"] if abs(factor - 1) < 1e-4 else f"{metrics['method']} ×{factor:.4g}"


def read_files(
    logits: str,
    labels: str | None,
    test: tuple[str, str | None] | None,
    ood: Sequence[tuple[str, str | None]],
) -> PredictedRun:
    """Read files of logits and labels.

    Args:
        logits: Of the validation split.
        labels: Of the validation split; None where the file of logits has them.
        test: Both of the test split, if there is one.
        ood: Both of each OOD test; the file of logits may be ``NAME=FILE``, else the file names the test.

    Returns:
        The run.

    Raises:
        InputError: A file cannot be used, splits have different classes, or two OOD tests one name.
    """
    validation, names = read_named(logits, labels, FIT_SPLIT)
    splits = {FIT_SPLIT: validation}
    if test is not None:
        splits["test"], _ = read_named(*test, "test", like=names)
    for given, classes in ood:
        name, file = named_file(given)
        if f"ood.{name}" in splits:
            raise InputError(f"two OOD tests are called {name!r}; name them, as in --ood-logits NAME=FILE")
        splits[f"ood.{name}"], _ = read_named(file, classes, f"ood.{name}", like=names)
    _check_classes(splits, "the files")
    return PredictedRun(Path(logits).name, splits, "", "", "", None, {})


def _check_classes(splits: Mapping[str, Predictions], where: str) -> None:
    expected = splits[FIT_SPLIT].num_classes
    for name, predictions in splits.items():
        if predictions.num_classes != expected:
            raise InputError(
                f"{where}: logits of {name} have {predictions.num_classes} classes, those of validation {expected}"
            )
