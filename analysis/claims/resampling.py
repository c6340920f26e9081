"""What a run measures on resamples of its test rows, from the logits and measures of rows that it kept.

Seeds and methods that are compared have the same test rows. Had others been drawn for the test, all of them would have
come out otherwise together; resamples of the rows (with replacement, as many as there are) say how far.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from ntk_lpft.calibration.binned import expected_error
from ntk_lpft.calibration.predictions import Predictions
from ntk_lpft.finetuning.trainer import score
from ntk_lpft.runs import FinetuneRun
from ntk_lpft.runs.finetuning import TestedRows

RESAMPLES = 200
BINS = 15  # of the paper's ECE


def resampled_metrics(run: FinetuneRun, metrics: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return a run's metrics on resamples of its rows.

    Scores and Diff are those of the resample. CS, a mean over pairs of rows, is moved by twice the change of the mean
    over rows of their mean cosine with all others, its leading term. Other measures stay as they are.

    Source: Hoeffding (1948), "A class of statistics with asymptotically normal distribution", for CS.

    Args:
        run: The run.
        metrics: Its ``metrics.json``.

    Returns:
        The metrics of each resample, the same rows for every run of these rows; nothing for a run without its logits.

    Raises:
        InputError: The logits are damaged.
    """
    told = metrics.get("splits")
    if not isinstance(told, dict) or not run.file(run.PREDICTIONS).is_file():
        return []
    measured = {name: measures for name, measures in told.items() if name != "train" and isinstance(measures, dict)}
    rows = {name: each for name, each in run.tested_rows().items() if name in measured}
    draws = {name: _measures(each, measured[name], _drawn(run, name, each)) for name, each in rows.items()}
    return [
        {**metrics, "splits": {**told, **{name: _of(measured[name], values, index) for name, values in draws.items()}}}
        for index in range(RESAMPLES)
    ]


def _of(
    told: Mapping[str, Any], draws: Mapping[str, Float64[np.ndarray, " resamples"]], index: int
) -> Mapping[str, Any]:
    return {**told, **{name: float(values[index]) for name, values in draws.items()}}


def resampled_errors(run: FinetuneRun, split: str, temperature: float) -> Sequence[Mapping[str, float]]:
    """Return a run's ECE before and after temperature scaling on resamples of its rows.

    Args:
        run: The run.
        split: Where it is calibrated.
        temperature: T, which stays as it was fitted, on other rows.

    Returns:
        ``ece_pct`` and ``ece_scaled_pct``, in per cent, of each resample; nothing for a run without its logits.

    Raises:
        InputError: The logits are damaged.
    """
    if not run.file(run.PREDICTIONS).is_file():
        return []
    rows = run.tested_rows()[split]
    before = Predictions.from_logits(rows.logits.double(), rows.labels)
    errors = [expected_error(each, BINS) for each in (before, before.scaled(temperature))]
    found = []
    for drawn in _drawn(run, split, rows):
        weights = np.bincount(drawn, minlength=before.num_samples)[None].astype(np.float64)
        found.append(
            {"ece_pct": 100 * float(errors[0](weights)[0]), "ece_scaled_pct": 100 * float(errors[1](weights)[0])}
        )
    return found


def _drawn(run: FinetuneRun, split: str, rows: TestedRows) -> Int[np.ndarray, "resamples n"]:
    """Draw rows with replacement: the same for the same rows, others, and independent ones, for others."""
    told = run.config().get("data", {}).get(split, {}) if run.file(run.CONFIG).is_file() else {}
    known = json.dumps([split, told.get("fingerprint"), rows.labels.tolist()])
    seed = int.from_bytes(hashlib.sha256(known.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).integers(0, len(rows.labels), (RESAMPLES, len(rows.labels)))


def _measures(
    rows: TestedRows, told: Mapping[str, Any], drawn: Int[np.ndarray, "resamples n"]
) -> dict[str, Float64[np.ndarray, " resamples"]]:
    labels, predicted = rows.labels.numpy(), rows.logits.argmax(dim=1).numpy()
    measures = {"accuracy": (labels == predicted)[drawn].mean(axis=1)}
    if "matthews" in told:
        measures["matthews"] = np.array([score("matthews", labels[each], predicted[each]) for each in drawn])
    if rows.feature_difference is not None:
        measures["feature_difference"] = rows.feature_difference.double().numpy()[drawn].mean(axis=1)
    if rows.cosine_similarity is not None and isinstance(told.get("cosine_similarity"), float):
        cosines = rows.cosine_similarity.double().numpy()
        moved = cosines[drawn].mean(axis=1) - cosines.mean()
        measures["cosine_similarity"] = told["cosine_similarity"] + 2 * moved
    # What has no number, as after training that diverged, has none on resamples either.
    return {name: values for name, values in measures.items() if isinstance(told.get(name), float | int)}
