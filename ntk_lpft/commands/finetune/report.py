"""What the ``finetune`` command says of a run: the closing table, pictures, and the table over head scales."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from transformers import TrainingArguments

from ntk_lpft import pictures
from ntk_lpft.classifier.wrappers import unwrapped
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.text import text_table
from ntk_lpft.finetuning.methods import Start
from ntk_lpft.finetuning.settings import Method
from ntk_lpft.prediction import Comparison
from ntk_lpft.probing import LinearProbe
from ntk_lpft.probing.spread import describe_spread
from ntk_lpft.runs import FinetuneRun, HeadScaleGrid
from ntk_lpft.tasks import EncodedSplit


def describe(splits: Mapping[str, EncodedSplit]) -> str:
    """How many rows each split has."""
    return ", ".join(f"{len(split)} {name}" for name, split in splits.items())


def describe_start(options: FinetuneOptions, start: Start, arguments: TrainingArguments) -> str:
    """Say what is about to be trained, and how."""
    model = start.classifier.module
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kind = type(unwrapped(model)).__name__
    method = Method.of(options.method)
    lines = [f"model:  {options.model} ({kind}), {total / 1e6:.2f} million parameters"]
    if start.probe is not None:
        accuracies = ", ".join(f"{name} {value:.3f}" for name, value in start.probe.accuracies.items())
        norm = start.norms["norm_after_lp"]
        lines.append(f"probe:  {describe_solver(start.probe)}; accuracy {accuracies}; ‖V‖ {norm:.3f}")
        if "fold_draws" in start.probe.settings:
            lines.append(f"folds:  {describe_spread(start.probe.settings['fold_draws'])}")
    if method.trains:
        what = "adapters and head" if method.adapts else "body and head"
        lines.append(
            f"train:  {what}, {trained / 1e6:.2f} million parameters; {_length(arguments)} of batches of "
            f"{arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size}, learning "
            f"rate {arguments.learning_rate:g}, {_value(arguments.lr_scheduler_type)} schedule"
        )
    return "\n".join(lines)


def describe_solver(probe: LinearProbe) -> str:
    """Name the solver of a linear probe, the strength that it chose, and how near to the optimum it came."""
    facts = probe.settings
    if probe.path is not None:
        return probe.solver
    intercept = "" if facts["intercept"] else ", without intercept"
    return f"{probe.solver}, C = {facts['strength']:.3g}{intercept}, gradient norm {facts['gradient_norm']:.1g}"


def _length(arguments: TrainingArguments) -> str:
    if arguments.max_steps > 0:
        return f"{arguments.max_steps} steps"
    return f"{arguments.num_train_epochs:g} epoch{'' if arguments.num_train_epochs == 1 else 's'}"


def _value(name: Any) -> str:
    return str(getattr(name, "value", name))


def draw(run: FinetuneRun, method: str) -> None:
    """Draw what was tracked."""
    tracking = run.tracking()
    if tracking is None:
        return
    probed = not Method.of(method).trains
    pictures.save(pictures.training_curves(tracking, probed), run.file(run.TRAINING_PICTURE))
    for measure, name in (
        ("feature_difference", run.DIFFERENCE_PICTURE),
        ("fisher_discriminant_ratio", run.DISCRIMINANT_PICTURE),
    ):
        pictures.save(pictures.feature_curves(tracking, measure, probed), run.file(name))


def draw_comparison(run: FinetuneRun, comparison: Comparison) -> None:
    """Draw how far predictions of single steps, and of many, are from the real ones."""
    pictures.save(pictures.step_error_picture(comparison.one_step), run.file(run.ONE_STEP_PICTURE))
    flow = pictures.flow_picture(comparison.flow, comparison.rate_in_eigenvalues)
    pictures.save(flow, run.file(run.FLOW_PICTURE))


def show(run: FinetuneRun) -> None:
    """Print the closing table of a finished run, and where its files are."""
    print()
    print(closing_table(run.metrics()))
    print(f"\nResults in {run.path}: {', '.join(run.written())}")


_COLUMNS = {
    "rows": ("rows", "{:d}"),
    "accuracy": ("accuracy %", "{:.1%}"),
    "matthews": ("Matthews", "{:.3f}"),
    "loss": ("loss", "{:.3f}"),
    "ece": ("ECE %", "{:.1%}"),
    "cosine_similarity": ("CS", "{:.3f}"),
    "feature_difference": ("Diff", "{:.3g}"),
    "fisher_discriminant_ratio": ("FDR", "{:.3g}"),
}


_GRID_COLUMNS = ("accuracy", "feature_difference")


def closing_table(metrics: Mapping[str, Any]) -> str:
    """Lay out the table over splits, headed by method, data and head norm."""
    norms = metrics["head"]
    steps = [f"{norms['norm_before']:.3g}"]
    if "norm_after_lp" in norms:
        steps.append(f"{norms['norm_after_lp']:.3g} (LP)")
        drawn = [draw["head_norm"] for draw in metrics.get("probe", {}).get("fold_draws", [])]
        if len(drawn) > 1:
            steps[-1] = (
                f"{steps[-1][:-1]}; {min(drawn):.3g} to {max(drawn):.3g} over {len(drawn)} shuffles of its folds)"
            )
    start = norms["norm_at_start"]
    if abs(start - norms.get("norm_after_lp", norms["norm_before"])) > 1e-6 * start:
        steps.append(f"{start:.3g} (scaled)")
    if metrics["method"] != "lp":
        steps.append(f"{norms['norm_after']:.3g}")
    splits = metrics["splits"]
    shown = [name for name in _COLUMNS if any(name in row for row in splits.values())]
    header = ["split", *(_COLUMNS[name][0] for name in shown)]
    rows = [[split, *(_cell(name, row.get(name)) for name in shown)] for split, row in splits.items()]
    title = f"{metrics['method']} of {metrics['model']} on {metrics['dataset']}; head norm {' → '.join(steps)}"
    return f"{title}\n{text_table(header, rows)}"


def _cell(name: str, value: float | None) -> str:
    return "–" if value is None else _COLUMNS[name][1].format(value).rstrip("%")


def write_grid(grid: HeadScaleGrid, factors: Sequence[float]) -> None:
    """Put the runs of a grid over head scales together, as a table and a picture.

    Args:
        grid: The folder of the grid.
        factors: The factors on the head, each with a finished run, in the order of the rows.

    Raises:
        InputError: A run of the grid is not finished.
    """
    members = {factor: grid.member(factor).metrics() for factor in factors}
    table = pd.DataFrame(
        [
            {"head_scale": factor, **metrics["head"], "split": split, **measures}
            for factor, metrics in members.items()
            for split, measures in metrics["splits"].items()
        ]
    )
    grid.write_grid(table)
    pictures.save(pictures.head_scale_curves(table), grid.file(grid.PICTURE))
    grid.seal()
    last = members[factors[-1]]
    shown = [name for name in ("train", "test") if name in last["splits"]]
    columns = [(measure, name) for measure in _GRID_COLUMNS for name in shown]
    header = ["head scale", "‖V‖ at start", *(f"{name} {_COLUMNS[measure][0]}" for measure, name in columns)]
    rows = [
        [f"{factor:g}", f"{metrics['head']['norm_at_start']:.3g}"]
        + [_cell(measure, metrics["splits"][name][measure]) for measure, name in columns]
        for factor, metrics in members.items()
    ]
    print()
    print(f"{last['method']} of {last['model']} on {last['dataset']}")
    print(text_table(header, rows))
    print(f"\nResults in {grid.path}: {', '.join(grid.written())}, and a folder for each head scale")
