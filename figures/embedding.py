"""Figures 5 and 6: features before and after training and the rows of the head, in a plane by t-SNE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from analysis.suite.results import Entry
from analysis.tables.collect import Collected
from figures.data import Request, sentences
from figures.style import CLASSES, GREY, METHODS, PAGE, TEXT, TINY, WIDTH, dress, house_style, legend_below, say_above
from ntk_lpft.errors import InputError
from ntk_lpft.pictures import drawn_name, empty_figure

PERPLEXITY = 30.0
SEED = 0
_ORDER = ("ft", "lp-ft", "lora", "lp-lora")
_OTHERS = "0.88"  # points of the other panels
_BEFORE = "Before"


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the same samples before and after a run, with heads.

    Attributes:
        before: φ₀, of shape (N, h).
        after: φ, of shape (N, h).
        labels: Classes, of shape (N,).
        head: V after training, of shape (C, h).
        start: V where fine-tuning began, of shape (C, h); None where it is not known.
        names: Of the classes.
    """

    before: Float[np.ndarray, "n h"]
    after: Float[np.ndarray, "n h"]
    labels: Int[np.ndarray, " n"]
    head: Float[np.ndarray, "c h"]
    start: Float[np.ndarray, "c h"] | None
    names: Sequence[str]


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel's places in the plane.

    Attributes:
        title: Of the panel.
        points: Of the samples, of shape (N, 2).
        heads: Rows of heads by name, each of shape (C, 2).
    """

    title: str
    points: Float64[np.ndarray, "n 2"]
    heads: Mapping[str, Float64[np.ndarray, "c 2"]]


def _read(request: Request) -> tuple[Request, Collected[Features]]:
    own = request.one_seed("features", _methods(request))
    collected = own.collect("features", _features, _methods(request))
    if not collected.contents:
        raise own.nothing()
    return own, collected


def _methods(request: Request) -> tuple[str, ...]:
    return _ORDER if request.every else ("ft", "lp-ft")


def _features(entry: Entry) -> Features:
    tensors, names = entry.run.features(), entry.run.config()["label_names"]
    arrays = {name: tensor.to(torch.float64 if tensor.is_floating_point() else tensor.dtype).numpy()
              for name, tensor in tensors.items()}  # fmt: skip
    features = Features(
        arrays["pretrained_features"],
        arrays["features"],
        arrays["labels"],
        arrays["head_weight"],
        arrays.get("start_head_weight"),
        names,
    )
    if not all(np.isfinite(array).all() for array in (features.before, features.after, features.head)):
        raise InputError("its features are not finite: training diverged")
    return features


def runs_of(collected: Collected[Features], dataset: str) -> dict[str, Features]:
    """Return a data set's features by method: of the methods that have the samples of the first."""
    runs: dict[str, Features] = {}
    for method in _ORDER:
        for seed, features in collected.contents.get((dataset, method), {}).items():
            first = next(iter(runs.values()), features)
            if features.before.shape == first.before.shape and np.allclose(features.before, first.before, atol=1e-3):
                runs[method] = features
            else:
                collected.problems.note(collected.entries[dataset, method][seed], "has other samples than the others")
    return runs


def embed(runs: Mapping[str, Features]) -> list[Panel]:
    """Put the features before and after all runs, and the rows of their heads, into one plane by one t-SNE.

    The rows of V are embedded together with the features, as the paper does: as further points of the same space, by
    their Euclidean distance. One plane for all panels lets them be compared: t-SNE keeps neighbours together, so that
    features that hardly moved lie where they were.

    Source: van der Maaten and Hinton (2008), "Visualizing Data using t-SNE"; Tomihari and Sato (2024), the figures of
    features and head rows.

    Args:
        runs: By method; their features before training are the same.

    Returns:
        A panel of the features before, then one for each run after it.
    """
    first = next(iter(runs.values()))
    before: dict[str, np.ndarray] = {}
    for method, run in runs.items():
        name = "probed" if method.startswith("lp") else "random"
        if run.start is not None:
            before.setdefault(name, run.start)
    pieces = [("", _BEFORE, first.before), *(("", method, run.after) for method, run in runs.items())]
    pieces += [(name, _BEFORE, rows) for name, rows in before.items()]
    pieces += [("after", method, run.head) for method, run in runs.items()]
    # Features differ in late digits of large numbers, which distances would lose without their mean taken off.
    rows = np.concatenate([array for *_, array in pieces]) - first.before.mean(axis=0)
    plane = _tsne(rows)
    placed = np.split(plane, np.cumsum([len(array) for *_, array in pieces])[:-1])
    places = {(name, panel): points for (name, panel, _), points in zip(pieces, placed, strict=True)}
    panels = [Panel(_BEFORE, places["", _BEFORE], {name: places[name, _BEFORE] for name in before})]
    return panels + [Panel(f"After {METHODS[it].name}", places["", it], {"after": places["after", it]}) for it in runs]


def _tsne(rows: Float64[np.ndarray, "points h"]) -> Float64[np.ndarray, "points 2"]:
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    # One thread: the order in which threads sum up would change the picture.
    with threadpool_limits(1):
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=SEED, n_jobs=1)
        return tsne.fit_transform(rows).astype(np.float64)


