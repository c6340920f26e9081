"""Before a structured kernel is trusted: every parameter against plain autograd, on two samples of the run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.classifier.rows import Batch
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.autograd import random_seeds, sample_gradients
from ntk_lpft.kernel.body_parameters import BodyParameter, Route
from ntk_lpft.kernel.capture import CaptureError, capture
from ntk_lpft.kernel.contract import Workspace, contract
from ntk_lpft.kernel.gradients import SampleGradients
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.precision import Precision
from ntk_lpft.kernel.setup import KernelSetup
from ntk_lpft.kernel.split import SUM_BOUND, TERM_BOUND, split_errors
from ntk_lpft.library_errors import lacks_memory

# A block this much smaller than the whole kernel may be pure rounding: attention does not depend on the key's
# bias, for one, so that its gradient is exactly zero in exact arithmetic.
_NEGLIGIBLE = 1e-3


@dataclass
class SelfCheck:
    """What the check found.

    Attributes:
        error: ‖Θ_F − reference‖ / ‖reference‖ on the two samples, Frobenius norms, after routing.
        worst: Largest relative error of one parameter's block whose size is not negligible.
        worst_parameter: Its name.
        tolerance: Largest relative error that a parameter's rule may have.
        parameters: Number of trainable parameter tensors of the body, all of which were checked.
        routes: Names of the parameters that do not take the fastest way, by way.
        unused: Names of the parameters whose gradient is zero on both samples.
        notices: What a reader should know, one sentence each.
        split: Where bfloat16 products stand for those of float32 (see `split`): the largest errors measured on the two
            samples' gradients, ``sum_error`` and ``term_error``, beside what they can be, ``sum_bound`` and
            ``term_bound``; None elsewhere.
    """

    error: float = 0.0
    worst: float = 0.0
    worst_parameter: str = ""
    tolerance: float = 0.0
    parameters: int = 0
    routes: dict[str, list[str]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    split: dict[str, float] | None = None


def run_self_check(setup: KernelSetup, budget: int) -> SelfCheck:
    """Check and route every parameter of a setup; the parameters' ``route`` and ``reason`` are set.

    The longest and the shortest sample are taken together, padded, as in the run. Two random combinations of the
    logits stand for all of them: a wrong rule agrees on them with probability zero. In rank form the structured
    engine sees only their parts within the head's range, while autograd differentiates all of them.

    Args:
        setup: The setup; its parameters are changed.
        budget: Bytes that the check may take.

    Returns:
        What was found.

    Raises:
        InputError: Products of bfloat16 numbers err here by more than they can where they are summed in float32.
    """
    rows = sorted(setup.rows, key=lambda row: len(row["input_ids"]))
    pair = [rows[-1], rows[0]]
    together = setup.classifier.collate(pair)
    alone = [setup.classifier.collate([row], start) for start, row in enumerate(pair)]
    seeds = random_seeds(setup.seeds.shape[1]).to(setup.seeds)
    check = SelfCheck(tolerance=setup.precision.tolerance, parameters=len(setup.parameters))
    if setup.one_by_one:
        for parameter in setup.parameters:
            if parameter.route == Route.BATCHED:
                parameter.route, parameter.reason = Route.SINGLE, setup.one_by_one
    references = _references(setup, alone, seeds, budget, check)
    scale = sum(size for _, size in _compared(references, references).values())
    layout = Layout(2, 0, symmetric=True, channels=len(seeds), products=setup.layout.products)
    agreed: dict[str, Tensor] = {}

    def disagreement(error: float, size: float) -> str:
        """Why a block cannot be trusted, or nothing."""
        if error <= check.tolerance * size or error <= _NEGLIGIBLE * check.tolerance * scale:
            return ""
        return f"differs from autograd by {error / max(size, 1e-300):.1e} of its norm"

    for route, batches, following in (
        (Route.BATCHED, [together], Route.SINGLE),
        (Route.SINGLE, alone, Route.AUTOGRAD),
    ):
        parameters = [parameter for parameter in setup.parameters if parameter.route == route]
        blocks = _structured(setup, parameters, batches, setup.within_reach(seeds), layout)
        made = {name: block for name, block in blocks.items() if isinstance(block, Tensor)}
        reasons = {name: str(block) for name, block in blocks.items() if isinstance(block, CaptureError)}
        reasons |= {name: disagreement(*sizes) for name, sizes in _compared(made, references).items()}
        agreed |= {name: block for name, block in made.items() if not reasons[name]}
        for parameter in parameters:
            if reasons[parameter.name]:
                parameter.route, parameter.reason = following, reasons[parameter.name]
    for parameter in setup.parameters:
        agreed.setdefault(parameter.name, references[parameter.name])
    _summarise(check, setup.parameters, references, agreed, scale)
    return check


def _references(
    setup: KernelSetup, alone: Sequence[Batch], seeds: Float[Tensor, "2 c"], budget: int, check: SelfCheck
) -> dict[str, Float[Tensor, "2 2"]]:
    """Blocks of two rows from plain autograd, for as many parameters at a time as the budget allows.

    The first sample's row is of the first combination of the logits, the second sample's of the second: two backward
    passes, in which samples and combinations that were mixed up would show all the same.

    Args:
        setup: The setup.
        alone: The two samples, each as a batch of its own.
        seeds: The two combinations.
        budget: Bytes that the check may take.
        check: What is found; how far split products err is entered.

    Returns:
        For each parameter the products of its two gradients.
    """
    allowed = max(1, budget // 2 // (len(alone) * setup.seeds.element_size()))
    chunks: list[list[BodyParameter]] = []
    held = allowed
    for parameter in setup.parameters:
        if held + parameter.tensor.numel() > allowed:
            chunks.append([])
            held = 0
        chunks[-1].append(parameter)
        held += parameter.tensor.numel()
    blocks = {}
    errors = []
    for chunk in chunks:
        parameters = [parameter.tensor for parameter in chunk]
        first, second = (
            sample_gradients(setup.classifier.module, parameters, batch, seed[None])
            for batch, seed in zip(alone, seeds, strict=True)
        )
        for parameter in chunk:
            one, other = first.pop(0)[0], second.pop(0)[0]
            between = one @ other
            blocks[parameter.name] = torch.stack([one @ one, between, between, other @ other]).view(2, 2)
            if setup.layout.products > 1:
                errors.append(split_errors(torch.stack([one, other]), setup.layout.products))
    if errors:
        check.split = _split_found(torch.stack(errors).amax(dim=0).tolist(), setup.precision)
    return blocks


def _compared(blocks: dict[str, Tensor], references: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """‖block − reference‖ and ‖reference‖ of each, asked of the device at once."""
    norms = [torch.stack([(b - references[name]).norm(), references[name].norm()]) for name, b in blocks.items()]
    found = torch.stack(norms).tolist() if norms else []
    return {name: (error, size) for name, (error, size) in zip(blocks, found, strict=True)}


def _split_found(errors: list[float], precision: Precision) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, error, bounds in zip(("sum", "term"), errors, (SUM_BOUND, TERM_BOUND), strict=True):
        bound = bounds[precision.products]
        if not error <= bound:
            raise InputError(
                f"precision {precision.name}: products of bfloat16 numbers err here by {error:.1e}, and can by "
                f"{bound:.1e} at most where they are summed in float32; use precision float32"
            )
        found |= {f"{name}_error": error, f"{name}_bound": bound}
    return found


def _structured(
    setup: KernelSetup, parameters: Sequence[BodyParameter], batches: Sequence[Batch], seeds: Tensor, layout: Layout
) -> dict[str, Tensor | CaptureError]:
    if not parameters:  # a model that cannot pad takes no batch at all
        return {}
    records: dict[str, list[SampleGradients | CaptureError]] = {parameter.name: [] for parameter in parameters}
    for batch in batches:
        for name, record in capture(setup.classifier.module, parameters, batch, seeds, setup.precision.model).items():
            records[name].append(record)
    workspace = Workspace(1 << 26)
    blocks: dict[str, Tensor | CaptureError] = {}
    for name, parts in records.items():
        block = layout.zeros(setup.precision.kernel, setup.classifier.device)
        mismatches = [part for part in parts if isinstance(part, CaptureError)]
        if parts and not mismatches:
            try:
                contract(block, layout, [part for part in parts if not isinstance(part, CaptureError)], workspace)
            except (RuntimeError, ValueError, IndexError) as error:
                if lacks_memory(error):
                    raise
                # Records that fit neither each other nor the kernel, from a rule that matched by mistake.
                mismatches.append(CaptureError(f"its gradients do not fit: {' '.join(str(error).split())[:120]}"))
        # Of the rows (sample, combination) those two that autograd computes.
        blocks[name] = mismatches[0] if mismatches else layout.complete_(block)[::3, ::3]
    return blocks


def _summarise(
    check: SelfCheck,
    parameters: Sequence[BodyParameter],
    references: dict[str, Tensor],
    blocks: dict[str, Tensor],
    scale: float,
) -> None:
    if not parameters:
        return
    reference, total = sum(references.values()), sum(blocks.values())
    assert isinstance(reference, Tensor)
    assert isinstance(total, Tensor)
    check.error = float((total - reference).norm() / reference.norm().clamp_min(1e-300))
    compared = _compared(blocks, references)
    for parameter in parameters:
        error, size = compared[parameter.name]
        if size > _NEGLIGIBLE * check.tolerance * scale and error / size >= check.worst:
            check.worst, check.worst_parameter = error / size, parameter.name
        if size == 0.0:
            # Some other sample may reach it (an expert's weights, say); the run then computes it by autograd.
            parameter.verified = False
            check.unused.append(parameter.name)
    ways = {Route.SINGLE: "captured one sample at a time", Route.AUTOGRAD: "computed by plain autograd"}
    for route, way in ways.items():
        members = [parameter for parameter in parameters if parameter.route == route]
        check.routes[route.value] = [parameter.name for parameter in members]
        reasons: dict[str, list[str]] = {}
        for parameter in members:
            reasons.setdefault(parameter.reason, []).append(parameter.name)
        for reason, names in reasons.items():
            check.notices.append(f"{way}: {_shorten(names)} ({reason})")
    if check.unused:
        check.notices.append(f"no gradient on the two samples: {_shorten(check.unused)}")


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"
