"""Plain full-batch gradient descent on a classifier's own weights, which are put back afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from ntk_lpft.classifier.classifier import Classifier, Outputs
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.setup import KernelSetup, open_setup
from ntk_lpft.statistics.matrix import check_labels

PARTS = ("all", "head", "body")

# Positions of a batch whose activations are kept for a backward or forward-mode pass; in float64 RoBERTa-base needs
# about 4 MB for each.
GRADIENT_CELLS = 1024


class Descent:
    """A classifier whose weights move down the gradient of the summed cross-entropy, without dropout.

    Weights are never changed in place: a moved parameter holds a new tensor until `restore` gives it its own back.

    Args:
        setup: Model and samples; the columns of its layout are the training samples, the others those of ``eval``.
        labels: Classes of the training samples, in the caller's order.
        part: Which of the parameters with ``requires_grad`` move: ``all``, those of the ``head``, or of the ``body``.

    Attributes:
        parameters: The parameters that move, by name.
        own: The tensors that they hold when the descent begins.

    Raises:
        InputError: Labels that do not fit, an unknown part, or one without trainable parameters.
    """

    def __init__(self, setup: KernelSetup, labels: Int[Tensor, " n"], part: str = "all") -> None:
        self.setup = setup
        self.labels = check_labels(labels, setup.layout.columns, setup.classifier.head.module.out_features)
        self.parameters = trained_parameters(setup, part)
        self.own = {name: parameter.data for name, parameter in self.parameters.items()}

    def state(self) -> dict[str, Outputs]:
        """Features and logits as the weights are now, for ``train`` and, where there are such samples, ``eval``."""
        return measure(self.setup)

    def gradients(self) -> dict[str, Tensor]:
        """Gradient of Σ_i CE(f(x_i), y_i) over all training samples, by parameter."""
        classes = self.labels[self.setup.column_order].to(self.setup.classifier.device)

        def loss(batch: Batch, logits: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
            own = classes[batch.start : batch.start + batch.size]
            return nn.functional.cross_entropy(logits, own, reduction="sum")

        chosen = list(self.parameters.values())
        gradient = self.setup.classifier.gradient(train_batches(self.setup), chosen, loss)
        return dict(zip(self.parameters, gradient, strict=True))

    def step(self, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        """Move every parameter by −η times its gradient, from where it is."""
        for name, parameter in self.parameters.items():
            parameter.data = parameter.data.sub(gradients[name], alpha=learning_rate)

    def restore(self) -> None:
        """Give every parameter its own tensor back, the very one that it had."""
        for name, parameter in self.parameters.items():
            parameter.data = self.own[name]


def trained_parameters(setup: KernelSetup, part: str = "all") -> dict[str, nn.Parameter]:
    """Choose the parameters with ``requires_grad`` of one part of a classifier.

    Args:
        setup: The classifier and its samples.
        part: ``all``, ``head`` or ``body``.

    Returns:
        The parameters by name, in the module's order.

    Raises:
        InputError: An unknown part, or one without any.
    """
    if part not in PARTS:
        raise InputError(f"unknown part {part!r} of the model; choose one of {', '.join(PARTS)}")
    of_head = {id(parameter) for parameter in setup.classifier.head.parameters}
    chosen = {
        name: parameter
        for name, parameter in setup.classifier.module.named_parameters()
        if parameter.requires_grad and (part == "all" or (id(parameter) in of_head) == (part == "head"))
    }
    if not chosen:
        raise InputError(
            f"the model's {part} has no trainable parameter; set requires_grad on what descent should move"
        )
    return chosen


def measure(setup: KernelSetup) -> dict[str, Outputs]:
    """Features and logits of ``train`` and, where there are such samples, ``eval``, in float64 on the CPU."""
    features, logits = (in_order(setup, values) for values in setup.outputs())
    return {split: Outputs(features[split], logits[split]) for split in features}


def train_batches(setup: KernelSetup) -> Iterator[Batch]:
    """Batches of the training samples, the columns of the setup, small enough for a pass that keeps activations."""
    return takewhile(lambda batch: batch.start < setup.layout.columns, setup.batches(GRADIENT_CELLS))


def in_order(setup: KernelSetup, values: Float[Tensor, "s k"]) -> dict[str, Float64[Tensor, "n k"]]:
    """Cut values of all samples, in internal order, into ``train`` and ``eval``, each in the caller's order."""
    return setup.by_part(values.detach().cpu().double())


@contextmanager
def descent(
    model: nn.Module | Classifier,
    train: Any,
    labels: Int[Tensor, " n"],
    evaluation: Any = None,
    *,
    part: str = "all",
    precision: str = "float64",
    device: str | None = None,
) -> Iterator[Descent]:
    """Open a classifier for gradient descent, and put its weights back, bit by bit, at the end.

    Args:
        model: The classifier. Inside the context it is in eval mode, with the precision's weights on the device.
        train: Training samples, as for ``compute_ntk``.
        labels: Classes of the training samples, of shape (N,).
        evaluation: Samples that are looked at but not trained on; None for none.
        part: Which of the parameters with ``requires_grad`` move: ``all``, those of the ``head``, or of the ``body``.
        precision: As for ``compute_ntk``.
        device: A torch device; None takes the one the model is on.

    Yields:
        The descent, at the model's weights.

    Raises:
        InputError: As for `open_setup` and `Descent`.
    """
    with open_setup(model, train, evaluation, precision=precision, device=device) as setup:
        moving = Descent(setup, labels, part)
        try:
            yield moving
        finally:
            moving.restore()


def check_learning_rate(learning_rate: float) -> None:
    """Refuse a learning rate that is not a positive number.

    Args:
        learning_rate: η.

    Raises:
        InputError: It is zero, negative, infinite or NaN.
    """
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"learning rate {learning_rate} is not a positive number")
