"""Everything that an engine needs to know, put together once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ntk_lpft.classifier.as_called import Casts
from ntk_lpft.classifier.classifier import FORWARD_CELLS, Classifier, Outputs, check_model, widest
from ntk_lpft.classifier.frozen_weights import active_weights
from ntk_lpft.classifier.head import number_of_labels
from ntk_lpft.classifier.offloaded import home_of
from ntk_lpft.classifier.rows import Batch, Row, by_length
from ntk_lpft.devices import float32_products, resolve_device
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.body_parameters import BodyParameter, find_body_parameters
from ntk_lpft.kernel.groups import group_parameters
from ntk_lpft.kernel.head_check import check_head
from ntk_lpft.kernel.head_rank import HeadRank, rank_of_head, unreachable_share
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.precision import Precision, resolve_precision

# Padding changes a well-posed model's logits by rounding alone. A model that sees padding may do so faintly: MobileBERT
# sees one padding token beside the last of the text, which is in the kernel what it is here.
_PADDING_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}

# Entries of a kernel that are put in order at a time.
_REORDERED = 1 << 22


@dataclass
class KernelSetup:
    """One kernel to compute, in internal order (columns first, each part longest first).

    Attributes:
        classifier: The classifier, opened.
        parameters: Trainable parameters of the body.
        groups: Names of the parameters in each group.
        rows: Ragged rows of all samples, in internal order.
        column_order: For each internal column, its number in the caller's order.
        extra_order: For each internal row that is no column, its number in the caller's order.
        layout: Rows and columns.
        seeds: Linear combinations of the logits that are differentiated, (k, C).
        precision: dtypes.
        head_error: Relative error of P against plain autograd on two samples.
        inside: Narrowest dtype that the model itself computes in on its way to the logits.
        one_by_one: Why samples are run one by one, or nothing where they may share padded batches.
        head_rank: What was found of the head's rank; None where the rank form was not asked for.
        basis: Q, of shape (C, r), where the kernel is one of the combinations Qᵀf; None where it is one of all logits.
        frozen_weights: Dtypes of the frozen weights that are widened only where a layer uses them.
    """

    classifier: Classifier
    parameters: list[BodyParameter]
    groups: dict[str, list[str]]
    rows: list[Row]
    column_order: list[int]
    extra_order: list[int]
    layout: Layout
    seeds: Float[Tensor, "k c"]
    precision: Precision
    head_error: float
    inside: torch.dtype
    one_by_one: str = ""
    head_rank: HeadRank | None = None
    basis: Float64[Tensor, "c r"] | None = None
    frozen_weights: list[str] = field(default_factory=list)

    def within_reach(self, seeds: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
        """Return the part of some combinations of the logits that the kernel has: QQᵀ of each, or all of it."""
        if self.basis is None:
            return seeds
        return (seeds.double().cpu() @ self.basis @ self.basis.T).to(seeds)

    def batches(
        self, max_cells: int, max_rows: int | None = None, span: tuple[int, int] | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """Cut samples into trimmed batches; none holds both columns and other rows.

        Args:
            max_cells: Most samples × positions of a batch.
            max_rows: Most samples of a batch; None for no bound.
            span: First sample and the one behind the last, by internal numbers; None for all.
            start: What the batches call the first of them.

        Yields:
            Batches that follow each other without gap.
        """
        most = 1 if self.one_by_one else max_rows
        begin, end = span or (0, len(self.rows))
        boundary = max(0, self.layout.columns - begin)
        batches = self.classifier.batches(self.rows[begin:end], boundary=boundary, max_cells=max_cells, max_rows=most)
        for batch in batches:
            yield replace(batch, start=batch.start + start)

    @property
    def longest(self) -> int:
        """Positions of the longest sample."""
        return max(len(row["input_ids"]) for row in self.rows)

    def outputs(self) -> Outputs:
        """φ and f0 of all samples, in internal order, by forward passes alone."""
        return self.classifier.outputs(self.batches(FORWARD_CELLS))

    def external(self, kernel: Tensor, width: int) -> dict[str, Tensor]:
        """Cut a kernel matrix in internal order into parts in the caller's order.

        Args:
            kernel: Of shape (rows · width, columns · width).
            width: Rows of the kernel for each sample.

        Returns:
            ``train``, columns × columns, where the kernel has it, and ``eval``, other rows × columns, where there are
            any; each of shape (n · width, m · width), on the CPU.
        """
        layout = self.layout
        columns = inverse_order(self.column_order)
        others = [i + (layout.columns if layout.symmetric else 0) for i in inverse_order(self.extra_order)]
        split = kernel.view(-1, width, layout.columns, width)
        # Few at a time, as each choice is a copy.
        step = max(1, _REORDERED // (layout.columns * width * width))
        parts = {}
        for name, rows in (("train", columns if layout.symmetric else []), ("eval", others)):
            if rows:
                ordered = torch.empty((len(rows), *split.shape[1:]), dtype=kernel.dtype, device="cpu")
                for at in range(0, len(rows), step):
                    ordered[at : at + step] = split[rows[at : at + step]][:, :, columns]
                parts[name] = ordered.view(len(rows) * width, layout.columns * width)
        return parts

    def by_part(self, values: Float[Tensor, "s k"]) -> dict[str, Float[Tensor, "n k"]]:
        """Cut values of all samples into those of the columns and of the other rows, each in the caller's order.

        Args:
            values: One row for each of the S samples, in internal order, of shape (S, k).

        Returns:
            ``train``, (M, k), and, where there are rows that are no columns, ``eval``.
        """
        columns = self.layout.columns
        parts = {"train": values[:columns][inverse_order(self.column_order)]}
        if self.layout.extra:
            parts["eval"] = values[columns:][inverse_order(self.extra_order)]
        return parts


def check_finite_outputs(outputs: Outputs) -> None:
    """Refuse NaN and infinite features and logits.

    Args:
        outputs: φ, of shape (N, h), and f, of shape (N, C).

    Raises:
        InputError: There are some.
    """
    if not (torch.isfinite(outputs.features).all() and torch.isfinite(outputs.logits).all()):
        raise InputError("the model's features or logits are NaN or infinite on some sample; check its weights")


def inverse_order(order: Sequence[int]) -> list[int]:
    """For each number in the caller's order, its place in the internal one."""
    return torch.argsort(torch.tensor(order, device="cpu")).tolist()


