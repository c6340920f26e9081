"""``python -m ntk_lpft.calibrate``: temperature scaling of trained classifiers, and what it does to calibration."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scipy
import sklearn
from tqdm import tqdm

from ntk_lpft import calibrate_report as report
from ntk_lpft.calibrate_inputs import FIT_SPLIT, Run, read_files, read_runs
from ntk_lpft.calibrate_report import Calibrated
from ntk_lpft.calibration import (
    Bins,
    Estimate,
    Evaluation,
    IsotonicCalibration,
    Predictions,
    VectorScaling,
    errors_by_chance,
    evaluate,
    fit_isotonic,
    fit_temperature,
    fit_vector_scaling,
    reliability_bins,
)
from ntk_lpft.calibration.binned import check_bins
from ntk_lpft.calibration.evaluation import check_resamples
from ntk_lpft.command import open_output, parse_options, run_command
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.identity import versions

PROG = "python -m ntk_lpft.calibrate"
DESCRIPTION = (
    "Fit a temperature on validation logits, and report calibration before and after it on the test split and on each "
    "OOD test: of run folders that `finetune` wrote (several are put together by method, over seeds), or of files of "
    "logits and labels from anywhere. Files are safetensors (tensors 'logits' and 'labels', or a single one), npy, "
    "or csv and tsv with or without a header (one column a class; labels: one column of 0 … C-1). Example: "
    "--logits val.npy --labels val_labels.npy --test-logits test.npy --test-labels test_labels.npy"
)


def _option(default: Any, text: str) -> Any:
    """Dataclass field with a help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class CalibrateOptions:
    """Options of ``python -m ntk_lpft.calibrate``."""

    runs: list[str] = field(
        default_factory=list, metadata={"help": "run folders of `finetune`; the same as the words without a flag"}
    )
    logits: str | None = _option(None, "file of validation logits (N, C), instead of run folders")
    labels: str | None = _option(None, "file of validation labels; not needed beside a safetensors that has both")
    test_logits: str | None = _option(None, "file of test logits")
    test_labels: str | None = _option(None, "file of test labels")
    ood_logits: list[str] = field(
        default_factory=list, metadata={"help": "files of logits of OOD tests, each FILE or NAME=FILE"}
    )
    ood_labels: list[str] = field(
        default_factory=list, metadata={"help": "files of labels of OOD tests, in the same order"}
    )
    bins: int = _option(15, "bins of ECE, MCE and the other measures with bins")
    resamples: int = _option(1000, "bootstrap resamples for intervals; 0 for none")
    level: float = _option(0.95, "confidence level of the intervals")
    seed: int = _option(0, "seed of the resamples")
    compare: bool = _option(False, "fit vector scaling and isotonic regression as well")
    output_dir: str | None = _option(
        None, "folder for the results (default: RUN_FOLDER/calibration for one run, else runs/calibration)"
    )
    overwrite: bool = _option(False, "replace results in the output folder")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        files = [self.logits, self.labels, self.test_logits, self.test_labels, *self.ood_logits, *self.ood_labels]
        if self.runs and any(name is not None for name in files):
            raise InputError("give run folders or files of logits, not both")
        if not self.runs and self.logits is None:
            raise InputError("nothing to calibrate: give run folders of `finetune`, or --logits and --labels")
        if self.test_labels is not None and self.test_logits is None:
            raise InputError("--test-labels needs --test-logits")
        if self.ood_labels and len(self.ood_labels) != len(self.ood_logits):
            raise InputError(
                f"--ood-logits names {len(self.ood_logits)} files and --ood-labels {len(self.ood_labels)}; give one of "
                "labels for each of logits"
            )
        check_bins(self.bins)
        check_resamples(self.resamples, self.level)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is not from 0 to 2**63 - 1")

    def folder(self) -> Path:
        """Where the results go."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        return Path(self.runs[0]).expanduser() / "calibration" if len(self.runs) == 1 else Path("runs/calibration")

    def read(self) -> list[Run]:
        """Read the runs, or the files as one.

        Raises:
            InputError: Something cannot be read or used.
        """
        if self.runs:
            return read_runs(self.runs)
        assert self.logits is not None
        test = None if self.test_logits is None else (self.test_logits, self.test_labels)
        ood = list(itertools.zip_longest(self.ood_logits, self.ood_labels))  # None where labels lie beside the logits
        return [read_files(self.logits, self.labels, test, ood)]


def calibrate(options: CalibrateOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the runs or the files.
    """
    options.check()
    runs = options.read()
    folder = options.folder()
    pictures = [*report.picture_names(runs), report.NORM_PICTURE]
    open_output(folder, [*report.TABLES, *pictures], overwrite=options.overwrite)
    for line in _doubts(runs):
        print(f"warning: {line}")
    # The bar stays away unless there is a wait.
    steps = tqdm(total=sum(len(run.splits) for run in runs), desc="calibration", unit="split", delay=2)
    with steps:
        found = [calibrate_run(run, options, steps.update) for run in runs]
    config = {
        "command": PROG,
        "options": {k: v for k, v in dataclasses.asdict(options).items() if k != "overwrite"},
        "versions": {**versions(), "scipy": scipy.__version__, "scikit-learn": sklearn.__version__},
    }
    written = report.write(folder, found, config)
    report.show(folder, found, written, options.bins)
    return folder


