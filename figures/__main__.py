"""``python -m figures RESULTS``: draw the paper's figures from a results folder, as png and pdf."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from analysis.results import Results, read_results
from figures import FIGURES, draw
from figures.style import house_style
from ntk_lpft import pictures
from ntk_lpft.command import open_output, parse_options, run_command
from ntk_lpft.errors import InputError

PROG = "python -m figures"
DESCRIPTION = (
    "Draw the paper's figures from the results of a suite, each as a png of at most 300 kB and as a pdf of vectors. "
    "Figures drawn before are drawn anew; those whose jobs have no results are named and left out."
)


@dataclass
class FigureOptions:
    """Options of ``python -m figures``."""

    results: list[str] = field(default_factory=list, metadata={"help": "results folder of a suite"})
    only: list[str] = field(default_factory=list, metadata={"help": f"which of {', '.join(FIGURES)}"})
    output_dir: str | None = field(default=None, metadata={"help": "folder for the figures (default: RESULTS/figures)"})


def draw_figures(options: FigureOptions) -> list[Path]:
    """Draw figures and write them.

    Returns:
        The files.

    Raises:
        InputError: An unknown figure, no results folder, or no figure that can be drawn.
    """
    if len(options.results) != 1:
        raise InputError(f"give one results folder, not {len(options.results)}; --help lists the options")
    unknown = [name for name in options.only if name not in FIGURES]
    if unknown:
        raise InputError(f"--only: unknown figure {unknown[0]!r}; choose from {', '.join(FIGURES)}")
    results = read_results(options.results[0])
    names = list(dict.fromkeys(options.only)) or list(FIGURES)
    folder = Path(options.output_dir).expanduser() if options.output_dir else results.folder / "figures"
    files, left_out = _draw_all(results, names, folder)
    for line in left_out:
        print(f"left out: {line}")
    drawn = len(files) // 2
    print(f"{drawn} figure{'' if drawn == 1 else 's'} in {folder}, each as .png and .pdf")
    return files


def _draw_all(results: Results, names: Sequence[str], folder: Path) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    left_out: list[str] = []
    with tqdm(names, desc="figures", unit="figure", delay=2) as bar:
        for name in bar:
            try:
                figure = draw(results, name)
            except InputError as problem:
                left_out.append(" ".join(str(problem).split()))
                continue
            if not files:  # nothing is written, not even a folder, where there is nothing to show
                open_output(folder, (), overwrite=True)
            files += save(figure, folder, name)
    if not files:
        raise InputError(f"no figure can be drawn: {'; '.join(left_out)}")
    return files, left_out


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as png and pdf, each whole or not at all.

    Args:
        figure: The figure.
        folder: Where to; it exists.
        name: Of the files, without ending.

    Returns:
        The two files.

    Raises:
        InputError: The png would be too large.
    """
    written = []
    for ending in ("png", "pdf"):
        path = folder / f"{name}.{ending}"
        partial = folder / f".{name}.{os.getpid()}.partial.{ending}"
        try:
            with house_style():
                if ending == "png":
                    pictures.save(figure, partial)
                else:  # no date: the same results make the same file
                    figure.savefig(partial, metadata={"CreationDate": None, "Title": name})
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(
        lambda: draw_figures(parse_options(FigureOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS")))
    )


if __name__ == "__main__":
    sys.exit(main())
