"""What ``python -m ntk_lpft.calibrate`` does."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import scipy
import sklearn
from scipy.stats import binom
from tqdm import tqdm

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
from ntk_lpft.commands.calibrate import report
from ntk_lpft.commands.calibrate.inputs import FIT_SPLIT, PredictedRun, read_predicted
from ntk_lpft.commands.calibrate.options import CalibrateOptions
from ntk_lpft.commands.calibrate.report import Calibrated
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.options import inputs_of
from ntk_lpft.provenance import versions
from ntk_lpft.runs import CalibrationRun

_IMPROBABLE = 1e-6


def calibrate(options: CalibrateOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the runs or the files.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        runs = read_predicted(options)
    folder = CalibrationRun(options.folder())
    libraries = {**versions(), "scipy": scipy.__version__, "scikit-learn": sklearn.__version__}
    config = {
        "options": stored_options(options),
        "versions": libraries,
        "data": {run.name: run.fingerprint for run in runs},
    }
    with folder.opened(
        overwrite=options.overwrite,
        more=report.picture_names(runs),
        inputs=inputs_of(options),
        options=stored_options(options),
    ):
        if folder.finished and not options.overwrite:
            folder.check_same(config, ["data", "versions"])
            print(f"{folder.path} holds a finished calibration of these settings: {', '.join(folder.written())}")
            return folder.path
        for line in [*(str(each.message) for each in caught), *_doubts(runs)]:
            print(f"warning: {line}")
        # The bar stays away unless there is a wait.
        steps = tqdm(total=sum(len(run.splits) for run in runs), desc="calibration", unit="split", delay=2)
        with steps:
            calibrated = [calibrate_run(run, options, steps.update) for run in runs]
        folder.clear()
        folder.write_config(config)
        report.write(folder, calibrated)
        folder.seal()
        report.show(folder, calibrated, options.bins)
    return folder.path


def calibrate_run(
    run: PredictedRun, options: CalibrateOptions, advance: Callable[[], Any] = lambda: None
) -> Calibrated:
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


def _doubts(runs: Sequence[PredictedRun]) -> list[str]:
    """Say which runs look like one seed counted twice."""
    seen: dict[tuple[object, ...], str] = {}
    lines = []
    for run in runs:
        key = (*run.group, run.seed)
        if run.seed is not None and key in seen:
            lines.append(f"{run.name} and {seen[key]} have the same data, model, method and seed")
        seen.setdefault(key, run.name)
        lines += [_worse_than_chance(run.name, split, each) for split, each in run.splits.items()]
    return [line for line in lines if line]


def _worse_than_chance(name: str, split: str, predictions: Predictions) -> str:
    """Say where predictions are wrong so often that columns, labels or the sign must be."""
    n, c, right = predictions.num_samples, predictions.num_classes, int(predictions.correct.sum())
    if binom.cdf(right, n, 1 / c) > _IMPROBABLE:
        return ""
    return (
        f"{name}, {split}: {right} of {n} predictions are right, far fewer than chance ({n / c:.0f}) would be; are the "
        "columns in the order of the classes, and is the sign of the logits right?"
    )
