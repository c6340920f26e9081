"""What a computation will cost, measured on its longest sample before it starts."""

from __future__ import annotations

import torch
from torch import Tensor

from ntk_lpft.classifier.head import logits_of
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.kernel.body_parameters import BodyParameter, Route
from ntk_lpft.kernel.capture import CaptureError, capture
from ntk_lpft.kernel.contract import outer_flops, use_gram
from ntk_lpft.kernel.gradients import DenseGradients, OuterGradients, SampleGradients
from ntk_lpft.kernel.memory import ParameterCost, Plan, make_plan
from ntk_lpft.kernel.setup import KernelSetup

# Batches hold samples of similar, not equal, length.
_PADDING_ALLOWANCE = 1.05


def plan_for(setup: KernelSetup, budget: int, group_count: int) -> Plan:
    """Measure each parameter on the longest sample, and share the budget out.

    Args:
        setup: The setup, with its parameters routed.
        budget: Bytes allowed besides the model.
        group_count: Number of kernels that are accumulated.

    Returns:
        The plan.

    Raises:
        InputError: The budget is too small for one layer.
    """
    layout, longest = setup.layout, setup.longest
    costs = measure_costs(setup)
    graph = _graph_bytes(setup, _longest_sample(setup).tensors) / longest
    # While a batch is captured, its gradients stand there twice.
    graph += sum(p.position_bytes for p in costs)
    kernel = layout.shape[0] * layout.shape[1] * setup.precision.kernel.itemsize
    lengths = sum(len(row["input_ids"]) for row in setup.rows)
    return make_plan(
        costs,
        samples=layout.samples,
        positions=min(int(lengths * _PADDING_ALLOWANCE), longest * layout.samples),
        longest=longest,
        channels=layout.channels,
        graph_bytes_per_cell=graph,
        kernel_bytes=kernel * (group_count + 2),  # one for the parameter at hand, one for putting in order
        itemsize=setup.precision.model.itemsize,
        budget=budget,
        device_type=setup.classifier.device.type,
    )


def measure_costs(setup: KernelSetup) -> list[ParameterCost]:
    """Measure what each parameter costs, on the longest sample."""
    structured = [parameter for parameter in setup.parameters if parameter.route != Route.AUTOGRAD]
    sample = _longest_sample(setup)
    records = capture(setup.classifier.module, structured, sample, setup.seeds, setup.precision.product)
    order = {name: index for index, name in enumerate(records)}
    sharing = _shared_inputs(records)
    return [
        _cost(parameter, setup, records.get(parameter.name), order, sharing, setup.longest)
        for parameter in setup.parameters
    ]


def contraction_flops(setup: KernelSetup) -> float:
    """Floating-point operations that the contraction of all parameters needs, redundant halves not counted."""
    return sum(cost.flops for cost in measure_costs(setup))


def _longest_sample(setup: KernelSetup) -> Batch:
    row = max(setup.rows, key=lambda row: len(row["input_ids"]))
    return setup.classifier.collate([row])


def _shared_inputs(records: dict[str, SampleGradients | CaptureError]) -> dict[int, int]:
    """How many records hold each input tensor."""
    count: dict[int, int] = {}
    for record in records.values():
        if isinstance(record, OuterGradients):
            pointer = record.inputs.untyped_storage().data_ptr()
            count[pointer] = count.get(pointer, 0) + 1
    return count


def _cost(
    parameter: BodyParameter,
    setup: KernelSetup,
    record: SampleGradients | CaptureError | None,
    order: dict[str, int],
    sharing: dict[int, int],
    longest: int,
) -> ParameterCost:
    if parameter.route == Route.AUTOGRAD:
        entries = parameter.tensor.numel()
        width = setup.layout.width
        flops = 2.0 * setup.layout.pairs * width * width * entries
        return ParameterCost(parameter.name, parameter.route, 0, entries=entries, flops=flops)
    place = order.get(parameter.name, 0)
    if record is None:
        return ParameterCost(parameter.name, parameter.route, place)
    if isinstance(record, CaptureError):
        raise record  # a single sample cannot be ambiguous
    layout = setup.layout
    if isinstance(record, DenseGradients):
        flops = 2.0 * layout.pairs * layout.width * record.jacobian[0].numel()
        return ParameterCost(
            parameter.name, parameter.route, place, _bytes(record.jacobian), chunk_bytes=0, flops=flops
        )
    if isinstance(record, OuterGradients):
        positions, features = record.inputs.shape[1:]
        channels, outputs = record.grads.shape[2:]
        # Where the number of positions does not grow with the sample, each sample costs as much as this one.
        grows = positions % longest == 0
        mean = positions * (sum(len(row["input_ids"]) for row in setup.rows) / layout.samples / longest if grows else 1)
        choices = outer_flops(layout, features, outputs, mean)
        gram = use_gram(layout, features, outputs, mean)
        pointer = record.inputs.untyped_storage().data_ptr()
        shared = sharing[pointer] > 1 and grows
        own = _bytes(record.grads) + (0 if shared else _bytes(record.inputs))
        return ParameterCost(
            parameter.name,
            parameter.route,
            place,
            fixed_bytes=0 if grows else own,
            position_bytes=own / longest if grows else 0,
            input_key=str(pointer) if shared else "",
            input_position_bytes=_bytes(record.inputs) / longest if shared else 0,
            chunk_bytes=0 if gram else layout.samples * channels * features * record.inputs.element_size(),
            flops=choices[1] if gram else choices[0],
        )
    return ParameterCost(
        parameter.name,
        parameter.route,
        place,
        position_bytes=_bytes(record.values) / longest,
        flops=float(record.values.numel()),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _graph_bytes(setup: KernelSetup, tensors: dict[str, Tensor]) -> int:
    """Bytes that autograd keeps for one sample of the greatest length, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in setup.classifier.module.parameters()}
    seen: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        logits = logits_of(setup.classifier.module, tensors)
    del logits
    return sum(seen.values())
