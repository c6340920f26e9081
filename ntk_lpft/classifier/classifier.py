"""A classifier as one value: the module with its head, its padding, and where and in what it is computed.

Rows are made of inputs here, batches of rows, and features and logits of batches, in one way for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.classifier.as_called import check_as_called
from ntk_lpft.classifier.head import Head, features_and_logits, find_head, logits_of, number_of_labels
from ntk_lpft.classifier.linear_head import LinearHeadClassifier
from ntk_lpft.classifier.offloaded import home_of
from ntk_lpft.classifier.prepare import prepared
from ntk_lpft.classifier.rows import Batch, Row, by_length, check_rows, collate, to_rows, token_table
from ntk_lpft.classifier.wrappers import config_of, innermost, without_runtime
from ntk_lpft.errors import InputError
from ntk_lpft.library_errors import told_as_bad_input

# Samples × positions of a batch: of forward passes alone, and where activations are kept for a backward pass. In
# float64 RoBERTa-base needs about 4 MB of activations for each.
FORWARD_CELLS = 4096
BACKWARD_CELLS = 2048


class Outputs(NamedTuple):
    """What a classifier makes of samples.

    Attributes:
        features: φ(x), (N, h).
        logits: f(x), (N, C).
    """

    features: Float[Tensor, "n h"]
    logits: Float[Tensor, "n c"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """f = Vφ + b, ready to be run.

    Attributes:
        module: The model, PEFT-wrapped or not, without what only says how it is run (``torch.compile``, data-parallel
            wrappers); it is the caller's own, and is changed only inside `opened`.
        head: Its last linear layer, V and b.
        pad_id: Token to pad with; None where the model cannot tell padding from text, so that rows run one by one.
        dtype: What it is computed in.
        place: Where it is run; None where the module is, also if that is moved.
    """

    module: nn.Module
    head: Head
    pad_id: int | None
    dtype: torch.dtype
    place: torch.device | None = None

    @property
    def device(self) -> torch.device:
        """Where it is run."""
        return self.place or home_of(self.module)

    @classmethod
    def of(
        cls,
        model: nn.Module | Classifier,
        inputs: Any,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        what: str = "inputs",
    ) -> Classifier:
        """Find head and padding of a model, by running it on the first row of some inputs.

        Args:
            model: Any sequence classifier of transformers, PEFT-wrapped or not, or this project's own; a value of this
                class is returned with the device and dtype asked for.
            inputs: Samples, as for ``compute_ntk``, of which the first is looked at.
            device: Where to run; None takes where the model is.
            dtype: What to compute in; None takes float32, or float64 for a model of that dtype.
            what: How messages name the inputs.

        Returns:
            The model as a classifier that can be run; its weights and its mode are as they were.

        Raises:
            InputError: No classifier, bad inputs, NaN or infinite weights, no linear layer that makes the logits, or
                logits that depend on more than its rows say, see `check_as_called`.
        """
        if isinstance(model, Classifier):
            return replace(model, place=device or model.place, dtype=dtype or model.dtype)
        check_model(model)
        module = without_runtime(model)
        place, own = home_of(module), widest(module)
        row = to_rows(inputs, module, what, first=True)[0]
        check_rows([row], module, what)
        failed = told_as_bad_input(f"the model fails on the first sample of the {what}", "give a sound model")
        with _own_forward(model), prepared(model, dtype or own, place), failed:
            number_of_labels(module)
            whole = to_rows(inputs, module, what, first=True, unnamed=True)[0]
            check_as_called(model, module, row, whole, what, place)
            head = find_head(module, collate([row], 0, place).tensors)
            pad_id = _padding_token(module, row, place)
        return cls(module, head, pad_id, dtype or own, device)

    def rows(self, inputs: Any, what: str = "inputs") -> list[Row]:
        """Make ragged rows of inputs, see `to_rows`, and refuse those that the model cannot take.

        Args:
            inputs: As for ``compute_ntk``.
            what: How messages name them.

        Returns:
            One row for each sample, without padding, in the order of the inputs.

        Raises:
            InputError: Bad inputs, or rows that do not fit the model.
        """
        rows = to_rows(inputs, self.module, what)
        check_rows(rows, self.module, what)
        return rows

    def collate(self, rows: Sequence[Row], start: int = 0) -> Batch:
        """Right-pad rows to their longest, on the classifier's device.

        Args:
            rows: One row or, where the model knows padding, more.
            start: Number of the first of them.

        Returns:
            The batch, its tensors of shape (n, T), T being the length of the longest row.
        """
        return collate(rows, 0 if self.pad_id is None else self.pad_id, self.device, start)

    def batches(
        self, rows: Sequence[Row], *, max_cells: int, max_rows: int | None = None, boundary: int = 0
    ) -> Iterator[Batch]:
        """Cut rows, as they follow each other, into padded batches.

        Args:
            rows: Ragged rows, best ordered by length.
            max_cells: Most samples × positions; a single longer row makes a batch of its own.
            max_rows: Most samples; None for no bound.
            boundary: A row number at which a new batch must start (the first row that is no column of a kernel).

        Yields:
            Batches that follow each other without gap.
        """
        most = 1 if self.pad_id is None else max_rows or len(rows)
        start = 0
        while start < len(rows):
            stop, longest = start, 0
            while stop < len(rows) and stop - start < most and not (stop == boundary and stop > start):
                longest = max(longest, len(rows[stop]["input_ids"]))
                if stop > start and longest * (stop - start + 1) > max_cells:
                    break
                stop += 1
            yield self.collate(rows[start:stop], start)
            start = stop

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the module in eval mode, on the device, in the dtype, without autocast of accelerate; see `prepared`.

        Raises:
            InputError: NaN or infinite weights.
        """
        with _own_forward(self.module), prepared(self.module, self.dtype, self.device):
            yield

    def forward(self, tensors: Mapping[str, Tensor]) -> Outputs:
        """Features and logits of one batch, without a graph; the classifier is opened."""
        return Outputs(*features_and_logits(self.module, self.head, tensors))

    def logits(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "n c"]:
        """Logits of one batch, with a graph where one is being recorded; the classifier is opened."""
        return logits_of(self.module, tensors)

    def outputs(self, batches: Iterable[Batch], bar: tqdm | None = None) -> Outputs:
        """Features and logits of all samples of some batches, in their order; the classifier is opened.

        Args:
            batches: One or more.
            bar: A progress bar that counts samples.

        Returns:
            φ, of shape (N, h), and f, of shape (N, C), on the classifier's device.
        """
        parts = []
        for batch in batches:
            parts.append(self.forward(batch.tensors))
            if bar is not None:
                bar.update(batch.size)
        return Outputs(torch.cat([part.features for part in parts]), torch.cat([part.logits for part in parts]))

    def gradient(
        self,
        batches: Iterable[Batch],
        parameters: Sequence[Tensor],
        objective: Callable[[Batch, Float[Tensor, "n c"]], Float[Tensor, ""]],
    ) -> list[Tensor]:
        """Gradient of an objective that is a sum over samples, by some parameters; the classifier is opened.

        Args:
            batches: The samples.
            parameters: What to differentiate by.
            objective: The part of the sum that a batch contributes, from the batch and its logits, (n, C).

        Returns:
            For each parameter a tensor of its shape, zero where the objective does not depend on it.
        """
        total = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
        for batch in batches:
            with torch.enable_grad():
                value = objective(batch, self.logits(batch.tensors))
            if not value.requires_grad:  # none of the parameters that are trained takes part
                continue
            parts = torch.autograd.grad(value, list(parameters), allow_unused=True)
            for whole, part in zip(total, parts, strict=True):
                if part is not None:
                    whole += part
        return total

    def run(self, inputs: Any, *, max_cells: int = FORWARD_CELLS, progress: bool = False) -> Outputs:
        """Features and logits of a data set, in its order, on the CPU; finite or not.

        Args:
            inputs: As for ``compute_ntk``.
            max_cells: Most samples × positions of a batch.
            progress: Whether to show a progress bar.

        Returns:
            φ, of shape (N, h), and f, of shape (N, C).

        Raises:
            InputError: Bad inputs, rows that do not fit the model, or NaN or infinite weights.
        """
        rows = self.rows(inputs)
        order = by_length(rows)
        with self.opened(), tqdm(total=len(rows), desc="features", unit="row", delay=1, disable=not progress) as bar:
            in_order = self.outputs(self.batches([rows[i] for i in order], max_cells=max_cells), bar)
        back = torch.argsort(torch.tensor(order, device="cpu"))
        return Outputs(in_order.features.cpu()[back], in_order.logits.cpu()[back])

    @property
    def head_parameters(self) -> dict[str, nn.Parameter]:
        """V, and b where there is one, by their names in the module."""
        return {f"{self.head.name}.{name}": value for name, value in self.head.module.named_parameters()}


