"""The suites: declarative lists of what is run, from a smoke test to the paper's own experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ntk_lpft.errors import InputError

SEEDS = (1001, 2002, 3003, 4004, 5005)  # the paper's
METHODS = ("lp", "ft", "lp-ft", "lora", "lp-lora")
# The paper's for its smallest data set, which a few hundred rows of another come nearest to.
CB_RATES = {"ft": 5e-5, "lp-ft": 5e-6, "lora": 1e-3, "lp-lora": 1e-4}
MODELS = "models"  # the folder, in the results, of models that are made for a suite
HEAD_SCALES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0)


@dataclass(frozen=True)
class DataSettings:
    """How much of a data set is used, and how long it is trained on.

    Attributes:
        rows: Training and other rows drawn for runs; None takes all.
        epochs: Of fine-tuning.
        kernel_rows: Training and evaluation rows of kernels.
        scale_rows: Training and other rows of the head-norm experiment; None takes all.
        scale_epochs: Its epochs.
        scale_seeds: How many of the suite's seeds it is run with.
        learning_rates: By method, where they are not the paper's for the data set.
        tokens: Mean length of a row, for the estimate.
        sizes: Training rows and all other rows there are, for the estimate.
    """

    rows: tuple[int, int] | None = None
    epochs: float = 10
    kernel_rows: tuple[int, int] = (250, 250)
    scale_rows: tuple[int, int] | None = None
    scale_epochs: float = 10
    scale_seeds: int = 5
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 64
    sizes: tuple[int, int] = (1000, 1000)


@dataclass(frozen=True)
class Suite:
    """What is run.

    Attributes:
        name: Of the suite.
        says: One sentence about it.
        model: The model's name, or a folder in the results (``{results}/…``).
        layers: Layers of the bundled model that are kept; None takes the model as it is.
        datasets: How each is used.
        methods: Which are run.
        seeds: Which are run.
        kernel_seeds: How many of them kernels are computed with.
        head_scales: Factors on the head.
        probe_iterations: Of the linear probe whose path is drawn.
        probe_size: Rows of each split that are measured while training.
        max_length: Longest row in tokens; None takes the commands' default, which is the paper's.
        resamples: Bootstrap resamples of calibration errors.
        experiments: Which of the two side experiments are run: sampled word embeddings, F of LoRA.
        experiment_rows: Training rows of the two.
        parameters: Of the model's body without word embeddings, for the estimate.
        flops_per_second: Of the machine the estimate is for.
        machine: That machine, in words.
    """

    name: str
    says: str
    model: str
    datasets: Mapping[str, DataSettings]
    layers: int | None = None
    methods: Sequence[str] = METHODS
    seeds: Sequence[int] = SEEDS
    kernel_seeds: int = 5
    head_scales: Sequence[float] = HEAD_SCALES
    probe_iterations: int = 1000
    probe_size: int = 100
    max_length: int | None = None
    resamples: int = 1000
    experiments: Sequence[str] = field(default=("embedding_sampling", "lora_scaling"))
    experiment_rows: tuple[int, int] = (64, 16)
    parameters: float = 85e6
    flops_per_second: float = 1e13
    machine: str = "one GPU at 10 TFLOP/s"


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="smoke",
            says="two-layer MiniLM on few bundled rows: everything there is, in minutes; its numbers mean nothing",
            model=f"{{results}}/{MODELS}/minilm-2-layers",
            layers=2,
            datasets={
                "amazon-snippets": DataSettings(
                    rows=(48, 24), epochs=2, kernel_rows=(20, 12), scale_rows=(32, 24), scale_epochs=1, scale_seeds=1,
                    tokens=24, sizes=(1957, 20000),
                )
            },
            seeds=SEEDS[:2],
            kernel_seeds=2,
            head_scales=(0.1, 1.0, 10.0),
            probe_iterations=100,
            probe_size=12,
            resamples=100,
            experiment_rows=(12, 8),
            parameters=3.5e6,
            flops_per_second=2e10,
            machine="one CPU core of two",
        ),
        Suite(
            name="laptop",
            says="MiniLM on CB and the bundled Amazon sentences with their OOD tests, three seeds, 2 hours, 2 cores",
            model="minilm",
            datasets={
                "cb": DataSettings(
                    epochs=3, kernel_rows=(64, 56), scale_rows=(64, 56), scale_epochs=2, scale_seeds=1,
                    tokens=85, sizes=(225, 81),
                ),
                "amazon-snippets": DataSettings(
                    rows=(240, 120), epochs=2, kernel_rows=(64, 64), scale_rows=(128, 64), scale_epochs=2,
                    scale_seeds=1, learning_rates=CB_RATES, tokens=24, sizes=(1957, 20000),
                ),
            },
            seeds=SEEDS[:3],
            kernel_seeds=2,
            probe_iterations=1000,
            probe_size=20,
            parameters=10.7e6,
            flops_per_second=2e10,
            machine="one CPU core of two",
        ),
        Suite(
            name="paper",
            says="RoBERTa-base, all 13 data sets (10 to train on, 3 OOD), five seeds, the paper's settings",
            model="roberta-base",
            datasets={
                "cb": DataSettings(tokens=85, sizes=(225, 81)),
                "rte": DataSettings(tokens=75, sizes=(2241, 526)),
                "boolq": DataSettings(tokens=120, sizes=(8484, 4213)),
                "wic": DataSettings(tokens=32, sizes=(5400, 1238)),
                "wsc": DataSettings(tokens=32, sizes=(498, 160)),
                "cola": DataSettings(tokens=12, sizes=(7695, 1895)),
                "sst2": DataSettings(tokens=14, sizes=(60614, 7607)),
                "mrpc": DataSettings(tokens=54, sizes=(3301, 775)),
                "amazon": DataSettings(tokens=90, sizes=(27000, 67914)),
                "pubmed20k": DataSettings(tokens=35, sizes=(15000, 5000)),
            },
        ),
    )
}  # fmt: skip


def suite_of(name: str) -> Suite:
    """Find a suite.

    Raises:
        InputError: There is none of that name.
    """
    if name not in SUITES:
        raise InputError(f"unknown --suite {name!r}; choose one of {', '.join(SUITES)}")
    return SUITES[name]
