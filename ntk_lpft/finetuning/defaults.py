"""The paper's settings of fine-tuning, as defaults."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ntk_lpft.tasks.snippets import SNIPPETS

# For data sets that the paper does not have: its most common batch sizes, and learning rates from the middle of its
# table, but for LoRA after LP, which the larger rates of the table disturb on small data.
_OTHERWISE = {"ft": (16, 1e-5), "lora": (16, 1e-3), "lp-ft": (8, 1e-5), "lp-lora": (8, 5e-4)}
_EPOCHS = 10.0
# The bundled data is there to try things out on: its defaults end in minutes without a GPU.
_BUNDLED_EPOCHS = 2.0
_BUNDLED_EVAL_ROWS = 500  # of up to 9170


@dataclass(frozen=True)
class Hyperparameters:
    """How one method is trained on one data set.

    Attributes:
        batch_size: Samples of one optimizer step.
        learning_rate: At the start; it falls linearly to zero.
        epochs: Passes over the training split.
    """

    batch_size: int
    learning_rate: float
    epochs: float


def hyperparameters(method: str, dataset: str) -> Hyperparameters:
    """Look up table 6 of Tomihari and Sato, NeurIPS 2024.

    Args:
        method: One of ``METHODS`` that fine-tunes.
        dataset: Name of the task; one that the table lacks gets the project's own defaults.

    Returns:
        Batch size, learning rate and number of epochs.
    """
    with files("ntk_lpft.finetuning").joinpath("hyperparameters.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if (row["dataset"], row["method"]) == (dataset, method):
                return Hyperparameters(int(row["batch_size"]), float(row["learning_rate"]), float(row["epochs"]))
    batch_size, learning_rate = _OTHERWISE[method]
    epochs = _BUNDLED_EPOCHS if dataset in SNIPPETS else _EPOCHS
    return Hyperparameters(batch_size, learning_rate, epochs)


def default_eval_rows(dataset: str) -> int | None:
    """Return how many rows of each split but train are used, where a user says nothing; None for all."""
    return _BUNDLED_EVAL_ROWS if dataset in SNIPPETS else None


def training_defaults(method: str, dataset: str, metric: str = "accuracy") -> dict[str, Any]:
    """Return settings of ``transformers.TrainingArguments``, where a user says nothing else.

    The paper's: AdamW, linear decay to zero without warm-up, no weight decay, the epoch with the best validation
    score kept. Of method ``lp``, which has no use for most of them, those of ``lp-ft``.
    """
    published = hyperparameters("lp-ft" if method == "lp" else method, dataset)
    return {
        "per_device_train_batch_size": published.batch_size,
        "per_device_eval_batch_size": 32,
        "learning_rate": published.learning_rate,
        "num_train_epochs": published.epochs,
        "weight_decay": 0.0,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch",
        "seed": 0,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{metric}",
        "report_to": "none",
    }