def check_model(model: object) -> None:
    """Refuse what is no loaded model, or one without weights.

    Args:
        model: What was given for a model.

    Raises:
        InputError: It is none.
    """
    if isinstance(model, str):
        raise InputError(f"model is {model!r}, a name; load it first: load_classifier({model!r}, num_labels=...)")
    if not isinstance(model, nn.Module):
        kind = "None" if model is None else f"of type {type(model).__name__}"
        raise InputError(f"model is {kind}; give a torch module, such as load_classifier returns")
    if next(model.parameters(), None) is None:
        raise InputError("the model has no parameters; give a sequence classifier")


def widest(module: nn.Module) -> torch.dtype:
    """Return the widest dtype among a model's weights, float32 at least: what it is computed in by default."""
    dtype = torch.float32
    for parameter in module.parameters():
        if parameter.is_floating_point():
            dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype


@contextmanager
def _own_forward(module: nn.Module) -> Iterator[None]:
    """Take off the autocast that mixed-precision training with accelerate puts around ``forward``, also inside."""
    wrapped: list[tuple[dict[str, Any], Any]] = []
    for part in module.modules():
        own: dict[str, Any] = vars(part)
        if "forward" in own and "_original_forward" in own:
            wrapped.append((own, own["forward"]))
            own["forward"] = own["_original_forward"]
    try:
        yield
    finally:
        for own, forward in wrapped:
            own["forward"] = forward


