"""What the ``compute`` command says of a kernel: statistics, tables, pictures, files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Int
from torch import Tensor, nn

from ntk_lpft import pictures
from ntk_lpft.classifier.wrappers import unwrapped
from ntk_lpft.commands.text import text_table
from ntk_lpft.json_files import without_nan
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.probing.spread import describe_spread
from ntk_lpft.runs import KernelRun
from ntk_lpft.statistics import (
    KernelStatistics,
    block_trace_norms,
    frobenius_shares,
    initial_residual,
    kernel_spectrum,
    pretrain_effective_block_trace_norms,
    projection_shares,
    statistics_table,
    sum_spectrum,
    summarise,
    trace_shares,
)
from ntk_lpft.tasks import EncodedSplit


@dataclass(frozen=True)
class Results:
    """What was found.

    Attributes:
        statistics: One row each for P, F and P+F.
        rows: The same, with spectra; empty for reduced outputs.
        groups: One row for each parameter group of F.
        spectra: Singular values by kernel, for the picture.
    """

    statistics: pd.DataFrame
    rows: list[KernelStatistics]
    groups: pd.DataFrame
    spectra: dict[str, Any]


def describe(split: EncodedSplit) -> str:
    """Say how many samples there are, and how long they are."""
    longest = max(len(row["input_ids"]) for row in split.rows)
    cut = f", {split.n_truncated} cut" if split.n_truncated else ""
    return f"{len(split)} {split.name} samples (≤ {longest} tokens{cut})"


def describe_model(name: str, model: nn.Module) -> str:
    """Say what the model is, and how much of it is trained."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kind = type(unwrapped(model)).__name__
    return f"{name} ({kind}), {trained / 1e6:.2f} of {total / 1e6:.2f} million parameters trained"


def analyse(
    parts: Mapping[str, NTKDecomposition],
    labels: Int[Tensor, " n"],
    eval_labels: Int[Tensor, " m"],
    *,
    kernel_classifier: bool,
    max_iter: int,
) -> Results:
    """Compute the statistics of a train × train and an eval × train kernel.

    Args:
        parts: ``train`` and ``eval``.
        labels: Classes of the training samples.
        eval_labels: Classes of the evaluation samples.
        kernel_classifier: Whether to fit the paper's kernel classifier.
        max_iter: Most iterations of its fits.

    Returns:
        The statistics; for reduced outputs the spectra alone, as P and F then have no class blocks.
    """
    train, evaluation = parts["train"], parts["eval"]
    groups = _group_table(train)
    if train.outputs != "full":
        kernels = {"P": train.pretrain_effective, "F": train.ft_effective, "P+F": train.total}
        rounding = {"P": train.feature_rounding}
        spectra = {
            name: kernel_spectrum(kernel, computed_in=rounding.get(name, train.rounding))
            for name, kernel in kernels.items()
        }
        spectra["P+F"] = sum_spectrum(spectra["P+F"], spectra["P"], spectra["F"])
        columns = ("rank", "effective_rank", "frobenius_norm", "trace_norm", "trace", "smallest_eigenvalue",
                   "condition_number", "rank_tolerance")  # fmt: skip
        table = pd.DataFrame([{"kernel": name, **{c: getattr(s, c) for c in columns}} for name, s in spectra.items()])
        return Results(table, [], groups, spectra)
    rows = summarise(
        train.feature_kernel,
        train.reduced_ft_effective,
        labels,
        residual=initial_residual(train.row_logits, labels),
        eval_feature_kernel=evaluation.feature_kernel,
        eval_ft_effective=evaluation.reduced_ft_effective,
        eval_labels=eval_labels,
        head_basis=train.head_basis,
        computed_in=train.rounding,
        features_computed_in=train.feature_rounding,
        kernel_classifier=kernel_classifier,
        max_iter=max_iter,
        progress=True,
    )
    return Results(statistics_table(rows), rows, groups, {row.kernel: row.spectrum for row in rows})


def _group_table(ntk: NTKDecomposition) -> pd.DataFrame:
    groups = ntk.reduced_ft_groups  # their shares are those of the expanded ones
    columns = ["group", "parameters", "trace_share", "projection_share", "frobenius_share"]
    if not groups or not float(ntk.reduced_ft_effective.abs().max()) > 0:
        return pd.DataFrame(columns=columns)
    by_trace, by_projection, by_norm = trace_shares(groups), projection_shares(groups), frobenius_shares(groups)
    return pd.DataFrame(
        [
            [name, len(ntk.parameter_groups[name]), by_trace[name], by_projection[name], by_norm[name]]
            for name in groups
        ],
        columns=columns,
    )


