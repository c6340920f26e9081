"""What a kernel will cost, before it is computed: operations, memory, disk, and a guess of the time."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ntk_lpft.byte_sizes import format_bytes, parse_bytes
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.devices import float32_products
from ntk_lpft.kernel.cost import work_of
from ntk_lpft.kernel.engine import prepare_job, route_parameters
from ntk_lpft.kernel.free_memory import default_budget
from ntk_lpft.kernel.memory import Plan
from ntk_lpft.kernel.resumption import planned
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.kernel.setup import set_up

# How long the device's rate of multiplying is measured, in seconds.
_MEASURED = 1.0
_SIZE = {"cpu": 1024, "cuda": 4096}


@dataclass(frozen=True)
class KernelPrice:
    """What a kernel will cost.

    Attributes:
        samples: Number of samples, columns and other rows.
        combinations: Combinations of the logits that are differentiated.
        plans: The plan of each process.
        capture_flops: Floating-point operations of forward and backward passes, of all processes.
        contraction_flops: Those of products of gradients, and of making gradients for them.
        kernel_bytes: Bytes of all kernels that are kept, F by group and P, which is also what the file will hold.
        rate: Floating-point operations per second of a large matrix product on this device, as measured.
        seconds: The time of the slowest process at that rate; in truth the rate is not reached everywhere.
    """

    samples: int
    combinations: int
    plans: list[Plan]
    capture_flops: float
    contraction_flops: float
    kernel_bytes: int
    rate: float
    seconds: float

    def lines(self) -> list[str]:
        """Say it, a line for each thing."""
        plan, shared = self.plans[0], f" in each of {len(self.plans)} processes" if len(self.plans) > 1 else ""
        tile = plan.largest_tile
        tiles = f", in tiles of {tile['columns']} × {tile['rows']} samples" if tile["columns"] else ""
        total = self.capture_flops + self.contraction_flops
        return [
            f"passes: {len(plan.passes)}{shared}{tiles}; {self.combinations} backward passes a sample in each",
            f"work:   {total / 1e12:.3g} TFLOP ({self.capture_flops / 1e12:.3g} of forward and backward passes, "
            f"{self.contraction_flops / 1e12:.3g} of products)",
            f"memory: {format_bytes(max(plan.predicted_peak for plan in self.plans))} of {format_bytes(plan.budget)} "
            f"besides the model{shared}",
            f"disk:   {format_bytes(self.kernel_bytes)} of kernels",
            f"time:   about {_time(self.seconds)}, at the {self.rate / 1e9:.3g} GFLOP/s that this device multiplied "
            "with just now",
        ]


def price_ntk(
    model: nn.Module | Classifier,
    train: Any,
    evaluation: Any = None,
    *,
    settings: KernelSettings | None = None,
    processes: int = 1,
) -> KernelPrice:
    """Plan the kernels of `compute_train_eval_ntk`, and say what they will cost, without computing them.

    The model is checked as before a computation, on two samples, and the device's rate is measured for a second.

    Args:
        model: As there.
        train: As there.
        evaluation: As there.
        settings: As there.
        processes: How many processes would share the work.

    Returns:
        The price.

    Raises:
        InputError: As there.
    """
    settings = settings or KernelSettings()
    rows = {"train": train} if evaluation is None else {"train": train, "evaluation": evaluation}
    job = prepare_job(model, rows, True, settings)
    classifier, precision = job.classifier, job.precision
    with classifier.opened(), float32_products(precision.tf32):
        setup = set_up(
            classifier,
            job.columns,
            job.extra,
            symmetric=True,
            outputs=settings.outputs,
            precision=precision,
            rank_form=settings.rank_form and settings.engine == "structured",
        )
        given = settings.memory_budget
        budget = default_budget(classifier.device, processes) if given is None else parse_bytes(given)
        route_parameters(setup, settings.engine, budget)
        kernels = len(setup.groups) if settings.groups else 1
        work = work_of(setup, kernels)
        plans = [planned(work, budget, rank, processes) for rank in range(processes)]
        rate = product_rate(classifier.device, precision.product)
    entries = math.prod(setup.layout.shape)
    features = entries // setup.layout.width**2
    return KernelPrice(
        samples=setup.layout.samples,
        combinations=len(setup.seeds),
        plans=plans,
        capture_flops=sum(plan.capture_flops for plan in plans),
        contraction_flops=sum(plan.contraction_flops for plan in plans),
        kernel_bytes=precision.kernel.itemsize * (kernels * entries + features),
        rate=rate,
        seconds=max(plan.capture_flops + plan.contraction_flops for plan in plans) / rate,
    )


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure how fast a device multiplies matrices.

    Args:
        device: The device.
        dtype: The factors' dtype; products of a narrower one than float32 are of float32 on the CPU, as in the engine.

    Returns:
        Floating-point operations per second.
    """
    size = _SIZE.get(device.type, _SIZE["cuda"])
    kind = torch.promote_types(dtype, torch.float32) if device.type == "cpu" else dtype
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    _finish(left @ right)  # the first one sets things up
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < _MEASURED:
        _finish(left @ right)
        count += 1
    return 2.0 * size**3 * count / (time.perf_counter() - began)


def _finish(product: torch.Tensor) -> None:
    if product.is_cuda:
        torch.cuda.synchronize(product.device)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.3g} hours"