def output_seeds(outputs: str, num_labels: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "k c"]:
    """Return the combinations of logits to differentiate: each one, or for ``pseudo`` their sum over √C."""
    if outputs == "pseudo":
        return torch.full((1, num_labels), num_labels**-0.5, dtype=dtype, device=device)
    return torch.eye(num_labels, dtype=dtype, device=device)


def find_classifier(
    model: nn.Module | Classifier, inputs: Mapping[str, Any], precision: str | None, device: str | None
) -> tuple[Classifier, list[Row], list[Row], Precision]:
    """Make a classifier and ragged rows of a model and a kernel's samples.

    Args:
        model: The classifier.
        inputs: The samples that are columns of the kernel and, where there are some, those that are rows only, each
            under the name that messages call them by.
        precision: As for ``compute_ntk``.
        device: A torch device; None takes the one the model is on.

    Returns:
        The classifier, its rows for columns and for rows only, perhaps none, and what the precision stands for.

    Raises:
        InputError: Unknown precision or device, a model without a linear head, bad inputs, rows that do not fit the
            model, or samples that differ in what they tell of a token.
    """
    module = model.module if isinstance(model, Classifier) else model
    check_model(module)
    place = resolve_device(device, home_of(module))
    own = model.dtype if isinstance(model, Classifier) else widest(module)
    kind = resolve_precision(precision, place, own)
    names = list(inputs)
    classifier = Classifier.of(model, inputs[names[0]], device=place, dtype=kind.model, what=names[0])
    columns, *extra = (classifier.rows(samples, name) for name, samples in inputs.items())
    if not extra:
        return classifier, columns, [], kind
    if columns[0].keys() != extra[0][0].keys():
        known, others = sorted(columns[0]), sorted(extra[0][0])
        raise InputError(f"{names[0]} has columns {known}, {names[1]} {others}; give both alike")
    return classifier, columns, extra[0], kind


