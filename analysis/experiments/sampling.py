"""How far a random sample of the word embeddings' parameters is from their exact block of F.

``python -m analysis.experiments.embedding_sampling --model minilm --dataset cb``

The paper's published code (github.com/tom4649/lp-ft_ntk, ``training/kernel_trainer.py``) does not compute this block
exactly. It draws a tenth of the entries of the word-embedding matrix, uniformly and without replacement, and for every
sample anew a tenth of the entries of its feature; it takes the gradients of what the head makes of the drawn entries of
the feature, divides them by a tenth, multiplies them over the drawn parameters, and divides by a tenth again. Measured
here against the exact block, on the same draws of parameters, are three estimates:

``scaled``: only parameters are drawn, and the sum is divided by their share. Its expectation is the exact block.
``unscaled``: the same sum as it is. Its expectation is that share of the block.
``published``: parameters and entries of the feature are drawn, as above. Its expectation is the block only between
different samples; of a sample with itself, one draw of the feature meets itself, and adds what varies with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from analysis.experiments.embedding_estimates import draw_masks, draw_outputs, embedding_gradients, sampling_variance
from analysis.experiments.folders import SamplingRun
from analysis.experiments.options import SamplingOptions
from analysis.experiments.shared import config_of, is_done, start_of, write_results
from ntk_lpft.classifier.rows import token_table
from ntk_lpft.commands.compute.start import build_classifier
from ntk_lpft.commands.parsing import stored_options
from ntk_lpft.kernel import NTKDecomposition, compute_ntk
from ntk_lpft.kernel.precision import resolve_precision
from ntk_lpft.options import inputs_of
from ntk_lpft.statistics import (
    ft_ratio,
    initial_residual,
    kernel_spectrum,
    pretrain_effective,
    pretrain_effective_spectrum,
    sum_spectrum,
)
from ntk_lpft.tasks import EncodedSplit

PUBLISHED = "published"
_CHECKED = 4  # rows on which gradients are compared with the kernel engine


def table_statistics(
    ntk: NTKDecomposition, ft_effective: Float[Tensor, "n c n c"], labels: Int[Tensor, " n"]
) -> dict[str, float]:
    """State what the paper's table 2 says of F and P + F, with another F than the exact one."""
    k, classes = ntk.feature_kernel, ft_effective.shape[1]
    both = pretrain_effective(k, classes).double() + ft_effective
    of_f, of_both = (
        kernel_spectrum(kernel, symmetric=True, computed_in=ntk.rounding) for kernel in (ft_effective, both)
    )
    of_p = pretrain_effective_spectrum(k, classes, symmetric=True, computed_in=ntk.feature_rounding)
    of_both = sum_spectrum(of_both, of_p, of_f)
    return {
        "f_rank": of_f.rank,
        "f_frobenius_norm": of_f.frobenius_norm,
        "f_ft_ratio": ft_ratio(k, ft_effective, initial_residual(ntk.row_logits, labels)),
        "pf_rank": of_both.rank,
        "pf_frobenius_norm": of_both.frobenius_norm,
    }


def _distance(block: Float[Tensor, "n c n c"], exact: Float[Tensor, "n c n c"], whole: float) -> dict[str, float]:
    """Measure one estimate of the block; ``whole`` is ‖F‖."""
    same = torch.eye(len(exact), dtype=torch.bool)[:, None, :, None].expand_as(exact)
    error = float((block - exact).norm())
    return {
        "relative_error": error / float(exact.norm()),
        "projection": _projection(block, exact),
        "projection_same_sample": _projection(block[same], exact[same]),
        "projection_other_samples": _projection(block[~same], exact[~same]),
        "relative_error_f": error / whole,
    }


def _projection(block: Tensor, exact: Tensor) -> float:
    """⟨K̂, K⟩ / ⟨K, K⟩, whose expectation is 1 where K̂ has no bias."""
    return float((block * exact).sum() / exact.square().sum())