def calibrate_run(run: Run, options: CalibrateOptions, advance: Callable[[], Any] = lambda: None) -> Calibrated:
    """Fit one run's temperature on its validation split, and evaluate every split.

    Args:
        run: The run.
        options: Bins, resamples, and what to compare with.
        advance: Called after each split.

    Returns:
        What was found.
    """
    validation = run.splits[FIT_SPLIT]
    assert validation.logits is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = fit_temperature(validation.logits, validation.labels)
        others: dict[str, VectorScaling | IsotonicCalibration] = {}
        if options.compare:
            others["vector"] = fit_vector_scaling(validation.logits, validation.labels)
            others["isotonic"] = fit_isotonic(validation.logits, validation.labels)
    evaluations: dict[str, dict[str, Evaluation]] = {}
    by_chance: dict[str, dict[str, dict[str, Estimate]]] = {}
    bins: dict[str, tuple[Bins, Bins]] = {}
    for split, predictions in run.splits.items():
        stages = {"before": predictions, "after": predictions.scaled(fit.temperature)}
        if options.resamples:
            by_chance[split] = {stage: errors_by_chance(p, **_bootstrap(options)) for stage, p in stages.items()}
        for name, other in others.items():
            assert predictions.logits is not None
            stages[name] = Predictions.from_probabilities(other.probabilities(predictions.logits), predictions.labels)
        bins[split] = (reliability_bins(predictions, options.bins), reliability_bins(stages["after"], options.bins))
        evaluations[split] = {stage: evaluate(p, **_bootstrap(options)) for stage, p in stages.items()}
        advance()
    said = [str(warning.message) for warning in caught]
    return Calibrated(run, fit, evaluations, by_chance, bins, said)


def _bootstrap(options: CalibrateOptions) -> dict[str, Any]:
    return {"bins": options.bins, "resamples": options.resamples, "level": options.level, "seed": options.seed}


def _doubts(runs: Sequence[Run]) -> list[str]:
    """Say which runs look like one seed counted twice."""
    seen: dict[tuple[object, ...], str] = {}
    lines = []
    for run in runs:
        key = (*run.group, run.seed)
        if run.seed is not None and key in seen:
            lines.append(f"{run.name} and {seen[key]} have the same data, model, method and seed")
        seen.setdefault(key, run.name)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(
        lambda: calibrate(parse_options(CalibrateOptions, DESCRIPTION, arguments, PROG, ("runs", "RUN_FOLDER"))),
        "run it again with --overwrite",
    )


if __name__ == "__main__":
    sys.exit(main())
