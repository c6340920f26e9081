"""What the ``calibrate`` command says: tables over splits, runs and methods, pictures, files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ntk_lpft import pictures
from ntk_lpft.calibration import Bins, Estimate, Evaluation, TemperatureFit, pooled_bins
from ntk_lpft.commands.calibrate.inputs import FIT_SPLIT, PredictedRun
from ntk_lpft.commands.text import text_table
from ntk_lpft.file_names import file_name
from ntk_lpft.runs import CalibrationRun

_GROUP_COLUMNS = ["dataset", "model", "method"]
_DRAWN = 10_000  # samples of a curve


@dataclass(frozen=True)
class Calibrated:
    """One run with its temperature, and how good it is with and without.

    Attributes:
        run: The run.
        fit: Its temperature.
        evaluations: By split, then by stage: ``before``, ``after``, and ``vector`` and ``isotonic`` if compared.
        by_chance: By split, then by stage ``before`` or ``after``: errors of a calibrated classifier; may be empty.
        bins: By split: what reliability diagrams show, before and after.
        warnings: What is to be said of the fits.
    """

    run: PredictedRun
    fit: TemperatureFit
    evaluations: Mapping[str, Mapping[str, Evaluation]]
    by_chance: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    bins: Mapping[str, tuple[Bins, Bins]]
    warnings: Sequence[str]

    @property
    def norm(self) -> float:
        """‖V‖ after training; NaN if not known."""
        return self.run.norms.get("norm_after", np.nan)

    def identity(self) -> dict[str, Any]:
        """Return what names the run in tables."""
        run = self.run
        return {"run": run.name, "dataset": run.dataset, "model": run.model, "method": run.method, "seed": run.seed}


def tidy(calibrated: Sequence[Calibrated]) -> pd.DataFrame:
    """Make one row for each run, split, stage and measure.

    Args:
        calibrated: The runs, each evaluated before and after scaling.

    Returns:
        Columns ``run``, ``dataset``, ``model``, ``method``, ``seed``, ``split``, ``n``, ``stage`` (the stages, and
        ``change`` for after less before), ``measure``, ``value``, ``low`` and ``high``.
    """
    rows = []
    for each in calibrated:
        for split, stages in each.evaluations.items():
            known = {stage: evaluation.estimates() for stage, evaluation in stages.items()}
            known["change"] = stages["after"].change_from(stages["before"])
            for stage, chance in each.by_chance.get(split, {}).items():
                known[stage] |= {f"{name}_by_chance": estimate for name, estimate in chance.items()}
            head = {**each.identity(), "split": split, "n": each.run.splits[split].num_samples}
            rows += [
                {**head, "stage": stage, "measure": name, "value": e.value, "low": e.low, "high": e.high}
                for stage, estimates in known.items()
                for name, e in estimates.items()
            ]
    return pd.DataFrame(rows)


def paper_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Lay measures out in the shape of the paper's table of ECE and MCE, in percent.

    Args:
        measured: What `tidy` returns.

    Returns:
        One row for each data set, model, method and split: ``runs``, ``n``, and for accuracy, ECE and MCE, without and
        with scaling, the mean over runs, its standard deviation (``_std``; of a sample, NaN for one run), and the ends
        of the interval (``_low``, ``_high``) where there is one run.
    """
    wanted = [("accuracy", "before", "accuracy_pct")]
    for measure in ("ece", "mce"):
        wanted += [(measure, "before", f"{measure}_pct"), (measure, "after", f"{measure}_scaled_pct")]
    wanted += [("ece_by_chance", "before", "ece_by_chance_pct"), ("ece_by_chance", "after", "ece_by_chance_scaled_pct")]
    rows = []
    for key, group in measured.groupby([*_GROUP_COLUMNS, "split"], sort=False):
        runs = group["run"].nunique()
        row: dict[str, Any] = dict(zip([*_GROUP_COLUMNS, "split"], key, strict=True))
        row |= {"runs": runs, "n": group["n"].iloc[0] if group["n"].nunique() == 1 else None}
        for measure, stage, name in wanted:
            chosen = group[(group["measure"] == measure) & (group["stage"] == stage)]
            row[name] = 100 * chosen["value"].mean()
            row[f"{name}_std"] = 100 * chosen["value"].std()
            for end in ("low", "high"):
                row[f"{name}_{end}"] = 100 * chosen[end].iloc[0] if len(chosen) == 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def head_norms(calibrated: Sequence[Calibrated]) -> pd.DataFrame:
    """Make one row for each run: ‖V‖ before and after training, T, and the effective norm ‖V‖/T."""
    return pd.DataFrame(
        [
            {
                **each.identity(),
                **{name: each.run.norms.get(name, np.nan) for name in ("norm_before", "norm_after_lp", "norm_after")},
                "temperature": each.fit.temperature,
                "effective_norm": each.norm / each.fit.temperature,
                "nll_before": each.fit.nll_before,
                "nll_after": each.fit.nll_after,
                "at_bound": each.fit.at_bound,
            }
            for each in calibrated
        ]
    )


