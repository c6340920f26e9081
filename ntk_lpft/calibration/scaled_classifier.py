"""A classifier with a temperature: logits f/T, which is the same as the head V/T and bias b/T."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from ntk_lpft.calibration.predictions import check_temperature
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.head import Head, logits_of
from ntk_lpft.classifier.head_weights import scale_head
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.runs.calibration import CalibrationRun


class TemperatureScaledClassifier(nn.Module):
    """A classifier that divides its logits by T; accuracy and the order of the classes stay.

    Source: Tomihari and Sato (2024), on temperature scaling: f/T = (V/T) φ + b/T.

    Args:
        classifier: Any sequence classifier of transformers, or the project's own.
        temperature: T.

    Attributes:
        classifier: As given.
        temperature: T.

    Raises:
        InputError: T is not positive.
    """

    def __init__(self, classifier: nn.Module, temperature: float) -> None:
        super().__init__()
        check_temperature(temperature)
        self.classifier = classifier
        self.temperature = float(temperature)

    @property
    def config(self) -> Any:
        """The classifier's config; None if it has none."""
        return getattr(self.classifier, "config", None)

    def forward(self, labels: Tensor | None = None, **inputs: Tensor) -> SequenceClassifierOutput:
        """Logits divided by T, and their cross-entropy loss where labels are given.

        Args:
            labels: Classes, 0 … C − 1, of shape (N,).
            **inputs: What the classifier takes.

        Returns:
            ``logits``, of shape (N, C), and ``loss``.
        """
        logits = logits_of(self.classifier, inputs) / self.temperature
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def into_head(self, inputs: Any) -> Head:
        """Multiply V and b of the wrapped classifier by 1/T, in place, and go on with T = 1.

        After it the wrapped classifier alone gives the scaled logits, to rounding in its dtype.

        Args:
            inputs: Samples, as for ``compute_ntk``, by the first of which the head is found.

        Returns:
            The head.

        Raises:
            InputError: The classifier has no linear head.
        """
        head = Classifier.of(self.classifier, inputs).head
        scale_head(head, 1 / self.temperature, bias=True)
        self.temperature = 1.0
        return head

    def save(self, folder: str | Path) -> Path:
        """Write T into ``temperature.json``; the classifier itself is saved by its own means.

        Args:
            folder: Where to; made if missing.

        Returns:
            The file.
        """
        return save_temperature(folder, self.temperature)

    @classmethod
    def load(cls, classifier: nn.Module, folder: str | Path) -> TemperatureScaledClassifier:
        """Wrap a classifier with the T that `save`, or the command ``calibrate`` on one run, wrote.

        Args:
            classifier: The classifier that T was fitted for.
            folder: The folder with ``temperature.json``.

        Returns:
            The scaled classifier.

        Raises:
            InputError: There is no such file, or it holds no temperature.
        """
        return cls(classifier, load_temperature(folder))


def save_temperature(folder: str | Path, temperature: float, **about: Any) -> Path:
    """Write a temperature, and what is to be said of it, into ``temperature.json``, whole or not at all.

    Args:
        folder: Where to; made if missing.
        temperature: T.
        **about: Further entries, as JSON has them.

    Returns:
        The file.
    """
    run = CalibrationRun(folder)
    run.write_temperatures([{"temperature": temperature, **about}])
    return run.file(run.TEMPERATURE)


def load_temperature(folder: str | Path) -> float:
    """Read the T of ``temperature.json``.

    Args:
        folder: Where it lies.

    Returns:
        T.

    Raises:
        InputError: There is no such file, it was altered, or it holds no temperature of one classifier.
    """
    run = CalibrationRun(folder)
    path = run.file(run.TEMPERATURE)
    if not path.is_file():
        raise InputError(f"{path} does not exist; calibrate the run first, or save a scaled classifier")
    temperature = read_json(run.believed(run.TEMPERATURE)).get("temperature")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise InputError(f"{path} holds no temperature of one classifier")
    check_temperature(temperature)
    return float(temperature)
