"""Features φ(x) and logits f(x) of a whole data set."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ntk_lpft.classifier.classifier import FORWARD_CELLS, Classifier
from ntk_lpft.classifier.head import Head


@dataclass(frozen=True, eq=False)
class Features:
    """What the head sees and says.

    Attributes:
        features: φ, (N, h), in the order of the inputs, on the CPU.
        logits: f, (N, C).
        head: The head they belong to.
    """

    features: Float[Tensor, "n h"]
    logits: Float[Tensor, "n c"]
    head: Head


def extract_features(
    model: nn.Module | Classifier,
    inputs: Any,
    *,
    device: torch.device | None = None,
    max_cells: int = FORWARD_CELLS,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> Features:
    """Run a classifier over a data set, in eval mode, without a graph.

    Args:
        model: The classifier; it is not changed.
        inputs: As for ``compute_ntk``.
        device: Where to run; by default where the model is.
        max_cells: Most samples × positions of a batch.
        dtype: What to compute in; None takes float32, or float64 for a model of that dtype.
        progress: Whether to show a progress bar.

    Returns:
        Features and logits.

    Raises:
        InputError: Bad inputs, or a model without a linear head.
    """
    classifier = Classifier.of(model, inputs, device=device, dtype=dtype)
    outputs = classifier.run(inputs, max_cells=max_cells, progress=progress)
    return Features(outputs.features, outputs.logits, classifier.head)
