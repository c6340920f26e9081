"""From a suite to its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.suite.definitions import DataSettings, Suite
from analysis.suite.job import RESULTS_WORD, Job
from ntk_lpft.errors import InputError

# Whose start kernels are computed at: head, and whether adapters are trained.
_STARTS = {"ft": ("random", False), "lp-ft": ("lp", False), "lora": ("random", True), "lp-lora": ("lp", True)}
_SCALED = ("ft", "lp-ft")
_DRAWN = 300  # most rows in a t-SNE


def plan(
    suite: Suite,
    *,
    kinds: Iterable[str] | None = None,
    datasets: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Job]:
    """List a suite's jobs, in an order in which they can be run.

    Args:
        suite: The suite.
        kinds: Kinds of jobs that are wanted; those that they need come along. None takes all.
        datasets: Which data sets; none named takes all of the suite's.
        methods: Which methods; none named takes all of the suite's.
        seeds: Which seeds; none named takes all of the suite's.

    Returns:
        The jobs, seed by seed, so that an unfinished suite has something of everything.

    Raises:
        InputError: The suite has no such data set, method or seed, or no job is left.
    """
    data = _chosen("--datasets", datasets, suite.datasets)
    which = _chosen("--methods", methods, suite.methods)
    numbers = _chosen("--seeds", seeds, suite.seeds)
    jobs: list[Job] = []
    for dataset in data:
        jobs += _of_dataset(suite, dataset, which, numbers)
    if kinds is not None:
        jobs = _with_needs(jobs, set(kinds))
    if not jobs:
        raise InputError(f"suite {suite.name} has no job for what --only, --datasets, --methods and --seeds ask for")
    order = (
        "finetune",
        "probe",
        "kernel",
        "calibration",
        "features",
        "head_scale",
        "embedding_sampling",
        "lora_scaling",
    )
    return sorted(jobs, key=lambda job: (numbers.index(job.seed), order.index(job.kind)))


def _chosen(flag: str, given: Sequence, known: Iterable) -> list:
    known = list(known)
    unknown = [value for value in given if value not in known]
    if unknown:
        raise InputError(f"{flag}: the suite has no {unknown[0]}; choose from {', '.join(map(str, known))}")
    return [value for value in known if value in given] if given else known


def _with_needs(jobs: Sequence[Job], kinds: set[str]) -> list[Job]:
    wanted = {job.name for job in jobs if job.kind in kinds}
    wanted |= {name for job in jobs if job.name in wanted for name in job.needs}
    return [job for job in jobs if job.name in wanted]


def _of_dataset(suite: Suite, dataset: str, methods: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    use = suite.datasets[dataset]
    jobs: list[Job] = []
    for seed in seeds:
        # Seeds are chosen by their place in the suite, so that a selection holds the same jobs as the whole.
        place = list(suite.seeds).index(seed)
        for method in methods:
            run = _finetune(suite, dataset, use, method, seed)
            jobs += [run, _calibration(suite, dataset, method, seed, run)]
            if method in _STARTS and place < suite.kernel_seeds:
                jobs.append(_kernel(suite, dataset, use, method, seed))
            if method in _STARTS and place == 0:
                jobs.append(_features(dataset, method, seed, run))
            if method in _SCALED and place < use.scale_seeds:
                jobs.append(_head_scale(suite, dataset, use, method, seed))
            if method == "lp":
                jobs.append(_probe(suite, dataset, use, seed))
            if place == 0 and method in _SCALED and "embedding_sampling" in suite.experiments:
                jobs.append(_sampling(suite, dataset, use, method, seed))
            if place == 0 and method == "lp-lora" and "lora_scaling" in suite.experiments:
                jobs.append(_lora(suite, dataset, use, seed))
    return jobs


def _common(suite: Suite, dataset: str, seed: int) -> list[str]:
    words = ["--model", suite.model, "--dataset", dataset, "--seed", str(seed)]
    return words if suite.max_length is None else [*words, "--max-length", str(suite.max_length)]


def _rows(rows: tuple[int, int] | None) -> list[str]:
    return [] if rows is None else ["--n-train", str(rows[0]), "--n-eval", str(rows[1])]


def _training(use: DataSettings, method: str, epochs: float) -> list[str]:
    rate = use.learning_rates.get(method)
    return ["--num-train-epochs", f"{epochs:g}"] + ([] if rate is None else ["--learning-rate", f"{rate:g}"])


def _training_flops(suite: Suite, use: DataSettings, rows: tuple[int, int] | None, epochs: float) -> float:
    """Forward and backward (6 FLOPs a parameter and token) over training rows, and forward over the others."""
    train, other = use.sizes if rows is None else rows
    train, other = min(train, use.sizes[0]), min(other * (5 if rows else 1), use.sizes[1])
    each = suite.parameters * use.tokens
    measured = 2 * 3 * suite.probe_size * (epochs + 8)  # tracked moments
    return each * (6 * train * epochs + 2 * (train + other) + 2 * other / 4 * epochs + 2 * measured)


def _finetune(suite: Suite, dataset: str, use: DataSettings, method: str, seed: int) -> Job:
    words = [
        *_common(suite, dataset, seed),
        "--method",
        method,
        "--probe-size",
        str(suite.probe_size),
        *_rows(use.rows),
    ]
    if method != "lp":
        words += _training(use, method, use.epochs)
    flops = _training_flops(suite, use, use.rows, 0 if method == "lp" else use.epochs)
    return Job("finetune", dataset, method, seed, tuple(words), flops=flops)


def _probe(suite: Suite, dataset: str, use: DataSettings, seed: int) -> Job:
    words = [*_common(suite, dataset, seed), "--method", "lp", "--lp-solver", "adam", *_rows(use.rows)]
    words += ["--lp-iterations", str(suite.probe_iterations), "--probe-size", str(suite.probe_size)]
    return Job("probe", dataset, "lp", seed, tuple(words), flops=_training_flops(suite, use, use.rows, 0))


def _calibration(suite: Suite, dataset: str, method: str, seed: int, run: Job) -> Job:
    words = [f"{RESULTS_WORD}/{run.name}", "--seed", str(seed)]
    words += [] if suite.resamples == 1000 else ["--resamples", str(suite.resamples)]
    return Job("calibration", dataset, method, seed, tuple(words), needs=(run.name,))


def _features(dataset: str, method: str, seed: int, run: Job) -> Job:
    words = ("--run", f"{RESULTS_WORD}/{run.name}", "--split", "test", "--n-eval", str(_DRAWN))
    return Job("features", dataset, method, seed, words, needs=(run.name,))


def _kernel(suite: Suite, dataset: str, use: DataSettings, method: str, seed: int) -> Job:
    head, adapts = _STARTS[method]
    train, other = use.kernel_rows
    words = [*_common(suite, dataset, seed), "--head-init", head, "--n-train", str(train), "--n-eval", str(other)]
    words += ["--lora"] if adapts else []
    cells, classes = min(train, use.sizes[0]), 3
    capture = 6 * classes * use.tokens * (cells + other)
    products = (classes * cells) ** 2 + 2 * classes**2 * cells * other
    flops = suite.parameters * (capture + products) * (0.1 if adapts else 1)
    return Job("kernel", dataset, method, seed, tuple(words), flops=flops)


def _head_scale(suite: Suite, dataset: str, use: DataSettings, method: str, seed: int) -> Job:
    words = [*_common(suite, dataset, seed), "--method", method, *_rows(use.scale_rows), "--no-track"]
    words += [*_training(use, method, use.scale_epochs), "--head-scale", *(f"{it:g}" for it in suite.head_scales)]
    flops = len(suite.head_scales) * _training_flops(suite, use, use.scale_rows, use.scale_epochs)
    return Job("head_scale", dataset, method, seed, tuple(words), flops=flops)


def _sampling(suite: Suite, dataset: str, use: DataSettings, method: str, seed: int) -> Job:
    words = [
        *_common(suite, dataset, seed),
        "--head-init",
        _STARTS[method][0],
        "--n-train",
        str(suite.experiment_rows[0]),
    ]
    flops = suite.parameters * 3 * use.tokens * suite.experiment_rows[0] * 12
    return Job("embedding_sampling", dataset, method, seed, tuple(words), flops=flops)


def _lora(suite: Suite, dataset: str, use: DataSettings, seed: int) -> Job:
    words = [*_common(suite, dataset, seed), "--n-train", str(suite.experiment_rows[1])]
    flops = suite.parameters * 3 * use.tokens * suite.experiment_rows[1] * 6 * 40
    return Job("lora_scaling", dataset, "lp-lora", seed, tuple(words), flops=flops)