def draw(request: Request) -> Figure:
    """Draw the figure.

    Raises:
        InputError: No job has results.
    """
    own, collected = _read(request)
    runs = {name: runs_of(collected, name) for name in own.datasets}
    runs = {name: by_method for name, by_method in runs.items() if by_method}
    methods = [method for method in _methods(request) if any(method in by_method for by_method in runs.values())]
    with house_style():
        size = min(WIDTH / (1 + len(methods)) + 0.1, (PAGE - 0.75) / len(runs))
        figure = empty_figure(WIDTH, len(runs) * size + 0.75)
        grid = figure.subplots(len(runs), 1 + len(methods), squeeze=False)
        for place, (dataset, by_method) in enumerate(runs.items()):
            row = grid[place].tolist()
            _row(row, embed(by_method), next(iter(by_method.values())), ["", *methods], list(by_method))
            if own.every:
                row[0].set_ylabel(drawn_name(dataset), fontsize=TEXT)
            for axes in row if place else []:
                axes.set_title("")
        _legend(figure, [next(iter(by_method.values())) for by_method in runs.values()])
        absent = [f"{name}: no {METHODS[method].name}" for name in own.datasets for method in _methods(request)
                  if collected.asked(name, method) and method not in runs.get(name, {})]  # fmt: skip
        say_above(figure, absent)
    return figure


def _row(
    row: Sequence[Axes], panels: Sequence[Panel], features: Features, methods: Sequence[str], present: Sequence[str]
) -> None:
    everything = np.concatenate([panel.points for panel in panels])
    whole = np.concatenate([everything, *(rows for panel in panels for rows in panel.heads.values())])
    low, high = whole.min(axis=0), whole.max(axis=0)
    room = 0.06 * (high - low)
    placed = dict(zip(["", *present], panels, strict=True))
    for axes, method in zip(row, methods, strict=True):
        dress(axes, grid=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("0.6")
        if method not in placed:
            axes.set_title(f"After {METHODS[method].name}", fontsize=TEXT)
            axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", va="center", fontsize=TINY)
            continue
        axes.scatter(everything[:, 0], everything[:, 1], s=2, color=_OTHERS, linewidths=0, rasterized=True)
        _samples(axes, placed[method].points, features.labels)
        for kind, rows in placed[method].heads.items():
            _stars(axes, rows, hollow=kind == "random")
        axes.set_title(placed[method].title, fontsize=TEXT)
        axes.set_xlim(low[0] - room[0], high[0] + room[0])
        axes.set_ylim(low[1] - room[1], high[1] + room[1])


def _class_look(label: int) -> tuple[str, str]:
    return CLASSES[label % len(CLASSES)]


def _samples(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    size = float(np.clip(900 / len(points), 3, 14))
    for label in np.unique(labels).tolist():
        colour, marker = _class_look(label)
        own = points[labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=size, color=colour, marker=marker, linewidths=0, alpha=0.75)


def _stars(axes: Axes, rows: np.ndarray, *, hollow: bool) -> None:
    for label, row in enumerate(rows):
        colour, _ = _class_look(label)
        face, edge = ("white", colour) if hollow else (colour, "black")
        axes.scatter(row[0], row[1], s=60, marker="*", facecolor=face, edgecolor=edge, linewidths=0.6, zorder=5)


def _legend(figure: Figure, shown: Sequence[Features]) -> None:
    """Name the classes where all data sets have the same; else number them."""
    names = shown[0].names
    if any(list(each.names) != list(names) for each in shown):
        names = [f"class {place + 1}" for place in range(max(len(each.names) for each in shown))]
    handles = [_sign(*_class_look(place), 4.5) for place in range(len(names))]
    handles += [_sign("0.5", "*", 7.5, edge="black"), _sign("white", "*", 7.5, edge=GREY), _sign("0.78", "o", 3)]
    said = [
        *map(drawn_name, names),
        "row of V (before: of the probed head)",
        "row of V, random head",
        "points of the other panels",
    ]
    legend_below(figure, handles, said, columns=3)


def _sign(colour: str, marker: str, size: float, edge: str | None = None) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, markersize=size, markerfacecolor=colour,
                  markeredgecolor=edge or colour, markeredgewidth=0.6 if edge else 0.0)  # fmt: skip


def caption(request: Request) -> str:
    """Say what the figure shows, and how the rows of V are put into the plane.

    Raises:
        InputError: No job has results.
    """
    own, collected = _read(request)
    runs = {name: runs_of(collected, name) for name in own.datasets}
    shown = {name: by_method for name, by_method in runs.items() if by_method}
    counts = ", ".join(f"{name} {len(next(iter(by.values())).labels)}" for name, by in shown.items())
    seeds = sorted({seed for by_seed in collected.contents.values() for seed in by_seed})
    several = len({tuple(next(iter(by.values())).names) for by in shown.values()}) > 1
    classes = {name: next(iter(by.values())).names for name, by in shown.items()}
    numbered = "; ".join(f"{name}: {', '.join(f'{i + 1} {it}' for i, it in enumerate(names))}"
                         for name, names in classes.items())  # fmt: skip
    return sentences(
        f"Features of test samples ({counts}) before training and after each method, coloured by class, with the rows "
        "of the head V as stars: before training those of the random head (hollow), where FT and LoRA start, and of "
        "the probed one (filled), where LP-FT and LP-LoRA start; then those of the trained head.",
        f"All panels of a data set are one t-SNE (perplexity {PERPLEXITY:g} or a third of the points, seed {SEED}) of "
        "all features together, in which the rows of V are embedded as further points, by Euclidean distance, as "
        "in the paper. Points that stay where they were hardly changed their neighbours; distances between groups, "
        "and from a star to a group, mean little, as rows of V and features differ in length.",
        f"Classes: {numbered}." if several else "",
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}.",
        own.setting(shown),
        own.missing(),
    )
