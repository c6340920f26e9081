"""Tables 2 and 9: statistics of P, F and P + F where each method's fine-tuning starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analysis.catalogue import item_of
from analysis.suite.results import Entry, Results
from analysis.tables.assemble import METHOD_ORDER, assemble
from analysis.tables.cells import Cell, Measure, Row
from analysis.tables.collect import Collected, Problems, collect, require_any
from analysis.tables.reference import paper_number
from analysis.tables.table import Table

Statistics = Mapping[str, Mapping[str, Any]]  # by the name of the kernel

RANK = Measure("rank", "rank", "count")
FROBENIUS = Measure("frobenius_norm", "Frobenius norm")
TRAIN = Measure("train_accuracy_pct", "train accuracy, %", "percent")
TEST = Measure("test_accuracy_pct", "test accuracy, %", "percent")
FT_RATIO = Measure("ft_ratio", "FT ratio", "ratio")
MEDIAN_RATIO = Measure("median_ft_ratio", "FT ratio, median over samples", "ratio")
OF_EVERY_KERNEL = (RANK, FROBENIUS, TRAIN, TEST)
MEASURES = (*OF_EVERY_KERNEL, FT_RATIO, MEDIAN_RATIO)

_SOURCE = {"train_accuracy_pct": "train_pair_accuracy", "test_accuracy_pct": "eval_pair_accuracy"}
_PAPER_NAMES = {"P": "P", "F": "F", "P+F": "NTK"}
_STARTS = tuple(method for method in METHOD_ORDER if method in ("ft", "lora", "lp-ft", "lp-lora"))
_SAME = 1e-3  # relative; P of one seed is computed anew for each method, by other batches


def read_statistics(entry: Entry) -> Statistics:
    """Read a kernel's statistics.

    Raises:
        InputError: The file is missing or damaged.
        KeyError: It has no statistics of P, F or P+F.
    """
    rows = entry.run.summary()["statistics"]
    by_kernel = {str(row["kernel"]): row for row in rows}
    return {name: by_kernel[name] for name in _PAPER_NAMES}


def table2(results: Results) -> Table:
    """Make the table of rank, Frobenius norm, accuracies of the kernel classifier and FT ratio.

    The paper's FT ratio is a mean over samples, which one sample at which P and F nearly cancel may carry away; the
    median stands beside it.
    """
    item, problems = item_of("table2"), Problems()
    kernels = collect(results, "kernel", read_statistics, problems)
    require_any(results, item, [kernels], problems)
    rows = []
    for dataset in results.datasets:
        _note_unconverged(kernels, dataset)
        rows.append(Row((dataset, "", "P"), _shared_cells(kernels, dataset)))
        for method in _STARTS:
            for kernel in ("F", "P+F"):
                shown = MEASURES if kernel == "F" else OF_EVERY_KERNEL
                cells = {measure.name: _cell(kernels, dataset, method, kernel, measure) for measure in shown}
                rows.append(Row((dataset, method, kernel), cells))
    says = (
        "P depends on features and samples alone and is shared by all methods. Accuracies of the kernel classifier are "
        f"per (sample, class), as the paper has them: {_base_rates(kernels)}. Word embeddings are included exactly "
        "(the published code samples a tenth of them)."
    )
    return assemble(results, item, ("dataset", "method", "kernel"), MEASURES, rows, says, problems)


def _cell(kernels: Collected[Statistics], dataset: str, method: str, kernel: str, measure: Measure) -> Cell:
    paper = paper_number("table2", measure.name, dataset, method, _PAPER_NAMES[kernel])
    return kernels.cell(dataset, method, _name(measure, kernel), _picker(kernel, measure), paper)


def _name(measure: Measure, kernel: str) -> str:
    return f"{measure.header.removesuffix(', %')} of {kernel}"


def _picker(kernel: str, measure: Measure) -> Any:
    source = _SOURCE.get(measure.name, measure.name)
    factor = 100 if measure.name in _SOURCE else 1
    return lambda statistics: factor * float(statistics[kernel][source])


def _shared_cells(kernels: Collected[Statistics], dataset: str) -> dict[str, Cell]:
    """Make the cells of P: of each seed from the first method that has it, after a look at whether the others agree."""
    asked = kernels.asked(dataset, _STARTS)
    cells = {}
    for measure in OF_EVERY_KERNEL:
        values: dict[int, float] = {}
        for method in _STARTS:
            for seed, value in kernels.numbers(dataset, method, _name(measure, "P"), _picker("P", measure)).items():
                known = values.setdefault(seed, value)
                # Ranks and fitted classifiers may turn on rounding; norms may not.
                if measure is FROBENIUS and not math.isclose(known, value, rel_tol=_SAME):
                    entry = kernels.entries[dataset, method][seed]
                    kernels.problems.note(
                        entry, f"its P differs from that of another method ({value:.3g}, {known:.3g})"
                    )
        paper = paper_number("table2", measure.name, dataset, "", "P")
        cells[measure.name] = Cell(dict(sorted(values.items())), asked, paper)
    return cells


def _note_unconverged(kernels: Collected[Statistics], dataset: str) -> None:
    for method in _STARTS:
        for seed, statistics in kernels.contents.get((dataset, method), {}).items():
            names = [kernel for kernel, row in statistics.items() if row.get("unconverged_fits")]
            if names:
                entry = kernels.entries[dataset, method][seed]
                kernels.problems.note(
                    entry, f"the kernel classifier did not converge in every fit ({', '.join(names)})"
                )


def _base_rates(kernels: Collected[Statistics]) -> str:
    rates: dict[str, float] = {}
    for (dataset, _), contents in kernels.contents.items():
        for statistics in contents.values():
            rate = statistics["P"].get("pair_base_rate")
            if rate is not None:
                rates[dataset] = 100 * float(rate)
    if not rates:
        return "the base rate is (C − 1) / C"
    return "base rate " + ", ".join(f"{rate:.1f} % on {dataset}" for dataset, rate in rates.items())