def picture_names(runs: Sequence[PredictedRun]) -> dict[str, tuple[tuple[str, str, str], str]]:
    """Name the reliability diagrams: one for each group of runs and split, under its file's name."""
    names: dict[str, tuple[tuple[str, str, str], str]] = {}
    for run in runs:
        parts = [part for part in run.group if part] if len(runs) > 1 else []
        for split in run.splits:
            key = (run.group, split)
            if key not in names.values():  # runs of one group share a diagram
                names[file_name([CalibrationRun.RELIABILITY, *parts, split], ".png", names)] = key
    return names


def write(folder: CalibrationRun, calibrated: Sequence[Calibrated]) -> None:
    """Write tables, temperatures and pictures."""
    for name, (group, split) in picture_names([each.run for each in calibrated]).items():
        members = [each for each in calibrated if each.run.group == group and split in each.run.splits]
        pictures.save(_reliability(members, split), folder.file(name))
    pictures.save(_confidence(calibrated), folder.file(folder.NORM_PICTURE))
    folder.write_temperatures([_temperature(each) for each in calibrated])
    measured = tidy(calibrated)
    folder.write_tables(measured, paper_table(measured), head_norms(calibrated))


def _temperature(each: Calibrated) -> dict[str, Any]:
    return {
        "temperature": each.fit.temperature,
        "fitted_on": {"split": FIT_SPLIT, "samples": each.fit.num_samples, "classes": each.fit.num_classes},
        "nll_before": each.fit.nll_before,
        "nll_after": each.fit.nll_after,
        "slope": each.fit.slope,
        "at_bound": each.fit.at_bound,
        **each.identity(),
    }


def _reliability(members: Sequence[Calibrated], split: str) -> Any:
    before, after = (pooled_bins([each.bins[split][i] for each in members]) for i in (0, 1))
    low, high = (f"{end([each.fit.temperature for each in members]):.3g}" for end in (min, max))
    who = ", ".join(part for part in members[0].run.group if part)
    pooled = "" if len(members) == 1 else f"{len(members)} runs pooled, "
    heading = f"{who + ': ' if who else ''}{split} ({pooled}{before.counts.sum()} samples)"
    titles = (
        f"before scaling: ECE {100 * before.expected_error:.1f} %",
        f"after, T = {low if low == high else f'{low} to {high}'}: ECE {100 * after.expected_error:.1f} %",
    )
    return pictures.reliability_diagram(before, after, heading, titles)


