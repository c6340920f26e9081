"""Figures 2 and 7: singular values of P and of each method's F, each divided by the largest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from analysis.tables.collect import Collected
from figures.data import Request, fewer_seeds, over_seeds, sentences
from figures.kernels import STARTS, Spectra, read_spectra
from figures.style import (
    GREY,
    METHODS,
    P_LOOK,
    TEXT,
    TINY,
    Look,
    draw_mean,
    house_style,
    legend_below,
    line_of,
    panels,
    say_above,
)
from ntk_lpft.pictures import drawn_name
from ntk_lpft.statistics import Spectrum

_LOWEST = 1e-10  # of σ₁: further down there is rounding alone
_ROUNDING = "0.955"  # shade


def _read(request: Request) -> Collected[Spectra]:
    collected = request.collect("kernel", read_spectra, STARTS)
    if not collected.contents:
        raise request.nothing()
    return collected


def _shown(request: Request, collected: Collected[Spectra]) -> list[str]:
    return [name for name in request.datasets if any(dataset == name for dataset, _ in collected.contents)]


def curves(collected: Collected[Spectra], dataset: str) -> Mapping[Look, list[Spectrum]]:
    """Return the spectra to draw, over seeds, by look: P, which methods share, then F of each method.

    A zero kernel has no largest singular value, and is left out.
    """
    of_p: dict[int, Spectrum] = {}
    of_f: dict[Look, list[Spectrum]] = {}
    for method in STARTS:
        by_seed = collected.contents.get((dataset, method), {})
        for seed, spectra in by_seed.items():
            of_p.setdefault(seed, spectra.p)
        of_f[METHODS[method]] = [spectra.f for spectra in by_seed.values() if spectra.f.spectral_norm > 0]
    every = {P_LOOK: [it for it in of_p.values() if it.spectral_norm > 0], **of_f}
    return {look: spectra for look, spectra in every.items() if spectra}


def shares(spectra: list[Spectrum]) -> Float64[np.ndarray, "seeds values"]:
    """Divide the singular values of each seed by its largest; as many as the shortest spectrum has."""
    count = min(len(spectrum.singular_values) for spectrum in spectra)
    return np.stack([it.singular_values[:count] / it.spectral_norm for it in spectra])


def draw(request: Request) -> Figure:
    """Draw the figure.

    Raises:
        InputError: No job has results.
    """
    collected = _read(request)
    datasets = _shown(request, collected)
    with house_style():
        if request.every:
            figure, grid = panels(len(datasets), height=1.75)
        else:
            figure, grid = panels(1, height=2.7)
        looks: dict[Look, None] = {}
        for axes, dataset in zip(grid, datasets, strict=True):
            looks |= dict.fromkeys(_panel(axes, collected, dataset))
            axes.set_title(drawn_name(dataset), fontsize=TEXT)
        _label(grid)
        order = [look for look in (P_LOOK, *METHODS.values()) if look in looks]
        names = [look.name if look is P_LOOK else f"F, {look.name}" for look in order]
        legend_below(figure, [line_of(look) for look in order], names)
        say_above(figure, fewer_seeds([collected], request.datasets, STARTS))
    return figure


def _panel(axes: Axes, collected: Collected[Spectra], dataset: str) -> list[Look]:
    drawn = curves(collected, dataset)
    lowest, rounding, longest = 1.0, 0.0, 1
    for look, spectra in drawn.items():
        values = shares(spectra)
        index = np.arange(1, values.shape[1] + 1)
        draw_mean(axes, index, np.where(values > 0, values, np.nan), look, log=True)
        lowest = min(lowest, float(values[values > 0].min()))
        rounding = max(rounding, *(it.rank_tolerance / it.spectral_norm for it in spectra))
        longest = max(longest, values.shape[1])
    axes.set_yscale("log")
    bottom = max(_LOWEST, lowest / 2)
    axes.set_ylim(bottom, 2)
    axes.set_xlim(1 - 0.02 * longest, longest * 1.02)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if rounding > bottom:
        axes.axhspan(bottom, rounding, color=_ROUNDING, zorder=0)
        axes.annotate("rounding", (0, 0), xycoords="axes fraction", xytext=(3, 2), textcoords="offset points",
                      fontsize=TINY, color=GREY)  # fmt: skip
    return list(drawn)


def _label(grid: list[Axes]) -> None:
    for axes in grid:
        place = axes.get_subplotspec()
        if place is None or place.is_first_col():
            axes.set_ylabel("Singular value / largest", fontsize=TEXT)
        axes.set_xlabel("Index", fontsize=TEXT)


def caption(request: Request) -> str:
    """Say what the figure shows.

    Raises:
        InputError: No job has results.
    """
    collected = _read(request)
    datasets = _shown(request, collected)
    where = f"on {datasets[0]}" if not request.every else "on every data set"
    return sentences(
        f"Singular values of P and of the F that each method starts from, {where}, each kernel's divided by its "
        "largest, in descending order, on a logarithmic scale. P is the same for all methods of a seed.",
        "In the shaded part values cannot be told from rounding errors of the kernel's entries (its size times the "
        "precision they are stored in), so that they do not count towards the rank.",
        over_seeds([collected], datasets, log=True),
        request.setting(datasets),
        request.missing(),
    )
