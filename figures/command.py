"""What ``python -m figures`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from analysis.suite.folder import FiguresFolder
from analysis.suite.results import Results, read_results
from figures import FIGURES, draw
from figures.options import FigureOptions
from figures.style import house_style
from ntk_lpft import pictures
from ntk_lpft.errors import InputError
from ntk_lpft.storage import whole_file


def draw_figures(options: FigureOptions) -> list[Path]:
    """Draw figures and write them.

    Returns:
        The files.

    Raises:
        InputError: No results folder, or no figure that can be drawn.
    """
    results = read_results(options.results[0])
    names = list(dict.fromkeys(options.only)) or list(FIGURES)
    suite = results.folder
    folder = FiguresFolder(options.output_dir or suite.path / suite.FIGURES, suite)
    with folder.opened(overwrite=True, more=[f"{name}.{ending}" for name in names for ending in ("png", "pdf")]):
        files, left_out = _draw_all(results, names, folder)
    for line in left_out:
        print(f"left out: {line}")
    drawn = len(files) // 2
    print(f"{drawn} figure{'' if drawn == 1 else 's'} in {folder.path}, each as .png and .pdf")
    return files


def _draw_all(results: Results, names: Sequence[str], folder: FiguresFolder) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    left_out: list[str] = []
    with tqdm(names, desc="figures", unit="figure", delay=2) as bar:
        for name in bar:
            try:
                figure = draw(results, name)
            except InputError as error:
                left_out.append(" ".join(str(error).split()))
                continue
            folder.claim()
            files += save(figure, folder.path, name)
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
    pixels, vectors = folder / f"{name}.png", folder / f"{name}.pdf"
    with house_style():
        pictures.save(figure, pixels)
        with whole_file(vectors) as partial:  # no date: the same results make the same file
            figure.savefig(partial, format="pdf", metadata={"CreationDate": None, "Title": name})
    return [pixels, vectors]