def _confidence(calibrated: Sequence[Calibrated]) -> Any:
    """Draw runs along their curves, on the first split that all have and none was fitted on, if there is one."""
    common = [split for split in calibrated[0].run.reports if all(split in each.run.splits for each in calibrated)]
    split = common[0] if common else FIT_SPLIT
    known = all(np.isfinite(each.norm) and each.norm > 0 for each in calibrated)
    labels = _method_names(calibrated)
    curves = []
    for each, label in zip(calibrated, labels, strict=True):
        norm, temperature = each.norm if known else 1.0, each.fit.temperature
        margin = 10 if len(calibrated) == 1 else 1
        low, high = min(1, 1 / temperature) / margin, max(1, 1 / temperature) * margin
        factors = np.geomspace(low, high, 33 if len(calibrated) == 1 else 9)
        logits = each.run.splits[split].logits
        assert logits is not None
        stages = each.evaluations[split]
        curves.append(
            pictures.NormCurve(
                label,
                norm * factors,
                _mean_confidences(logits, factors),
                (norm, stages["before"].values["confidence"]),
                (norm / temperature, stages["after"].values["confidence"]),
                stages["before"].values["accuracy"],
            )
        )
    return pictures.confidence_against_head_norm(curves, norms_known=known, split=split)


def _method_names(calibrated: Sequence[Calibrated]) -> list[str]:
    """Name runs for a legend: by what differs, or by method alone where that makes too many names."""
    groups = [each.run.group for each in calibrated]
    differing = _split_names(groups)[1] or [2]
    names = [" ".join(group[i] for i in differing) for group in groups]
    return names if len(set(names)) <= pictures.MOST_CURVES else [each.run.method for each in calibrated]


