"""What is fed with spoilt inputs: every command by its files and by its options, and public functions."""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz import functions, mutators
from fuzz.world import CALIBRATE, COMPUTE, FINETUNE
from ntk_lpft.commands.calibrate.options import CalibrateOptions
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.finetune.training_flags import training_flags

# These make a run longer instead of failing, or reach for a network or other programs.
_LONGER = {"num_train_epochs", "max_steps", "lp_iterations", "max_iter", "resamples", "hub_token", "hub_model_id",
           "gradient_accumulation_steps", "ddp_backend", "local_rank", "output_dir", "config", "run_name",
           "logging_dir", "project", "trackio_space_id"}  # fmt: skip
_ODD = (*mutators.TEXTS, "0", "-1", "1", "2", "inf", "-inf", "1e308", "1e-320", "true", "false", "{}", "[]",
        "/dev/zero", "/proc/x", "\udcff")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Something that is fed.

    Attributes:
        name: Of the command or function, and what of it is spoilt.
        share: How many of all cases are its own, relative to others.
        world: Which folder of the world is copied for it; empty for none.
        prepare: Spoils the copy, and returns what was done with what is then to be called, which returns a status.
    """

    name: str
    share: float
    world: str
    prepare: Callable[[random.Random, Path], tuple[str, Callable[[], int]]]


def _main(module: str) -> Callable[[Sequence[str]], int]:
    main: Callable[[Sequence[str]], int] = importlib.import_module(module).main
    return main


def _call(module: str, words: Sequence[str], place: Path) -> Callable[[], int]:
    given = [word.replace("{in}", str(place / "in")).replace("{out}", str(place / "out")) for word in words]
    return lambda: _main(module)(given)


def _files(
    module: str, words: Sequence[str], patterns: Sequence[str], swap: Sequence[tuple[str, str]] = ()
) -> Callable:
    """Spoil one or two of the files that a command reads."""

    def prepare(rng: random.Random, place: Path) -> tuple[str, Callable[[], int]]:
        files = sorted({path for pattern in patterns for path in (place / "in").glob(pattern) if path.is_file()})
        chosen = rng.sample(files, min(len(files), 2 if rng.random() < 0.1 else 1))
        done = [f"{path.relative_to(place / 'in')}: {mutators.spoil(rng, path)}" for path in chosen]
        given = list(words)
        for old, new in swap:
            if chosen[0].match(new):
                given = [word.replace(old, f"{{in}}/{chosen[0].relative_to(place / 'in')}") for word in given]
        return "; ".join(done), _call(module, given, place)

    return prepare


def _options(module: str, words: Sequence[str], names: Sequence[str]) -> Callable:
    """Give one or two options an odd value, on the command line or in a config file."""

    def prepare(rng: random.Random, place: Path) -> tuple[str, Callable[[], int]]:
        chosen = rng.sample(names, 2 if rng.random() < 0.2 else 1)
        if rng.random() < 0.3:
            values = {name: rng.choice(mutators.VALUES) for name in chosen}
            config = place / "in" / "odd.json"
            config.write_text(json.dumps({"options": values}))
            return f"config {values!r}", _call(module, ["--config", str(config), *words], place)
        more = [word for name in chosen for word in (f"--{name.replace('_', '-')}", rng.choice(_ODD))]
        return f"options {more!r}", _call(module, [*words, *more], place)

    return prepare


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name not in _LONGER]


def _function(rng: random.Random, place: Path) -> tuple[str, Callable[[], int]]:
    return functions.spoilt_call(rng, place)


def targets() -> list[Target]:
    """Return all of them."""
    out = ["--output-dir", "{out}/new"]
    data = [("{in}/train.csv", pattern) for pattern in ("train.csv", "train.tsv", "train.json", "train.jsonl")]
    compute, finetune, calibrate = (f"ntk_lpft.commands.{name}" for name in ("compute", "finetune", "calibrate"))
    trained = [name for name in training_flags() if name not in _LONGER]
    files = ["--logits", "{in}/both.safetensors", "--test-logits", "{in}/both.safetensors", "--resamples", "0", *out]
    rerun = [*COMPUTE, *out, "--config", "{in}/kernel/config.json"]
    from_run = ["--model", "{in}/run", *COMPUTE[2:-3], "--no-kernel-classifier", *out]
    results = "{in}/results"
    suite = ["results/suite.json", "results/jobs/**/*.json", "results/*/**/*.json", "results/*/**/*.csv",
             "results/*/**/*.safetensors"]  # fmt: skip
    return [
        Target("compute data", 10, "plain", _files(compute, [*COMPUTE, *out], ["train.*", "test.csv"], data)),
        Target("compute model", 16, "plain", _files(compute, [*COMPUTE, *out], ["bert/*"])),
        Target("compute config", 5, "plain", _files(compute, rerun, ["kernel/config.json"])),
        Target("compute run", 5, "plain", _files(compute, from_run, ["run/model/*", "run/config.json"])),
        Target("compute options", 12, "plain", _options(compute, [*COMPUTE, *out], _names(ComputeOptions))),
        Target("finetune data", 5, "plain", _files(finetune, [*FINETUNE, *out], ["train.*", "validation.csv"], data)),
        Target("finetune options", 8, "plain", _options(finetune, [*FINETUNE, *out], _names(FinetuneOptions))),
        Target("finetune training", 14, "plain", _options(finetune, [*FINETUNE, *out], trained)),
        Target("finetune config", 3, "plain",
               _files(finetune, ["--config", "{in}/run/config.json", *out], ["run/config.json"])),
        Target("calibrate run", 8, "plain", _files(calibrate, ["{in}/run", "--resamples", "0", *out], ["run/*"])),
        Target("calibrate files", 8, "plain",
               _files(calibrate, [*CALIBRATE, *out], ["logits.npy", "labels.csv", "more.csv"])),
        Target("calibrate tensors", 4, "plain", _files(calibrate, files, ["both.safetensors"])),
        Target("calibrate options", 7, "plain", _options(calibrate, [*CALIBRATE, *out], _names(CalibrateOptions))),
        Target("tables", 8, "suite", _files("analysis.tables.__main__", [results, "--output-dir", "{out}/new"], suite)),
        Target("claims", 4, "suite",
               _files("analysis.claims.__main__", ["{in}/results/finetune/amazon/ft/seed-1",
                                                   "{in}/results/finetune/amazon/lp-ft/seed-1"],
                      ["results/finetune/**/*.json", "results/finetune/**/*.csv"])),
        Target("figures", 4, "suite",
               _files("figures.__main__", [results, "--only", "figure1", "--output-dir", "{out}/new"], suite)),
        Target("report", 2, "suite",
               _files("analysis.report.__main__", [results, "--output", "{out}/new.html"], suite)),
        Target("suite options", 3, "", _options("analysis.run", ["--dry-run", "--suite", "smoke", *out],
                                                ["only", "datasets", "methods", "seeds", "launcher", "parallel",
                                                 "hours", "slurm", "suite"])),
        Target("functions", 20, "plain", _function),
    ]  # fmt: skip