def measure_sampling(
    model: nn.Module,
    inputs: EncodedSplit,
    *,
    fraction: float = 0.1,
    draws: int = 100,
    published_draws: int = 2,
    seed: int = 0,
    precision: str = "float32",
    device: str | None = None,
    progress: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare estimates of F's word-embedding block with the exact one.

    Args:
        model: The classifier; it is not changed.
        inputs: The samples, with labels.
        fraction: Share of parameters, and of the feature's entries, that is drawn.
        draws: Draws of parameters.
        published_draws: How many of them are joined by draws of the feature.
        seed: Of the draws.
        precision: ``float32`` or ``float64``.
        device: A torch device; None takes the one the model is on.
        progress: Whether to show progress bars.

    Returns:
        A row for each draw and estimate, and a summary, both as the command writes them.

    Raises:
        InputError: Bad inputs, or a model whose word embeddings are not one table that is looked up.
    """
    gradients = embedding_gradients(model, inputs, precision=precision, device=device)
    exact = gradients.block().cpu().double()
    check = _engine_difference(model, inputs, exact, precision, device)
    ntk = compute_ntk(model, inputs, groups=False, precision=precision, device=device, progress=progress)
    labels, ft = torch.from_numpy(inputs.labels.copy()), ntk.ft_effective.double()
    sampled = max(1, int(gradients.entries * fraction))
    masks = draw_masks(gradients.present, gradients.entries, sampled, draws, np.random.default_rng([seed, 0]))
    unscaled = gradients.sampled_blocks(masks).cpu().double()
    estimates = {"scaled": unscaled * (gradients.entries / sampled), "unscaled": unscaled}
    rng, published = np.random.default_rng([seed, 1]), []
    for mask in tqdm(masks[:published_draws], desc="draws of the feature", delay=1, disable=not progress):
        weights = draw_outputs(len(inputs), gradients.width, fraction, rng)
        drawn = embedding_gradients(model, inputs, precision=precision, device=device, output_weights=weights)
        published.append(drawn.sampled_blocks(mask[None])[0].cpu().double() / fraction)
    estimates[PUBLISHED] = torch.stack(published)
    rows = [
        {
            "draw": draw,
            "estimate": name,
            "sampled_present": int(masks[draw].sum()),
            **_distance(block, exact, float(ft.norm())),
            **table_statistics(ntk, ft + (block - exact), labels),
        }
        for name, blocks in estimates.items()
        for draw, block in enumerate(tqdm(blocks, desc=f"statistics, {name}", delay=1, disable=not progress))
    ]
    table = pd.DataFrame(rows)
    variance = sampling_variance(exact, gradients.block(2).cpu(), gradients.entries, sampled)
    spread = float(variance.sum().sqrt() / exact.norm())
    share = sampled / gradients.entries
    summary = {
        "samples": len(inputs),
        "classes": exact.shape[1],
        "parameters": gradients.entries,
        "parameters_of_present_tokens": gradients.present[0] * gradients.present[1],
        "sampled_parameters": sampled,
        "exact": {
            "block_frobenius_norm": float(exact.norm()),
            "block_share_of_trace": float(_trace(exact) / _trace(ft)),
            "block_share_of_frobenius_norm": float(exact.norm() / ft.norm()),
            "difference_to_kernel_engine": check,
            **table_statistics(ntk, ft, labels),
        },
        "expected": {
            "scaled": {"bias": 0.0, "std": spread},
            "unscaled": {"bias": 1 - share, "std": spread * share},
        },
        "measured": {
            name: _summary(blocks, exact, table[table.estimate == name]) for name, blocks in estimates.items()
        },
    }
    return table, summary


def _trace(kernel: Float[Tensor, "n c n c"]) -> Float[Tensor, ""]:
    return torch.einsum("ncnc->", kernel)


def _engine_difference(
    model: nn.Module, inputs: EncodedSplit, exact: Tensor, precision: str, device: str | None
) -> float:
    """Compare the block of the first samples with what the kernel engine makes of the table alone.

    Raises:
        RuntimeError: They differ by more than rounding.
    """
    alone = copy.deepcopy(model)
    table = token_table(alone)
    for parameter in alone.parameters():
        parameter.requires_grad_(table is not None and parameter is table.weight)
    few = min(_CHECKED, len(inputs))
    of_engine = compute_ntk(alone, inputs[:few], groups=False, precision=precision, device=device).ft_effective.double()
    part = exact[:few, :, :few]
    difference = float((part - of_engine).norm() / of_engine.norm())
    if not difference < resolve_precision(precision, torch.device("cpu")).tolerance:
        raise RuntimeError(f"the word-embedding block differs from the kernel engine's by {difference:.1e}")
    return difference


def _summary(blocks: Float[Tensor, "draws n c n c"], exact: Tensor, table: pd.DataFrame) -> dict[str, Any]:
    """Bias and spread of an estimate, relative to ‖K‖, and the mean and spread of everything measured of it."""
    count, mean = len(blocks), blocks.mean(0)
    std = float(((blocks - mean).square().sum() / (count - 1)).sqrt() / exact.norm()) if count > 1 else None
    columns = [name for name in table.columns if name not in ("draw", "estimate")]
    return {
        "draws": count,
        "bias": float((mean - exact).norm() / exact.norm()),
        "bias_of_chance": None if std is None else std / count**0.5,
        "std": std,
        **{
            name: {"mean": float(table[name].mean()), "std": float(table[name].std(ddof=1)) if count > 1 else None}
            for name in columns
        },
    }


def run_sampling(options: SamplingOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the data or the model.
    """
    run = SamplingRun(options.folder_for("embedding-sampling", options.head_init))
    start, samples = start_of(options)
    stored = stored_options(options)
    with run.opened(overwrite=options.overwrite, inputs=inputs_of(options), options=stored):
        model = build_classifier(start, samples).classifier.module
        config = config_of(options, samples, model)
        if is_done(run, config, overwrite=options.overwrite):
            return run.path
        table, summary = measure_sampling(
            model,
            samples.train,
            fraction=options.fraction,
            draws=options.draws,
            published_draws=options.published_draws,
            seed=options.seed,
            precision=options.precision,
            progress=True,
        )
        show(summary)
        write_results(run, config, table, summary)
    return run.path


def show(summary: Mapping[str, Any]) -> None:
    """Print the exact block beside its estimates."""
    exact, measured = summary["exact"], summary["measured"]
    print(
        f"\nWord-embedding block: {100 * exact['block_share_of_trace']:.2f} % of F's trace; "
        f"{summary['sampled_parameters']} of {summary['parameters']} parameters are drawn"
    )
    print(f"{'':27}{'exact':>12}" + "".join(f"{name:>24}" for name in measured))
    for name in ("relative_error", "projection", "projection_same_sample", "projection_other_samples",
                 "relative_error_f", "f_rank", "f_frobenius_norm", "f_ft_ratio", "pf_rank",
                 "pf_frobenius_norm"):  # fmt: skip
        ideal = exact.get(name, 1.0 if name.startswith("projection") else 0.0)
        cells = [part[name] for part in measured.values()]
        shown = (f"{c['mean']:.5g}" + ("" if c["std"] is None else f" ± {c['std']:.2g}") for c in cells)
        print(f"{name:27}{ideal:>12.5g}" + "".join(f"{cell:>24}" for cell in shown))
    for name, part in measured.items():
        said = summary["expected"].get(name)
        theory = "" if said is None else f"; in theory {said['bias']:.3g} and {said['std']:.3g}"
        std = "" if part["std"] is None else f", standard deviation {part['std']:.3g}"
        chance = "" if part["std"] is None else f" (by chance {part['bias_of_chance']:.2g})"
        print(f"{name}: bias of the mean of {part['draws']} draws {part['bias']:.3g}{chance}{std}{theory}")
