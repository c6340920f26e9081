"""What ``python -m analysis.tables`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.suite.folder import TablesFolder
from analysis.suite.results import Results, read_results
from analysis.tables.makers import make_table
from analysis.tables.options import CLAIMS, TableOptions
from analysis.tables.table import Table
from ntk_lpft.errors import InputError
from ntk_lpft.storage import write_text

_ENDINGS = ("csv", "md", "tex")


def make_tables(options: TableOptions) -> list[Path]:
    """Make tables and write them.

    Returns:
        The files.

    Raises:
        InputError: No results folder, or no table that can be made.
    """
    names = options.names()
    results = read_results(options.results[0])
    suite = results.folder
    folder = TablesFolder(options.output_dir or suite.path / suite.TABLES, suite)
    files = [f"{name}.{ending}" for name in names for ending in _ENDINGS]
    with folder.opened(overwrite=True, more=files):
        made, skipped = _make_all(results, names)
        folder.claim()
        written = [file for table in made for file in _write(folder.path, table)]
    _show(made, whole=bool(options.only))
    for line in skipped:
        print(f"left out: {line}")
    print(f"{len(made)} table{'s' if len(made) > 1 else ''} in {folder.path}, each as .csv, .md and .tex")
    return written


def _make_all(results: Results, names: Sequence[str]) -> tuple[list[Table], list[str]]:
    """Make tables.

    Returns:
        The tables, and of those that cannot be made, why.

    Raises:
        InputError: None can.
    """
    made: list[Table] = []
    skipped: list[str] = []
    for name in names:
        try:
            made.append(make_table(results, name))
        except InputError as error:
            skipped.append(str(error))
    if not made:
        raise InputError(f"no table can be made: {'; '.join(skipped)}")
    return made, skipped


def _show(made: Sequence[Table], *, whole: bool) -> None:
    """Print tables that were asked for by name; else one line each, and what is missing anywhere."""
    if whole:
        for table in made:
            print(table.to_markdown())
        return
    for table in made:
        rows = len(table.layout)
        missing = ", some jobs missing or broken" if table.problems else ""
        print(f"{table.name:9} {rows:3} rows{missing}: {table.title}")
        if table.name == CLAIMS:
            counts = table.frame["verdict"].str.replace(r" \(.*", "", regex=True).value_counts()
            print(f"{'':9} {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")
    for line in dict.fromkeys(line for table in made for line in table.problems):
        print(f"missing or broken: {line}")


def _write(folder: Path, table: Table) -> list[Path]:
    texts = dict(zip(_ENDINGS, (table.to_csv(), table.to_markdown(), table.to_latex()), strict=True))
    files = {folder / f"{table.name}.{ending}": text for ending, text in texts.items()}
    for path, text in files.items():
        write_text(path, text)
    return [*files]
