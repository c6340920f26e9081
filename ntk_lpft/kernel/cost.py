"""What a computation will cost, measured on its longest sample before it starts."""

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ntk_lpft.classifier.frozen_weights import active_weights
from ntk_lpft.classifier.head import models_own_code
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.kernel.body_parameters import BodyParameter, Route
from ntk_lpft.kernel.capture import CaptureError, capture
from ntk_lpft.kernel.contract import outer_flops, use_gram
from ntk_lpft.kernel.gradients import DenseGradients, OuterGradients, SampleGradients
from ntk_lpft.kernel.memory import ParameterCost, Work
from ntk_lpft.kernel.setup import KernelSetup
from ntk_lpft.kernel.split import workspace_bytes


def work_of(setup: KernelSetup, group_count: int) -> Work:
    """Measure each parameter, and the forward pass, on the longest sample.

    Args:
        setup: The setup, with its parameters routed.
        group_count: Number of kernels that are accumulated.

    Returns:
        All that a plan is made from.
    """
    costs = measure_costs(setup)
    frozen = active_weights()
    graph, flops = _forward_costs(setup, _longest_sample(setup).tensors)
    return Work(
        costs=costs,
        layout=setup.layout,
        lengths=[len(row["input_ids"]) for row in setup.rows],
        # While a batch is captured, its gradients stand there twice.
        graph_bytes_per_cell=graph / setup.longest + sum(p.position_bytes for p in costs),
        forward_flops_per_cell=flops / setup.longest,
        depth=1 + max((cost.order for cost in costs), default=0),
        kernels=group_count,
        kernel_itemsize=setup.precision.kernel.itemsize,
        itemsize=setup.precision.model.itemsize,
        device_type=setup.classifier.device.type,
        threads=torch.get_num_threads(),
        widened_bytes=0 if frozen is None else frozen.largest,
        product_bytes=workspace_bytes(setup.classifier.device.type) if setup.layout.products > 1 else 0,
    )


def measure_costs(setup: KernelSetup) -> list[ParameterCost]:
    """Measure what each parameter costs, on the longest sample."""
    structured = [parameter for parameter in setup.parameters if parameter.route != Route.AUTOGRAD]
    sample = _longest_sample(setup)
    records = capture(setup.classifier.module, structured, sample, setup.seeds, setup.precision.product)
    order = {name: index for index, name in enumerate(records)}
    for parameter in structured:
        record = records.get(parameter.name)
        if isinstance(record, CaptureError):  # its rule held for the two samples together, and not for the longest
            parameter.route, parameter.reason = Route.AUTOGRAD, str(record)
    # How many records hold each input tensor.
    sharing = Counter(_storage(record.inputs) for record in records.values() if isinstance(record, OuterGradients))
    return [
        _cost(parameter, setup, records.get(parameter.name), order, sharing, setup.longest)
        for parameter in setup.parameters
    ]


def _longest_sample(setup: KernelSetup) -> Batch:
    row = max(setup.rows, key=lambda row: len(row["input_ids"]))
    return setup.classifier.collate([row])


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _cost(
    parameter: BodyParameter,
    setup: KernelSetup,
    record: SampleGradients | CaptureError | None,
    order: dict[str, int],
    sharing: Counter[int],
    longest: int,
) -> ParameterCost:
    layout = setup.layout
    cost = ParameterCost(parameter.name, parameter.route, order.get(parameter.name, 0))
    if parameter.route == Route.AUTOGRAD:
        entries = parameter.tensor.numel()
        return replace(cost, entries=entries, flops=2.0 * layout.pairs * layout.width * layout.width * entries)
    if record is None:
        return cost
    assert not isinstance(record, CaptureError)  # the parameter would take the way of autograd
    if isinstance(record, DenseGradients):
        flops = 2.0 * layout.pairs * layout.width * record.jacobian[0].numel()
        return replace(cost, fixed_bytes=record.jacobian.nbytes, flops=flops)
    if isinstance(record, OuterGradients):
        positions, features = record.inputs.shape[1:]
        channels, outputs = record.grads.shape[2:]
        # Where the number of positions does not grow with the sample, each sample costs as much as this one.
        grows = positions % longest == 0
        mean = positions * (sum(len(row["input_ids"]) for row in setup.rows) / layout.samples / longest if grows else 1)
        choices = outer_flops(layout, features, outputs, mean)
        gram = use_gram(layout, features, outputs, mean)
        made = 2.0 * channels * mean * features * outputs
        shared = sharing[_storage(record.inputs)] > 1 and grows
        own = record.grads.nbytes + (0 if shared else record.inputs.nbytes)
        return replace(
            cost,
            fixed_bytes=0 if grows else own,
            position_bytes=own / longest if grows else 0,
            input_key=str(_storage(record.inputs)) if shared else "",
            input_position_bytes=record.inputs.nbytes / longest if shared else 0,
            chunk_bytes=0 if gram else channels * features * record.inputs.element_size(),
            flops=choices[1] if gram else choices[0] - layout.samples * made,
            sample_flops=0.0 if gram else made,
        )
    return replace(cost, position_bytes=record.values.nbytes / longest, flops=float(record.values.numel()))


class _Operations(TorchDispatchMode):
    """Counts floating-point operations as torch's ``FlopCounterMode`` does, without its hooks on all modules."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=returned))
        return returned


def _forward_costs(setup: KernelSetup, tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Bytes that autograd keeps for one sample of the greatest length, weights not counted, and its operations."""
    weights, frozen = {_storage(p) for p in setup.classifier.module.parameters()}, active_weights()
    seen: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor | None:
        if frozen is not None and frozen.is_wide(value):
            return None
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    counter = _Operations()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    # Not by ``logits_of``, whose own hooks would take the place of these.
    with models_own_code(tensors), torch.enable_grad(), hooks, counter:
        setup.classifier.module(**tensors)
    return sum(seen.values()), counter.total
