"""What a computation will cost, measured on its longest sample before it starts."""

from __future__ import annotations

import torch
from torch import Tensor

from ntk_lpft.classifier.head import logits_of
from ntk_lpft.classifier.rows import Batch, collate
from ntk_lpft.kernel.capture import ShapeMismatch, capture
from ntk_lpft.kernel.contract import outer_flops, use_gram
from ntk_lpft.kernel.memory import Plan, SiteProfile, make_plan
from ntk_lpft.kernel.problem import Problem
from ntk_lpft.kernel.records import DenseRecord, OuterRecord, Record
from ntk_lpft.kernel.sites import Route, Site

# Batches hold samples of similar, not equal, length.
_PADDING_ALLOWANCE = 1.05


def plan_for(problem: Problem, budget: int, group_count: int) -> Plan:
    """Measure each site on the longest sample, and share the budget out.

    Args:
        problem: The problem, with its sites routed.
        budget: Bytes allowed besides the model.
        group_count: Number of kernels that are accumulated.

    Returns:
        The plan.

    Raises:
        InputError: The budget is too small for one layer.
    """
    layout, longest = problem.layout, problem.longest
    profiles = measure_sites(problem)
    graph = _graph_bytes(problem, _longest_sample(problem).tensors) / longest
    # While a batch is captured, its gradients stand there twice.
    graph += sum(p.position_bytes for p in profiles)
    kernel = layout.shape[0] * layout.shape[1] * problem.precision.kernel.itemsize
    lengths = sum(len(row["input_ids"]) for row in problem.rows)
    return make_plan(
        profiles,
        samples=layout.samples,
        positions=min(int(lengths * _PADDING_ALLOWANCE), longest * layout.samples),
        longest=longest,
        channels=layout.channels,
        graph_bytes_per_cell=graph,
        kernel_bytes=kernel * (group_count + 2),  # one for the parameter at hand, one for putting in order
        itemsize=problem.precision.model.itemsize,
        budget=budget,
        device_type=problem.device.type,
    )


def measure_sites(problem: Problem) -> list[SiteProfile]:
    """Measure what each site costs, on the longest sample."""
    structured = [site for site in problem.sites if site.route != Route.AUTOGRAD]
    sample = _longest_sample(problem)
    records = capture(problem.model, structured, sample, problem.seeds, problem.precision.product)
    order = {name: index for index, name in enumerate(records)}
    sharing = _shared_inputs(records)
    return [_profile(site, problem, records.get(site.name), order, sharing, problem.longest) for site in problem.sites]


def contraction_flops(problem: Problem) -> float:
    """Floating-point operations that the contraction of all sites needs, redundant halves not counted."""
    return sum(profile.flops for profile in measure_sites(problem))


def _longest_sample(problem: Problem) -> Batch:
    row = max(problem.rows, key=lambda row: len(row["input_ids"]))
    return collate([row], problem.pad_id, problem.device)


def _shared_inputs(records: dict[str, Record | ShapeMismatch]) -> dict[int, int]:
    """How many records hold each input tensor."""
    count: dict[int, int] = {}
    for record in records.values():
        if isinstance(record, OuterRecord):
            pointer = record.inputs.untyped_storage().data_ptr()
            count[pointer] = count.get(pointer, 0) + 1
    return count


def _profile(
    site: Site,
    problem: Problem,
    record: Record | ShapeMismatch | None,
    order: dict[str, int],
    sharing: dict[int, int],
    longest: int,
) -> SiteProfile:
    if site.route == Route.AUTOGRAD:
        entries = site.parameter.numel()
        width = problem.layout.width
        flops = 2.0 * problem.layout.pairs * width * width * entries
        return SiteProfile(site.name, site.route, 0, entries=entries, flops=flops)
    place = order.get(site.name, 0)
    if record is None:
        return SiteProfile(site.name, site.route, place)
    if isinstance(record, ShapeMismatch):
        raise record  # a single sample cannot be ambiguous
    layout = problem.layout
    if isinstance(record, DenseRecord):
        flops = 2.0 * layout.pairs * layout.width * record.jacobian[0].numel()
        return SiteProfile(site.name, site.route, place, _bytes(record.jacobian), chunk_bytes=0, flops=flops)
    if isinstance(record, OuterRecord):
        positions, features = record.inputs.shape[1:]
        channels, outputs = record.grads.shape[2:]
        # Where the number of positions does not grow with the sample, each sample costs as much as this one.
        grows = positions % longest == 0
        mean = positions * (
            sum(len(row["input_ids"]) for row in problem.rows) / layout.samples / longest if grows else 1
        )
        choices = outer_flops(layout, features, outputs, mean)
        gram = use_gram(layout, features, outputs, mean)
        pointer = record.inputs.untyped_storage().data_ptr()
        shared = sharing[pointer] > 1 and grows
        own = _bytes(record.grads) + (0 if shared else _bytes(record.inputs))
        return SiteProfile(
            site.name,
            site.route,
            place,
            fixed_bytes=0 if grows else own,
            position_bytes=own / longest if grows else 0,
            input_key=str(pointer) if shared else "",
            input_position_bytes=_bytes(record.inputs) / longest if shared else 0,
            chunk_bytes=0 if gram else layout.samples * channels * features * record.inputs.element_size(),
            flops=choices[1] if gram else choices[0],
        )
    return SiteProfile(
        site.name, site.route, place, position_bytes=_bytes(record.values) / longest, flops=float(record.values.numel())
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _graph_bytes(problem: Problem, tensors: dict[str, Tensor]) -> int:
    """Bytes that autograd keeps for one sample of the greatest length, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in problem.model.parameters()}
    seen: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        logits = logits_of(problem.model, tensors)
    del logits
    return sum(seen.values())
