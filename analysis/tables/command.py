"""What ``python -m analysis.tables`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.suite.results import read_results
from analysis.tables.makers import make_table
from analysis.tables.options import CLAIMS, TableOptions
from analysis.tables.table import Table
from ntk_lpft.errors import InputError
from ntk_lpft.runs import RunFolder
from ntk_lpft.storage import write_text


def make_tables(options: TableOptions) -> list[Path]:
    """Make tables and write them.

    Returns:
        The files.

    Raises:
        InputError: No results folder, or no table that can be made.
    """
    names = options.names()
    results = read_results(options.results[0])
    made: list[Table] = []
    skipped: list[str] = []
    for name in names:
        try:
            made.append(make_table(results, name))
        except InputError as error:
            skipped.append(str(error))
    if not made:
        raise InputError(f"no table can be made: {'; '.join(skipped)}")
    folder = (
        Path(options.output_dir).expanduser() if options.output_dir else results.folder.path / results.folder.TABLES
    )
    RunFolder(folder).open(overwrite=True)
    files = [file for table in made for file in _write(folder, table)]
    _show(made, whole=bool(options.only))
    for line in skipped:
        print(f"left out: {line}")
    print(f"{len(made)} table{'s' if len(made) > 1 else ''} in {folder}, each as .csv, .md and .tex")
    return files


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
    texts = {"csv": table.to_csv(), "md": table.to_markdown(), "tex": table.to_latex()}
    files = {folder / f"{table.name}.{ending}": text for ending, text in texts.items()}
    for path, text in files.items():
        write_text(path, text)
    return [*files]
