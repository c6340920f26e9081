"""Which function draws which figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.catalogue import ITEMS
from analysis.suite.results import Results
from figures import blocks, embedding, head_scale, spectra, training
from figures.data import Request
from ntk_lpft.errors import InputError


@dataclass(frozen=True)
class Maker:
    """How a figure is made.

    Attributes:
        draw: Draws it.
        caption: Says what it shows.
        every: Whether it shows every data set, or the main one alone.
    """

    draw: Callable[[Request], Figure]
    caption: Callable[[Request], str]
    every: bool


FIGURES: Mapping[str, Maker] = {
    "figure1": Maker(training.draw, training.caption, every=False),
    "figure2": Maker(spectra.draw, spectra.caption, every=False),
    "figure3": Maker(head_scale.draw, head_scale.caption, every=False),
    "figure4": Maker(training.draw, training.caption, every=True),
    "figure5": Maker(embedding.draw, embedding.caption, every=False),
    "figure6": Maker(embedding.draw, embedding.caption, every=True),
    "figure7": Maker(spectra.draw, spectra.caption, every=True),
    "figure8": Maker(blocks.draw, blocks.caption, every=False),
    "figure9": Maker(blocks.draw, blocks.caption, every=True),
    "figure10": Maker(head_scale.draw, head_scale.caption, every=True),
    "figure11": Maker(head_scale.draw, head_scale.caption, every=True),
}


def draw(results: Results, name: str) -> Figure:
    """Draw a figure.

    Args:
        results: The results, from `analysis.suite.results.read_results`.
        name: ``figure1`` to ``figure11``.

    Returns:
        The figure; it belongs to nobody else, and no setting of matplotlib is changed.

    Raises:
        InputError: There is no such figure, or none of its jobs has results; then it names them, and the command that
            runs them.
    """
    return _maker(name).draw(_request(results, name))


def caption(results: Results, name: str) -> str:
    """Say what a figure shows, over which seeds, how the set-up differs from the paper's, and what is missing.

    Args:
        results: The results.
        name: ``figure1`` to ``figure11``.

    Raises:
        InputError: As for `draw`.
    """
    return _maker(name).caption(_request(results, name))


def _maker(name: str) -> Maker:
    if name not in FIGURES:
        raise InputError(f"unknown figure {name!r}; choose from {', '.join(FIGURES)}")
    return FIGURES[name]


def _request(results: Results, name: str) -> Request:
    return Request(results, ITEMS[name], _maker(name).every)