def _mean_confidences(logits: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the mean top probability of softmax(βf) for each β; some samples and float32 are enough for a picture."""
    some = logits[:: -(-len(logits) // _DRAWN)]
    below_top = torch.from_numpy(some - some.max(axis=1, keepdims=True)).float()
    return np.array([float((1 / (beta * below_top).exp().sum(dim=1)).mean()) for beta in factors])


def show(folder: CalibrationRun, calibrated: Sequence[Calibrated], bins: int) -> None:
    """Print temperatures, the table, the comparison if there is one, what they mean, and where the files are."""
    measured = tidy(calibrated)
    shared, shown = _split_names([each.run.group for each in calibrated])
    print()
    if shared:
        print(", ".join(shared))
    print(_norm_text(calibrated, shown))
    print()
    print(_table_text(paper_table(measured), shown))
    if "vector" in set(measured["stage"]):
        print(f"\n{_comparison_text(measured, shown)}")
    for line in _notes(calibrated, bins):
        print(line)
    for each in calibrated:
        for line in each.warnings:
            print(f"warning: {each.run.name}: {line}")
    diagrams = len(picture_names([each.run for each in calibrated]))
    names = [*folder.RESULTS, f"{diagrams} × {folder.RELIABILITY}_*.png"]
    print(f"Results in {folder.path}: {', '.join(names)}")


def _notes(calibrated: Sequence[Calibrated], bins: int) -> list[str]:
    """Say what the numbers of the tables are, and nothing of numbers that they do not have."""
    runs = Counter(each.run.group for each in calibrated).values()
    lines = [f"In %, {bins} bins" + ("; mean ± standard deviation over runs." if max(runs) > 1 else ".")]
    if calibrated[0].by_chance:
        if min(runs) == 1:
            level = next(iter(next(iter(calibrated[0].evaluations.values())).values())).level
            lines.append(
                f"[{100 * level:g} % bootstrap intervals] of single runs: those of ECE and MCE take their upward bias "
                "back, so that a value may lie above its own; for MCE do not rely on them below some 3000 samples."
            )
        lines.append("by chance: the ECE that a calibrated classifier with these confidences would show, on average.")
    lines.append(
        f"T is fitted on validation{_sizes(calibrated)}: above 1 the classifier is overconfident there, below 1 "
        "underconfident."
    )
    return lines


def _sizes(calibrated: Sequence[Calibrated]) -> str:
    """Say how many samples and classes temperatures were fitted on."""
    counts = sorted({each.fit.num_samples for each in calibrated})
    classes = sorted({each.fit.num_classes for each in calibrated})
    n, c = (str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}" for values in (counts, classes))
    return f" (N = {n} samples, C = {c} classes)"


def _split_names(groups: Sequence[tuple[str, str, str]]) -> tuple[list[str], list[int]]:
    """Return the names that all groups share, and the places of those that differ."""
    differing = [i for i in range(3) if len({group[i] for group in groups}) > 1]
    return [groups[0][i] for i in range(3) if i not in differing and groups[0][i]], differing


def _spread(values: pd.Series, digits: str, spread: str = "") -> str:
    """Write a mean, with the standard deviation, in digits of its own if need be, where there are several."""
    if values.empty or values.isna().any():
        return ""
    text = f"{values.mean():{digits}}"
    if len(values) == 1 or np.isinf(values).any():
        return text
    # Equal values may differ from their mean in the last bit.
    deviation = 0.0 if values.nunique() == 1 else values.std()
    return f"{text} ± {deviation:{spread or digits}}"


def _norm_text(calibrated: Sequence[Calibrated], shown: Sequence[int]) -> str:
    columns = {"norm_before": "‖V‖ at first", "norm_after_lp": "‖V‖ after LP", "norm_after": "‖V‖ trained",
               "temperature": "T", "effective_norm": "‖V‖/T"}  # fmt: skip
    header, rows = [*(_GROUP_COLUMNS[i] for i in shown), "runs", *columns.values()], []
    for key, group in head_norms(calibrated).groupby(_GROUP_COLUMNS, sort=False):
        rows.append(
            [*(str(key[i]) for i in shown), str(len(group)), *(_spread(group[name], ".3g", "#.2g") for name in columns)]
        )
    return text_table(header, rows, len(shown))


def _table_text(table: pd.DataFrame, shown: Sequence[int]) -> str:
    """Lay out the table, without the split that was fitted on where there are others."""
    columns = {"accuracy_pct": "accuracy", "ece_pct": "ECE", "ece_by_chance_pct": "by chance",
               "ece_scaled_pct": "ECE scaled", "ece_by_chance_scaled_pct": "chance scaled", "mce_pct": "MCE",
               "mce_scaled_pct": "MCE scaled"}  # fmt: skip
    header, rows = [*(_GROUP_COLUMNS[i] for i in shown), "split", "n", *columns.values()], []
    others = table[table["split"] != FIT_SPLIT]
    for row in (others if len(others) else table).to_dict(orient="records"):
        split = f"{row['split']} (fitted on)" if row["split"] == FIT_SPLIT else str(row["split"])
        count = "" if pd.isna(row["n"]) else f"{row['n']:.0f}"
        names = [str(row[_GROUP_COLUMNS[i]]) for i in shown]
        rows.append([*names, split, count, *(_cell(row, name, "chance" not in name) for name in columns)])
    return text_table(header, rows, len(shown) + 1)


def _cell(row: Mapping[Any, Any], name: str, with_interval: bool) -> str:
    if pd.isna(row[name]):
        return ""
    text = f"{row[name]:.1f}"
    if not pd.isna(row[f"{name}_std"]):
        return f"{text} ± {row[f'{name}_std']:.1f}" if with_interval else text
    if not with_interval or pd.isna(row[f"{name}_low"]):
        return text
    return f"{text} [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]"


def _comparison_text(measured: pd.DataFrame, shown: Sequence[int]) -> str:
    """Compare ECE and accuracy of the calibrations; temperature scaling does not change accuracy."""
    wanted = [("ece", "before", "ECE"), ("ece", "after", "T"), ("ece", "vector", "vector"),
              ("ece", "isotonic", "isotonic"), ("accuracy", "before", "accuracy"), ("accuracy", "vector", "vector"),
              ("accuracy", "isotonic", "isotonic")]  # fmt: skip
    header, rows = [*(_GROUP_COLUMNS[i] for i in shown), "split", *(label for *_, label in wanted)], []
    for key, group in measured.groupby([*_GROUP_COLUMNS, "split"], sort=False):
        cells = [
            _spread(100 * group[(group["measure"] == measure) & (group["stage"] == stage)]["value"], ".1f")
            for measure, stage, _ in wanted
        ]
        if key[3] != FIT_SPLIT:
            rows.append([*(str(key[i]) for i in shown), str(key[3]), *cells])
    return text_table(header, rows, len(shown) + 1)