def write(
    run: KernelRun,
    results: Results,
    parts: Mapping[str, NTKDecomposition],
    labels: Int[Tensor, " n"],
    label_names: Sequence[str],
    head_norm: float,
    probe: Mapping[str, Any] | None,
) -> None:
    """Write tables, summary and pictures of a run."""
    train = parts["train"]
    pictures.save(pictures.singular_values(results.spectra), run.file(run.SINGULAR_VALUES))
    if train.outputs == "full":
        p = pretrain_effective_block_trace_norms(train.feature_kernel, train.num_labels)
        f = block_trace_norms(train.ft_effective)
        pictures.save(pictures.block_heat_maps(p, f, labels, label_names), run.file(run.BLOCK_NORMS))
    if len(results.groups):
        shares = dict(zip(results.groups["group"], results.groups["trace_share"], strict=True))
        pictures.save(pictures.group_shares(shares), run.file(run.GROUP_SHARES))
    # Last, as the summary marks the run as complete.
    run.write_tables(
        results.statistics,
        results.groups,
        {
            "statistics": _records(results.statistics),
            "groups": _records(results.groups),
            "outputs": train.outputs,
            "divided_by": train.divisor,
            "samples": {"train": train.row_logits.shape[0], "eval": parts["eval"].row_logits.shape[0]},
            "num_labels": train.num_labels,
            "head_norm": head_norm,
            "probe": probe,
            "accuracy": "pair accuracies are per (sample, class), as published; their base rate is (C - 1) / C",
            "kernel": without_nan(train.metadata),
        },
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain data; what is missing or infinite becomes null or text, as JSON has no such numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and pd.isna(value):
            return None
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            return str(value)
        return value.item() if hasattr(value, "item") else value

    return [{str(k): plain(v) for k, v in row.items()} for row in table.to_dict(orient="records")]


def show(run: KernelRun) -> None:
    """Print the table of a finished run, its largest groups, and where its files are."""
    statistics, groups, summary = run.statistics(), run.groups(), run.summary()
    probe = summary.get("probe")  # earlier versions have none
    print()
    print(_table_text(statistics))
    if "train_pair_accuracy" in statistics and statistics["train_pair_accuracy"].notna().any():
        base = 100 * (summary["num_labels"] - 1) / summary["num_labels"]
        print(f"Accuracies in %: per (sample, class) as published (base rate {base:.1f}), then per sample by argmax.")
    if probe is not None and len(probe["fold_draws"]) > 1:
        print(f"All but P follow V, which depends on chance. {describe_spread(probe['fold_draws'])}")
    print(_rank_note(statistics, summary["kernel"].get("rounding", {})))
    if summary["outputs"] != "full":
        print(
            f"Kernel of the {summary['outputs']} outputs, divided by C = {summary['divided_by']}; no class blocks to "
            "classify with."
        )
    if len(groups):
        largest = groups.sort_values("trace_share", ascending=False).head(5)
        shares = zip(largest["group"], largest["trace_share"], strict=True)
        listed = ", ".join(f"{group} {100 * share:.1f} %" for group, share in shares)
        print(f"Largest parameter groups of F, by share of its trace: {listed}")
    print(f"Results in {run.path}: {', '.join(run.written())}")


def _rank_note(table: pd.DataFrame, rounding: Mapping[str, str]) -> str:
    """Say what the ranks count."""
    limits = ", ".join(f"{row['kernel']} {row['rank_tolerance']:.1e}" for row in table.to_dict(orient="records"))
    rounded = " and ".join(dict.fromkeys(rounding.values()))
    return (
        f"Ranks count singular values above what rounding{f' to {rounded}' if rounded else ''} may leave: {limits}. "
        "P's is C times that of the features; P+F has at least that of P and of F."
    )


_COLUMNS = {
    "kernel": ("kernel", "{}"),
    "rank": ("rank", "{:.0f}"),
    "effective_rank": ("eff. rank", "{:.1f}"),
    "frobenius_norm": ("Frobenius", "{:.3g}"),
    "train_pair_accuracy": ("train pair", "{:.1%}"),
    "eval_pair_accuracy": ("eval pair", "{:.1%}"),
    "train_accuracy": ("train", "{:.1%}"),
    "eval_accuracy": ("eval", "{:.1%}"),
    "ft_ratio": ("FT ratio", "{:.4f}"),
    "median_ft_ratio": ("(median)", "{:.4f}"),
}


def _table_text(table: pd.DataFrame) -> str:
    """Lay the table out in the shape of the paper's table 2."""
    shown = [name for name in _COLUMNS if name in table and table[name].notna().any()]
    rows = [
        ["" if pd.isna(row[name]) else _COLUMNS[name][1].format(row[name]).rstrip("%") for name in shown]
        for row in table.to_dict(orient="records")
    ]
    return text_table([_COLUMNS[name][0] for name in shown], rows, left=0)
