"""What ``python -m figures`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from analysis.suite.results import Results, read_results
from figures import FIGURES, draw
from figures.options import FigureOptions
from figures.style import house_style
from ntk_lpft import pictures
from ntk_lpft.errors import InputError
from ntk_lpft.runs import RunFolder
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
    folder = (
        Path(options.output_dir).expanduser() if options.output_dir else results.folder.path / results.folder.FIGURES
    )
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
            except InputError as error:
                left_out.append(" ".join(str(error).split()))
                continue
            if not files:  # nothing is written, not even a folder, where there is nothing to show
                RunFolder(folder).open(overwrite=True)
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
    pixels, vectors = folder / f"{name}.png", folder / f"{name}.pdf"
    with house_style():
        pictures.save(figure, pixels)
        with whole_file(vectors) as partial:  # no date: the same results make the same file
            figure.savefig(partial, format="pdf", metadata={"CreationDate": None, "Title": name})
    return [pixels, vectors]