def set_up(
    classifier: Classifier,
    columns: list[Row],
    extra: list[Row],
    *,
    symmetric: bool,
    outputs: str,
    precision: Precision,
    rank_form: bool = False,
) -> KernelSetup:
    """Put an opened classifier and rows together.

    Args:
        classifier: The classifier, opened in the precision's dtype.
        columns: Samples that are columns of the kernel.
        extra: Samples that are rows only.
        symmetric: Whether the columns are rows as well.
        outputs: ``full``, ``class_trace`` or ``pseudo``.
        precision: dtypes.
        rank_form: Whether only the combinations of the logits that the head can reach are to be differentiated, where
            they are fewer than the logits and the model agrees.

    Returns:
        The setup, with its samples sorted into internal order.

    Raises:
        InputError: No trainable parameter, a model that does not repeat itself in eval mode, or one whose gradients do
            not reach its body or are not P's at its head.
    """
    column_order, extra_order = by_length(columns), by_length(extra)
    rows = [columns[i] for i in column_order] + [extra[i] for i in extra_order]
    sample = classifier.collate(rows[:1]).tensors
    first, again = (classifier.forward(sample).logits for _ in range(2))
    if not torch.isfinite(first).all():
        raise InputError(
            f"the model's logits are NaN or infinite in {precision.name} on the longest sample; load a sound "
            "checkpoint, or take another precision if its code overflows in this one"
        )
    if not torch.equal(first, again):
        raise InputError("the model gives other logits each time, even in eval mode; switch its randomness off")
    parameters = find_body_parameters(classifier.module, classifier.head.parameters)
    head_error = check_head(classifier, rows, [parameter.tensor for parameter in parameters], precision)
    rank = rank_of_head(classifier.head.module.weight, precision.model) if rank_form else None
    basis = _basis(classifier, rank, sample, precision) if outputs != "pseudo" else None
    if basis is None:
        seeds = output_seeds(outputs, number_of_labels(classifier.module), precision.model, classifier.device)
    else:
        seeds = basis.T.to(classifier.device, precision.model)
    layout = Layout(
        len(columns),
        len(extra),
        symmetric,
        seeds.shape[0],
        traced=outputs == "class_trace",
        products=precision.products,
    )
    groups = group_parameters(parameter.name for parameter in parameters)
    inside = _narrowest(classifier, sample) if precision.model == torch.float64 else precision.model
    one_by_one = ""
    if classifier.pad_id is None:
        one_by_one = "the model has no padding token"
    elif inside != precision.model:
        # Rounding inside then depends on the batch's shape, by far more than float64 is asked for.
        one_by_one = "the model computes in float32 inside, so that batches would round otherwise"
    elif not _padding_exact(classifier, rows, _PADDING_TOLERANCE[precision.model]):
        one_by_one = "the logits depend on padding"
    return KernelSetup(
        classifier,
        parameters,
        groups,
        rows,
        column_order,
        extra_order,
        layout,
        seeds,
        precision,
        head_error,
        inside,
        one_by_one,
        rank,
        basis,
        [] if (frozen := active_weights()) is None else frozen.held_in,
    )


def _basis(
    classifier: Classifier, rank: HeadRank | None, sample: dict[str, Tensor], precision: Precision
) -> Float64[Tensor, "c r"] | None:
    """Return the basis in which the kernel is to be computed, or None for that of the logits themselves."""
    if rank is None or not rank.reduces:
        return None
    share = unreachable_share(classifier.module, classifier.head, sample, rank.basis)
    # Rounding is far below, and what the head's range does not hold at all (logits changed behind it) far above.
    return rank.basis if share <= torch.finfo(precision.model).eps ** 0.5 else None


@contextmanager
def open_setup(
    model: nn.Module | Classifier,
    train: Any,
    evaluation: Any = None,
    *,
    precision: str = "float64",
    device: str | None = None,
) -> Iterator[KernelSetup]:
    """Prepare a classifier for full-batch work on training and evaluation samples, as the kernel's engine does.

    Args:
        model: The classifier. Inside the context it is in eval mode, with the precision's weights on the device.
        train: Training samples, as for ``compute_ntk``.
        evaluation: Samples that are looked at but not trained on; None for none.
        precision: As for ``compute_ntk``.
        device: A torch device; None takes the one the model is on.

    Yields:
        The setup, with the training samples as the columns of its layout.

    Raises:
        InputError: Bad samples or settings, a model without a linear head or trainable parameters, or one that is not
            the same each time in eval mode.
    """
    inputs = {"train": train} if evaluation is None else {"train": train, "evaluation": evaluation}
    classifier, rows, extra, kind = find_classifier(model, inputs, precision, device)
    with classifier.opened(), float32_products(kind.tf32):
        yield set_up(classifier, rows, extra, symmetric=True, outputs="full", precision=kind)


def _narrowest(classifier: Classifier, sample: dict[str, Tensor]) -> torch.dtype:
    """Return the narrowest type that a float64 model computes something in on its way to the logits."""
    with torch.no_grad(), Casts() as casts:
        classifier.logits(sample)
    narrower = [after for before, after in casts.seen if before == torch.float64]
    return max([torch.float64, *narrower], key=lambda dtype: torch.finfo(dtype).eps)


def _padding_exact(classifier: Classifier, rows: list[Row], tolerance: float) -> bool:
    """Whether the shortest row has the same features and logits alone and padded to the longest."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    pair = [ordered[-1], ordered[0]]
    together = classifier.forward(classifier.collate(pair).tensors)
    alone = classifier.outputs(classifier.collate([row]) for row in pair)
    return all(
        # Written so that NaN, from rows of attention without any visible token, counts as a difference.
        float((padded - single).norm()) <= tolerance * float(single.norm())
        for padded, single in zip(together, alone, strict=True)
    )