def _padding_token(module: nn.Module, row: Row, device: torch.device) -> int | None:
    """Token to pad with: the model's own, or any where the mask alone tells padding from text, else none.

    Decoder classifiers of transformers find the last real token by comparing ids with ``config.pad_token_id``.
    """
    own = getattr(config_of(module), "pad_token_id", None)
    table = token_table(module)
    if own is not None and int(own) >= 0 and (table is None or int(own) < table.num_embeddings):
        return int(own)
    if isinstance(innermost(module), LinearHeadClassifier):
        return 0
    several = len(row["input_ids"]) > 1
    # Rows of different lengths, so that the second is padded beside the first.
    pair = [row, {name: v[:-1] for name, v in row.items()}] if several else [{n: v * 2 for n, v in row.items()}, row]
    try:
        with torch.no_grad():
            together = logits_of(module, collate(pair, 0, device).tensors)
            alone = torch.cat([logits_of(module, collate([one], 0, device).tensors) for one in pair])
    except ValueError:  # transformers refuses batches where it knows no padding token
        return None
    return 0 if torch.allclose(together, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max() + 1e-30)) else None


def require_labels(classifier: Classifier, num_labels: int) -> None:
    """Refuse a classifier with another number of classes.

    Args:
        classifier: The classifier.
        num_labels: C of the data.

    Raises:
        InputError: Its head has not ``num_labels`` rows.
    """
    own = classifier.head.module.out_features
    if own != num_labels:
        raise InputError(f"the model's head has {own} classes, not {num_labels}; load it for this data")
