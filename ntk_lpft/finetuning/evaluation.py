"""A trained classifier on whole splits: logits, scores, calibration error and what became of its features."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ntk_lpft.calibration.measures import expected_calibration_error
from ntk_lpft.classifier.classifier import Classifier, Outputs
from ntk_lpft.finetuning.trainer import score
from ntk_lpft.statistics import measure_features
from ntk_lpft.tasks import EncodedSplit, Task
from ntk_lpft.tasks.task import Split


def encoded_splits(
    task: Task, tokenizer: object, max_length: int, *, n_train: int | None, n_eval: int | None, seed: int
) -> dict[str, EncodedSplit]:
    """Train, validation, test, if there is one, and every OOD test (``ood.NAME``) of a task, tokenised.

    Args:
        task: The task.
        tokenizer: The model's.
        max_length: Longest row in tokens.
        n_train: Training rows to draw, class-balanced as far as they go; None for all.
        n_eval: Rows to draw of each other split; None for all.
        seed: For the draws.

    Returns:
        The tokenised splits by name, the training split first.

    Raises:
        InputError: Anything wrong with the data.
    """
    texts: dict[str, Split] = {
        name: task.split(name) for name in ("train", "validation", "test") if name in task.splits
    }
    texts |= {f"ood.{name}": task.ood_split(name) for name in task.ood}
    wanted = {name: n_train if name == "train" else n_eval for name in texts}
    return {
        name: split.subsample(wanted[name], seed, balanced=name == "train").encode(tokenizer, max_length)
        for name, split in texts.items()
    }


def predict_splits(
    classifier: Classifier, splits: Mapping[str, EncodedSplit], *, progress: bool = False
) -> dict[str, Outputs]:
    """Features and logits of every split, in eval mode."""
    return {name: classifier.run(split, progress=progress) for name, split in splits.items()}


def split_metrics(
    outputs: Outputs, reference: Float[Tensor, "n h"], labels: Int[np.ndarray, " n"], metric: str
) -> dict[str, float]:
    """Compute what is reported of one split.

    Args:
        outputs: φ and f.
        reference: φ of the pretrained model on the same samples.
        labels: Classes.
        metric: ``accuracy`` or ``matthews``, the latter reported beside the accuracy.

    Returns:
        Scores from 0 (Matthews: −1) to 1, the mean cross-entropy in nats, ECE from 0 to 1, and measures of features.
    """
    features, logits = outputs
    targets = torch.from_numpy(np.array(labels))
    predicted = logits.argmax(dim=1).numpy()
    scores = {"accuracy": score("accuracy", labels, predicted)}
    if metric != "accuracy":
        scores[metric] = score(metric, labels, predicted)
    return scores | {
        "loss": float(nn.functional.cross_entropy(logits.double(), targets)),
        "ece": expected_calibration_error(torch.softmax(logits.double(), dim=1), targets),
        **measure_features(features, reference, targets),
    }
