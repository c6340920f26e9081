"""The two side experiments: a sampled word-embedding block of F, and F of LoRA against that of FT."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from analysis.catalogue import item_of
from analysis.suite.results import Entry, Results
from analysis.tables.assemble import assemble
from analysis.tables.cells import Cell, Measure, Row
from analysis.tables.collect import Collected, Problems, collect, require_any
from analysis.tables.table import Table

SAMPLED = (
    Measure("relative_error", "error of the block"),
    Measure("bias", "its bias"),
    Measure("relative_error_f", "error of F"),
    Measure("f_rank", "rank of F", "count"),
    Measure("f_frobenius_norm", "‖F‖"),
    Measure("f_ft_ratio", "FT ratio", "ratio"),
    Measure("pf_rank", "rank of P+F", "count"),
    Measure("pf_frobenius_norm", "‖P+F‖"),
)
EXACT = "exact"
Summary = Mapping[str, Any]
T = TypeVar("T")
_HEADS = {"ft": "random", "lp-ft": "lp"}


@dataclass(frozen=True)
class DrawnCell(Cell):
    """A number that is a mean over random draws within each seed.

    Attributes:
        spreads: Its standard deviation over the draws, by seed.
    """

    spreads: Mapping[int, float] = field(default_factory=dict)

    @property
    def std(self) -> float:
        """Standard deviation over draws, as a root mean square over seeds; NaN for an exact number."""
        spreads = [self.spreads[seed] for seed in self.values if seed in self.spreads]
        return float(np.sqrt(np.mean(np.square(spreads)))) if spreads else math.nan


def sampling(results: Results) -> Table:
    """Make the table of the word-embedding block and what it does to F, exact and from random draws."""
    item, problems = item_of("sampling"), Problems()
    collected = collect(results, "embedding_sampling", _read_sampling, problems)
    require_any(results, item, [collected], problems)
    rows = []
    for dataset in results.datasets:
        for method, head in _HEADS.items():
            names = [name for summary in collected.contents.get((dataset, method), {}).values()
                     for name in summary["measured"]]  # fmt: skip
            for estimate in (EXACT, *dict.fromkeys(names)):
                cells = {
                    each.name: _sampled_cell(collected, dataset, method, estimate, each)
                    for each in SAMPLED
                    if estimate != EXACT or each.name.startswith(("f_", "pf_"))
                }
                rows.append(Row((dataset, head, estimate), cells))
    says = (
        "Errors are Frobenius norms relative to the exact ones; bias: that of the mean over draws, not 0 by chance. "
        "scaled: a random share of the word embeddings' parameters, divided by that share; unscaled: not divided; "
        "published: entries of the feature are drawn as well, as the published code does. "
        f"{_describe_sampling(collected)}"
    )
    return assemble(results, item, ("dataset", "head", "estimate"), SAMPLED, rows, says, problems, spread="draws")


def _read_sampling(entry: Entry) -> Summary:
    """Read the experiment's summary.

    Raises:
        KeyError, TypeError: It is no such experiment's.
    """
    summary = entry.run.summary()
    _ = [summary[name] for name in ("samples", "parameters", "sampled_parameters")]
    _ = float(summary["exact"]["block_share_of_trace"]), [part["draws"] for part in summary["measured"].values()]
    return summary


def _sampled_cell(collected: Collected[Summary], dataset: str, method: str, estimate: str, measure: Measure) -> Cell:
    if estimate == EXACT:
        return collected.cell(dataset, method, measure.header, lambda summary: summary["exact"][measure.name])
    name = f"{measure.header} ({estimate})"
    return _drawn_cell(collected, dataset, method, name, lambda summary: summary["measured"][estimate][measure.name])


def _drawn_cell(collected: Collected[T], dataset: str, method: str, name: str, pick: Callable[[T], Any]) -> DrawnCell:
    """Make a cell of what is a number, or a mean and a standard deviation over draws."""
    means = collected.numbers(dataset, method, name, lambda content: _mean(pick(content)))
    picked = {seed: pick(collected.contents[dataset, method][seed]) for seed in means}
    spreads = {
        seed: float(value["std"])
        for seed, value in picked.items()
        if isinstance(value, Mapping) and value.get("std") is not None
    }
    return DrawnCell(means, collected.asked(dataset, method), None, spreads)


def _mean(value: Any) -> Any:
    return value["mean"] if isinstance(value, Mapping) else value


def _describe_sampling(collected: Collected[Summary]) -> str:
    """Say how many samples, draws and parameters there were, and what the block is of F."""
    parts = []
    for (dataset, method), contents in collected.contents.items():
        for summary in contents.values():
            draws = ", ".join(f"{part['draws']} {name}" for name, part in summary["measured"].items())
            share = 100 * summary["exact"]["block_share_of_trace"]
            parts.append(
                f"{dataset}, {_HEADS.get(method, method)} head: {summary['samples']} samples, "
                f"{summary['sampled_parameters']} of {summary['parameters']} parameters, draws: {draws}; the block is "
                f"{share:.2g} % of F's trace"
            )
    return ". ".join(dict.fromkeys(parts)) + "."


SCALED = (
    Measure("relative_error", "relative error"),
    Measure("error_times_sqrt_rank", "error · √r"),
    Measure("norm_ratio", "‖F_LoRA‖ rescaled / ‖F‖"),
    Measure("share_within_0.5", "entries within 50 %", "ratio"),
    Measure("bound_0.5", "bound on that", "ratio"),
)


def read_lora_scaling(entry: Entry) -> tuple[Sequence[float], Sequence[float]]:
    """Read how far F of LoRA, rescaled, is from F of the adapted weights.

    Returns:
        The ranks r, ascending, and the mean over draws of the relative error at each.

    Raises:
        KeyError: The summary is no such experiment's.
    """
    rows = sorted(_by_rank(entry).items())
    return [float(rank) for rank, _ in rows], [float(row["relative_error"]["mean"]) for _, row in rows]


def _by_rank(entry: Entry) -> Mapping[int, Summary]:
    return {int(row["rank"]): row for row in entry.run.summary()["ranks"]}


def lora(results: Results) -> Table:
    """Make the table of the error of F of LoRA, rescaled, by rank."""
    item, problems = item_of("lora"), Problems()
    collected: Collected[Mapping[int, Summary]] = collect(results, "lora_scaling", _by_rank, problems)
    require_any(results, item, [collected], problems)
    rows = []
    for (dataset, method), contents in collected.contents.items():
        for rank in sorted({rank for ranks in contents.values() for rank in ranks}):
            cells = {each.name: _scaling_cell(collected, dataset, method, rank, each) for each in SCALED}
            rows.append(Row((dataset, str(rank)), cells))
    says = (
        "F_LoRA at B = 0 is divided by (α/r)² σ² r, what its expectation is of F over the adapted weights. Errors are "
        "Frobenius norms relative to that F; times √r they stay about the same. The bound is the paper's, on the "
        "probability that one entry is within 50 %; 0 where it says nothing."
    )
    return assemble(results, item, ("dataset", "rank"), SCALED, rows, says, problems, spread="random draws of A")


def _scaling_cell(
    collected: Collected[Mapping[int, Summary]], dataset: str, method: str, rank: int, measure: Measure
) -> Cell:
    def pick(ranks: Mapping[int, Summary]) -> Any:
        if measure.name.startswith("bound_"):
            return ranks[rank]["bound"][measure.name.removeprefix("bound_")]
        return ranks[rank][measure.name]

    return _drawn_cell(collected, dataset, method, f"{measure.header} at rank {rank}", pick)
