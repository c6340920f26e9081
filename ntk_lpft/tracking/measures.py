"""One moment of a classifier in training: head, features, predictions and gradients on a fixed probe set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ntk_lpft.calibration.measures import expected_calibration_error
from ntk_lpft.classifier.classifier import BACKWARD_CELLS, Classifier
from ntk_lpft.classifier.rows import Batch, by_length
from ntk_lpft.errors import InputError
from ntk_lpft.runs.tracking_log import ALL, TRAIN, Measurement
from ntk_lpft.statistics import initial_residual, measure_features
from ntk_lpft.tasks import EncodedSplit


@dataclass(frozen=True)
class ProbeSet:
    """The samples on which a classifier is followed, the same at every moment.

    Attributes:
        splits: By name: ``train``, which the gradients are taken on, ``validation``, ``ood.NAME`` and any other.

    Raises:
        InputError: There is no ``train``, or a split is empty or called ``all``.
    """

    splits: Mapping[str, EncodedSplit]

    def __post_init__(self) -> None:
        if TRAIN not in self.splits or ALL in self.splits:
            raise InputError(f"the probe set has the splits {', '.join(self.splits)}; give train, and none called all")
        for name, split in self.splits.items():
            if len(split) == 0:
                raise InputError(f"probe set, split {name} has no rows; give at least one")

    @property
    def fingerprints(self) -> dict[str, str]:
        """What the splits hold, by name."""
        return {name: split.fingerprint for name, split in self.splits.items()}


def probe_features(classifier: Classifier, probe: ProbeSet) -> dict[str, Float[Tensor, "n h"]]:
    """Extract φ of every split.

    Args:
        classifier: The classifier; it is not changed.
        probe: The samples.

    Returns:
        φ, (N, h), by split, on the CPU.

    Raises:
        InputError: Rows that the model cannot take.
    """
    return {name: classifier.run(split).features for name, split in probe.splits.items()}


def measure_classifier(
    classifier: Classifier, probe: ProbeSet, reference_features: Mapping[str, Float[Tensor, "n h"]]
) -> list[Measurement]:
    """Measure all that is tracked but kernels.

    The model runs in eval mode and in float32 (float64 if it is), without autocast. Neither it, nor its gradients, nor
    any generator of random numbers is changed. What is not finite becomes NaN; nothing is raised for it.

    For split ``all``: ``head_norm`` ‖V‖_F, ``head_norm.class_c`` ‖v_c‖ for each class, ``head_bias_norm`` ‖b‖ (0
    without bias). For each split of the probe set:

    - ``feature_difference``, ``cosine_similarity``, ``reference_cosine_similarity``, ``feature_norm``,
      ``fisher_discriminant_ratio``, ``trace_ratio`` and ``linear_cka``: see `ntk_lpft.statistics.features`.
    - ``accuracy``: from 0 to 1.
    - ``loss``: mean cross-entropy, in nats.
    - ``residual_norm``: the mean over the samples of ‖δ‖, δ = e_y − softmax(f), from 0 to √2.
    - ``ece``: expected calibration error, 15 bins, from 0 to 1.

    For split ``train``: ``gradient_norm.head`` and ``gradient_norm.body``, the norm of the gradient of the mean
    cross-entropy of all its samples with respect to the trainable parameters of either; 0 where none is trained.

    Args:
        classifier: The classifier.
        probe: The samples.
        reference_features: The pretrained features, (N, h), by split.

    Returns:
        The measurements, in this order.

    Raises:
        InputError: Reference features that do not fit the probe set.
    """
    measured = _head_measurements(classifier)
    sound = weights_finite(classifier.module)
    for name, split in probe.splits.items():
        reference = _reference_of(name, split, reference_features)
        classes = torch.from_numpy(split.labels.copy())
        if sound:
            phi, logits = classifier.run(split)
        else:  # the model would be refused
            phi = torch.full_like(reference, math.nan)
            logits = torch.full((len(split), classifier.head.module.out_features), math.nan, device="cpu")
        values = measure_features(phi, reference, classes) | _of_logits(logits, classes)
        measured += [Measurement(name, measure, value) for measure, value in values.items()]
    norms = gradient_norms(classifier, probe.splits[TRAIN]) if sound else (math.nan, math.nan)
    return measured + [
        Measurement(TRAIN, f"gradient_norm.{part}", norm) for part, norm in zip(("head", "body"), norms, strict=True)
    ]


def gradient_norms(classifier: Classifier, split: EncodedSplit) -> tuple[float, float]:
    """Compute the norms of the gradient of the mean cross-entropy, in eval mode.

    Args:
        classifier: The classifier; neither it nor its ``.grad`` is changed.
        split: The samples.

    Returns:
        The norm with respect to the head's trainable parameters, and to the body's; 0 where there are none, NaN where
        the gradient is not finite.

    Raises:
        InputError: Rows that the model cannot take, or NaN or infinite weights.
    """
    of_head = [p for p in classifier.head.parameters if p.requires_grad]
    own = {id(p) for p in of_head}
    of_body = [p for p in classifier.module.parameters() if p.requires_grad and id(p) not in own]
    parameters = of_head + of_body
    if not parameters:
        return 0.0, 0.0
    with classifier.opened():
        gradient = _mean_gradient(classifier, split, parameters)
    return _joint_norm(gradient[: len(of_head)]), _joint_norm(gradient[len(of_head) :])


def weights_finite(model: nn.Module) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def _reference_of(name: str, split: EncodedSplit, reference: Mapping[str, Tensor]) -> Float[Tensor, "n h"]:
    if name not in reference or len(reference[name]) != len(split):
        count = len(reference[name]) if name in reference else 0
        raise InputError(f"{count} reference features for the {len(split)} probe samples of {name}; give one for each")
    return reference[name]


def _head_measurements(classifier: Classifier) -> list[Measurement]:
    head = classifier.head
    weight = head.module.weight.detach().double().cpu()
    bias = head.module.bias
    rows = torch.linalg.vector_norm(weight, dim=1).tolist()
    return [
        Measurement(ALL, "head_norm", float(torch.linalg.matrix_norm(weight))),
        *(Measurement(ALL, f"head_norm.class_{number}", norm) for number, norm in enumerate(rows)),
        Measurement(ALL, "head_bias_norm", 0.0 if bias is None else float(bias.detach().double().norm())),
    ]


def _of_logits(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> dict[str, float]:
    names = ("accuracy", "loss", "residual_norm", "ece")
    if not torch.isfinite(logits).all():
        return dict.fromkeys(names, math.nan)
    f = logits.double()
    values = (
        (f.argmax(dim=1) == classes).double().mean(),
        nn.functional.cross_entropy(f, classes),
        torch.linalg.vector_norm(initial_residual(f, classes), dim=1).mean(),
        expected_calibration_error(torch.softmax(f, dim=1), classes, bins=15),
    )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _mean_gradient(classifier: Classifier, split: EncodedSplit, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Gradient of the mean cross-entropy; the classifier is opened."""
    rows = classifier.rows(split)
    order = by_length(rows)
    classes = torch.from_numpy(split.labels.copy())[order].to(classifier.device)

    def loss(batch: Batch, logits: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
        own = classes[batch.start : batch.start + batch.size]
        return nn.functional.cross_entropy(logits, own, reduction="sum") / len(split)

    batches = classifier.batches([rows[i] for i in order], max_cells=BACKWARD_CELLS)
    return classifier.gradient(batches, parameters, loss)


def _joint_norm(gradient: list[Tensor]) -> float:
    norm = math.hypot(*(float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in gradient))
    return norm if math.isfinite(norm) else math.nan
