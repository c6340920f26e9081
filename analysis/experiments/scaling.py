"""F of LoRA against F of fine-tuning: how fast the paper's approximation gets better with the rank.

``python -m analysis.experiments.lora_scaling --model minilm --dataset cb``

With W = W₀ + (α/r) B A, entries of A independent with variance σ², and B = 0, the paper (Tomihari and Sato, NeurIPS
2024, the proposition on LoRA) has F_LoRA ≈ σ² r F_FT over the adapted weights, here times (α/r)², as the adapters are
scaled by α/r. Its bound is on one entry of the kernel: within a relative ε with probability
1 − 4 exp(−(ε² − ε³) r / 4) or more. (The printed bound drops the factor σ² r that its proof ends with.) Up to
r = 4 ln 4 / (ε² − ε³), which is above 37 for every ε, that is not positive, and the bound says nothing.

At B = 0 the network does what it did, the gradient with respect to A is zero, and the gradient with respect to B is
(α/r) G Aᵀ with G = ∂f/∂W₀. So F_LoRA of every draw follows from G; A itself is drawn by peft. For one draw of the
smallest and of the largest rank the kernel is also computed from the adapted model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from analysis.experiments.folders import ScalingRun
from analysis.experiments.options import ScalingOptions
from analysis.experiments.shared import config_of, is_done, start_of, write_results
from ntk_lpft.classifier import Classifier, Head, apply_lora
from ntk_lpft.commands.compute.start import build_classifier
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk
from ntk_lpft.kernel.capture import capture
from ntk_lpft.kernel.gradients import OuterGradients
from ntk_lpft.kernel.precision import resolve_precision
from ntk_lpft.kernel.setup import open_setup
from ntk_lpft.options import inputs_of

_CELLS = 2048  # positions of a batch


def bound(epsilon: float, rank: int) -> float:
    """Compute the paper's lower bound on the probability that an entry is within a relative ε, at least 0."""
    return max(0.0, 1 - 4 * math.exp(-(epsilon**2 - epsilon**3) * rank / 4))


def adapted(model: nn.Module, head: Head, rank: int, alpha: float, targets: Sequence[str], seed: int) -> nn.Module:
    """Return a copy of a classifier with new adapters, which alone are trained."""
    base = copy.deepcopy(model)
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    own = Head(head.name, base.get_submodule(head.name))  # type: ignore[arg-type]
    result = apply_lora(base, own, rank=rank, alpha=alpha, targets=list(targets) or None, seed=seed)
    for name, parameter in result.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return result


def adapter_matrices(model: nn.Module) -> dict[str, Float[Tensor, "r i"]]:
    """Return A of every adapted layer, by the layer's name in the classifier without adapters."""
    matrices = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight"): parameter.detach()
        for name, parameter in model.named_parameters()
        if name.endswith(".lora_A.default.weight")
    }
    widths = sorted({matrix.shape[1] for matrix in matrices.values()})
    if len(widths) != 1:
        raise InputError(
            f"the adapted layers take inputs of {' and '.join(map(str, widths))} entries, so that A has no single "
            "variance; name --lora-targets of one width"
        )
    return matrices


def layer_gradients(
    model: nn.Module, inputs: Any, layers: Sequence[str], precision: str
) -> dict[str, list[tuple[Tensor, OuterGradients]]]:
    """Gradients G = Σ_t g_t a_tᵀ of the logits with respect to the layers' weights, as factors.

    Args:
        model: The classifier without adapters; it is not changed.
        inputs: As for ``compute_ntk``.
        layers: Names of linear layers.
        precision: ``float32`` or ``float64``.

    Returns:
        For each layer the numbers of some samples, and their factors.

    Raises:
        InputError: A layer is no plain linear layer.
    """
    model = copy.deepcopy(model)
    weights = {f"{layer}.weight": layer for layer in layers}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in weights)
    factors: dict[str, list[tuple[Tensor, OuterGradients]]] = {layer: [] for layer in layers}
    with open_setup(model, inputs, precision=precision) as setup:
        order = torch.tensor(setup.column_order)
        dense = [parameter for parameter in setup.parameters if parameter.rule]
        for batch in setup.batches(_CELLS):
            captured = capture(model, dense, batch, setup.seeds, setup.precision.kernel)
            for name, layer in weights.items():
                gradients = captured.get(name)
                if not isinstance(gradients, OuterGradients):
                    raise InputError(f"layer {layer} is no plain linear layer, once for each position; name others")
                factors[layer].append((order[batch.start : batch.start + batch.size], gradients))
    return factors


