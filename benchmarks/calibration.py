"""``python -m benchmarks.calibration``: how long calibration takes, and how often its intervals hold the truth."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from ntk_lpft.calibration import Predictions, evaluate, fit_temperature
from ntk_lpft.calibration.binned import bin_index
from ntk_lpft.calibration.measures import statistics_of
from ntk_lpft.commands.calibrate import main as calibrate

BINS = 15
SHOWN = (
    "accuracy",
    "nll",
    "brier",
    "ece",
    "mce",
    "adaptive_ece",
    "classwise_ece",
    "smooth_ece",
    "brier_reliability",
    "brier_resolution",
)


def drawn(rng: np.random.Generator, n: int, classes: int, temperature: float) -> tuple[np.ndarray, ...]:
    """Draw logits, labels of a classifier whose best temperature is known, and the labels' true probabilities."""
    true = 2 * rng.standard_normal((n, classes))
    probabilities = softmax(true, axis=1)
    labels = (probabilities.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return temperature * true, labels, probabilities


def speed(n: int = 100_000, classes: int = 100) -> Iterator[tuple[str, str]]:
    """Time a fit, all measures, and the command from files to table, without resamples."""
    rng = np.random.default_rng(0)
    logits, labels, _ = drawn(rng, n, classes, 2.0)
    yield f"fit_temperature, {n} × {classes}", taken(lambda: fit_temperature(logits, labels))
    yield (
        f"all measures, {n} × {classes}",
        taken(lambda: evaluate(Predictions.from_logits(logits, labels), resamples=0)),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "logits.npy", logits.astype(np.float32))
        np.save(folder / "labels.npy", labels)
        words = ["--logits", folder / "logits.npy", "--labels", folder / "labels.npy", "--resamples", "0"]
        for about, more in (
            ("fit and report", []),
            ("fit on these, report these and as many test samples",
             ["--test-logits", folder / "logits.npy", "--test-labels", folder / "labels.npy"]),
        ):  # fmt: skip
            given = [str(word) for word in [*words, *more, "--output-dir", folder / "out", "--overwrite"]]
            yield f"command, {n} × {classes}: {about}", taken(partial(_quietly, given))
    for rows in (56, 10_000):
        predictions = Predictions.from_logits(*drawn(rng, rows, 3, 2.0)[:2])
        yield f"all measures with 1000 resamples, {rows} × 3", taken(partial(evaluate, predictions))


def taken(work: Callable[[], object]) -> str:
    """Time one call, by the clock, which counts the machine's other work too, and in processor time of all threads."""
    began, busy = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - began:.2f} s, processor {time.process_time() - busy:.2f} s"


def _quietly(words: Sequence[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if calibrate(words) != 0:
            raise SystemExit("the command failed")


def truth(temperature: float, classes: int, n: int = 1_000_000) -> dict[str, float]:
    """Measures of the population: of many samples, errors by their true probabilities instead of their labels."""
    logits, labels, true = drawn(np.random.default_rng(1), n, classes, temperature)
    predictions = Predictions.from_logits(logits, labels)
    found = {name: float(statistic(np.ones((1, n)))[0]) for name, statistic in statistics_of(predictions, BINS).items()}
    gap = np.take_along_axis(true, predictions.predicted[:, None], axis=1)[:, 0] - predictions.confidence
    index = bin_index(predictions.confidence, BINS)
    counts, sums = np.bincount(index, minlength=BINS), np.bincount(index, gap, BINS)
    found["ece"] = float(np.abs(sums).sum() / n)
    # A bin that a million samples reach less than a hundred times is not one to be measured.
    found["mce"] = float((np.abs(sums) / np.maximum(counts, 1))[counts >= 100].max())
    if temperature == 1:
        found |= {"adaptive_ece": 0.0, "classwise_ece": 0.0, "smooth_ece": 0.0, "brier_reliability": 0.0}
    return found


def coverage(repeats: int, resamples: int, classes: int = 3) -> Iterator[tuple[str, str]]:
    """Draw data again and again, and count how often each 95 % interval holds the population's value."""
    for temperature in (1.0, 2.0):
        true = truth(temperature, classes)
        for n in (56, 500, 3000):
            rng = np.random.default_rng(n)
            held, shift = dict.fromkeys(SHOWN, 0), dict.fromkeys(SHOWN, 0.0)
            for repeat in range(repeats):
                logits, labels, _ = drawn(rng, n, classes, temperature)
                found = evaluate(Predictions.from_logits(logits, labels), bins=BINS, resamples=resamples, seed=repeat)
                for name, estimate in found.estimates().items():
                    if name in held:
                        held[name] += estimate.low <= true[name] <= estimate.high
                        shift[name] += (estimate.value - true[name]) / repeats
            for name in SHOWN:
                yield (
                    f"{name}, N = {n}, {'calibrated' if temperature == 1 else 'overconfident, T = 2'}",
                    f"coverage {held[name] / repeats:.1%}, bias {shift[name]:+.4f} (true {true[name]:.4f})",
                )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--coverage", action="store_true", help="also the coverage of intervals (minutes)")
    parser.add_argument("--repeats", type=int, default=500, help="data sets drawn for coverage")
    parser.add_argument("--resamples", type=int, default=400, help="bootstrap resamples of each")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for what, value in speed():
        print(f"{what.ljust(78)}  {value}", flush=True)
    if options.coverage:
        for what, value in coverage(options.repeats, options.resamples):
            print(f"{what.ljust(50)}  {value}", flush=True)


if __name__ == "__main__":
    main()