def lora_kernels(
    gradients: Mapping[str, Sequence[tuple[Tensor, OuterGradients]]],
    draws: Sequence[Mapping[str, Float[Tensor, "r i"]]],
    samples: int,
) -> Float[Tensor, "draws n c n c"]:
    """F over the adapters at B = 0 for α = r: Σ over layers of ⟨G_n Aᵀ, G_m Aᵀ⟩.

    Args:
        gradients: As ``layer_gradients`` returns them.
        draws: A of each layer.
        samples: N.

    Returns:
        One kernel for each draw, not scaled by (α/r)².
    """
    kernels: list[Tensor] = []
    for layer, parts in gradients.items():
        (_, first), *_ = parts
        i, classes, o = first.inputs.shape[2], *first.grads.shape[2:]
        jacobian = first.inputs.new_zeros(samples, classes, o, i)
        for numbers, record in parts:
            jacobian[numbers] = torch.einsum("nti,ntco->ncoi", record.inputs, record.grads)
        for number, matrices in enumerate(draws):
            down = (jacobian @ matrices[layer].to(jacobian).T).view(samples * classes, -1)
            if len(kernels) <= number:
                kernels.append(down.new_zeros(len(down), len(down)))
            kernels[number].addmm_(down, down.T)
    return torch.stack(kernels).view(len(draws), samples, classes, samples, classes)


def measure_scaling(
    model: nn.Module,
    inputs: Any,
    *,
    ranks: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    draws: int = 5,
    seed: int = 0,
    alpha: float = 8.0,
    targets: Sequence[str] = (),
    epsilons: Sequence[float] = (0.1, 0.25, 0.5),
    precision: str = "float32",
    progress: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare F_LoRA / ((α/r)² σ² r) with F of fine-tuning the adapted weights.

    Args:
        model: The classifier, with its head made; it is not changed.
        inputs: The samples, as for ``compute_ntk``.
        ranks: r.
        draws: Draws of A for each rank.
        seed: Of the draws; every rank and draw has its own, independent of the others.
        alpha: α.
        targets: Names of the layers to adapt; none takes peft's choice.
        epsilons: Relative errors up to which entries count as close.
        precision: ``float32`` or ``float64``.
        progress: Whether to show progress bars.

    Returns:
        A row for each rank and draw, and a summary, both as the command writes them.

    Raises:
        InputError: Bad inputs, layers that LoRA cannot adapt, or whose inputs differ in width.
    """
    head = Classifier.of(model, inputs).head
    table: list[dict[str, Any]] = []
    drawn: list[dict[str, Tensor]] = []
    for rank in ranks:
        for draw in range(draws):
            number = int(np.random.SeedSequence([seed, rank, draw]).generate_state(1)[0])
            drawn.append(adapter_matrices(adapted(model, head, rank, alpha, targets, number)))
            table.append({"rank": rank, "draw": draw, "seed": number})
    layers = list(drawn[0])
    width = drawn[0][layers[0]].shape[1]
    variance = 1 / (3 * width)  # of Kaiming's uniform distribution as peft has it, on ±1/√width
    exact = _ft_kernel(model, inputs, layers, precision)
    gradients = layer_gradients(model, inputs, layers, precision)
    kernels = lora_kernels(gradients, drawn, len(exact)).cpu().double()
    checks: dict[str, float] = {}
    for row, kernel in zip(tqdm(table, desc="LoRA kernels", delay=1, disable=not progress), kernels, strict=True):
        rank = row["rank"]
        if row["draw"] == 0 and rank in (min(ranks), max(ranks)):
            checks[str(rank)] = _check(adapted(model, head, rank, alpha, targets, row["seed"]), inputs,
                                       kernel * (alpha / rank) ** 2, precision)  # fmt: skip
        kernel /= variance * rank
        row |= compare(kernel, exact, epsilons)
    frame = pd.DataFrame(table)
    entries = torch.cat([torch.cat([matrix.flatten() for matrix in matrices.values()]) for matrices in drawn])
    means = [
        _of_rank(frame, rank, kernels[frame["rank"].to_numpy() == rank].mean(0), exact, epsilons) for rank in ranks
    ]
    errors = [row["relative_error"]["mean"] for row in means]
    slope = float(np.polyfit(np.log(ranks), np.log(errors), 1)[0]) if len(ranks) > 1 else None
    return frame, {
        "samples": exact.shape[0],
        "classes": exact.shape[1],
        "layers": layers,
        "input_width": width,
        "lora_alpha": alpha,
        "variance": {"expected": variance, "drawn": float(entries.double().square().mean())},
        "ft_frobenius_norm": float(exact.norm()),
        "slope": slope,
        "slope_expected": -0.5,
        "difference_to_adapted_model": checks,
        "smallest_rank_of_a_bound": {
            f"{e:g}": math.floor(4 * math.log(4) / (e**2 - e**3)) + 1 for e in epsilons
        },
        "ranks": means,
    }  # fmt: skip


def _ft_kernel(model: nn.Module, inputs: Any, layers: Sequence[str], precision: str) -> Float[Tensor, "n c n c"]:
    """F of fine-tuning the layers' weights alone."""
    alone, weights = copy.deepcopy(model), {f"{layer}.weight" for layer in layers}
    for name, parameter in alone.named_parameters():
        parameter.requires_grad_(name in weights)
    return compute_ntk(alone, inputs, groups=False, precision=precision).ft_effective.double()


def _check(model: nn.Module, inputs: Any, kernel: Float[Tensor, "n c n c"], precision: str) -> float:
    """Compare a kernel with that of an adapted model.

    Raises:
        RuntimeError: They differ by more than rounding.
    """
    expected = compute_ntk(model, inputs, groups=False, precision=precision).ft_effective.double()
    difference = float((kernel - expected).norm() / expected.norm())
    if not difference < resolve_precision(precision, torch.device("cpu")).tolerance:
        raise RuntimeError(f"F of LoRA differs from the adapted model's by {difference:.1e}")
    return difference


def compare(
    kernel: Float[Tensor, "n c n c"], exact: Float[Tensor, "n c n c"], epsilons: Sequence[float]
) -> dict[str, float]:
    """Measure how far a rescaled F_LoRA is from F_FT.

    Returns:
        ``relative_error`` in the Frobenius norm, ``norm_ratio``, ``trace_ratio``, and for each ε the share of entries
        K̂_ab with |K̂_ab − K_ab| ≤ ε |K_ab| (``share_within_ε``), and ≤ ε (K_aa K_bb)^½ (``share_of_norms_within_ε``).
    """
    size = exact.shape[0] * exact.shape[1]
    estimate, true = kernel.reshape(size, size), exact.reshape(size, size)
    error = (estimate - true).abs()
    norms = true.diagonal().clamp_min(0).sqrt()
    result = {
        "relative_error": float(error.norm() / true.norm()),
        "norm_ratio": float(estimate.norm() / true.norm()),
        "trace_ratio": float(estimate.trace() / true.trace()),
    }
    for e in epsilons:
        result[f"share_within_{e:g}"] = float((error <= e * true.abs()).double().mean())
        result[f"share_of_norms_within_{e:g}"] = float((error <= e * torch.outer(norms, norms)).double().mean())
    return result


def _of_rank(table: pd.DataFrame, rank: int, mean: Tensor, exact: Tensor, epsilons: Sequence[float]) -> dict[str, Any]:
    rows = table[table["rank"] == rank]
    columns = [name for name in table.columns if name not in ("rank", "draw", "seed")]
    return {
        "rank": rank,
        "draws": len(rows),
        "error_times_sqrt_rank": float(rows["relative_error"].mean() * math.sqrt(rank)),
        "error_of_mean_kernel": float((mean - exact).norm() / exact.norm()),
        "bound": {f"{e:g}": bound(e, rank) for e in epsilons},
        **{
            name: {"mean": float(rows[name].mean()), "std": float(rows[name].std(ddof=1)) if len(rows) > 1 else None}
            for name in columns
        },
    }


def run_scaling(options: ScalingOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the data or the model.
    """
    run = ScalingRun(options.folder_for("lora-scaling"))
    start, samples = start_of(options)
    stored = stored_options(options)
    with run.opened(overwrite=options.overwrite, inputs=inputs_of(options), options=stored):
        model = build_classifier(start, samples).classifier.module
        config = config_of(options, samples, model)
        if is_done(run, config, overwrite=options.overwrite):
            return run.path
        table, summary = measure_scaling(
            model,
            samples.train,
            ranks=options.ranks,
            draws=options.draws,
            seed=options.seed,
            alpha=options.lora_alpha,
            targets=options.lora_targets,
            epsilons=options.epsilons,
            precision=options.precision,
            progress=True,
        )
        show(summary, options.epsilons)
        write_results(run, config, table, summary)
    return run.path


def show(summary: Mapping[str, Any], epsilons: Sequence[float]) -> None:
    """Print a line for each rank."""
    names = "".join(f"{f'within {e:g}':>14}{'bound':>8}" for e in epsilons)
    print(f"\n{'rank':>4}{'relative error':>20}{'· √r':>8}{'norm ratio':>12}{names}")
    for row in summary["ranks"]:
        error = row["relative_error"]
        said = f"{error['mean']:.3f}" + ("" if error["std"] is None else f" ± {error['std']:.3f}")
        shares = "".join(f"{row[f'share_within_{e:g}']['mean']:>14.1%}{row['bound'][f'{e:g}']:>8.1%}" for e in epsilons)
        print(
            f"{row['rank']:>4}{said:>20}{row['error_times_sqrt_rank']:>8.3f}{row['norm_ratio']['mean']:>12.4f}{shares}"
        )
    if summary["slope"] is not None:
        print(f"The error falls like r^{summary['slope']:.2f}; the theory says r^-0.5.")
    print("Shares are those of kernel entries within a relative ε; a bound of 0 says nothing.")
