"""``python -m analysis.tables RESULTS``: the paper's tables from a results folder, as csv, Markdown and LaTeX."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.catalogue import TABLES, item_of
from analysis.results import read_results
from analysis.tables import NAMES, Table, make_table
from analysis.tables.claims import NAME as CLAIMS
from ntk_lpft.command import open_output, parse_options, run_command
from ntk_lpft.errors import InputError

PROG = "python -m analysis.tables"
DESCRIPTION = (
    "Make the paper's tables from the results of a suite, each as csv (one line a number), Markdown and LaTeX: mean ± "
    "standard deviation over seeds, beside the paper's numbers where there are any, and the paper's claims with a "
    "verdict on each. Tables made before are made anew."
)


@dataclass
class TableOptions:
    """Options of ``python -m analysis.tables``."""

    results: list[str] = field(default_factory=list, metadata={"help": "results folder of a suite"})
    only: list[str] = field(
        default_factory=list, metadata={"help": f"which of {', '.join(NAMES)}; the paper's other numbers do as well"}
    )
    output_dir: str | None = field(default=None, metadata={"help": "folder for the tables (default: RESULTS/tables)"})


def make_tables(options: TableOptions) -> list[Path]:
    """Make tables and write them.

    Returns:
        The files.

    Raises:
        InputError: An unknown table, no results folder, or no table that can be made.
    """
    if len(options.results) != 1:
        raise InputError(f"give one results folder, not {len(options.results)}; --help lists the options")
    names = list(dict.fromkeys(_name(word) for word in options.only)) or list(NAMES)
    results = read_results(options.results[0])
    made: list[Table] = []
    skipped: list[str] = []
    for name in names:
        try:
            made.append(make_table(results, name))
        except InputError as problem:
            skipped.append(str(problem))
    if not made:
        raise InputError(f"no table can be made: {'; '.join(skipped)}")
    folder = Path(options.output_dir).expanduser() if options.output_dir else results.folder / "tables"
    open_output(folder, (), overwrite=True)
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


def _name(word: str) -> str:
    """Find a table by its name, or by another of the paper's numbers for it.

    Raises:
        InputError: There is none.
    """
    if word == CLAIMS:
        return word
    try:
        item = item_of(word)
    except InputError:
        item = None
    if item not in TABLES or item is None:
        raise InputError(f"--only: unknown table {word!r}; choose from {', '.join(NAMES)}")
    return item.name


def _write(folder: Path, table: Table) -> list[Path]:
    texts = {"csv": table.to_csv(), "md": table.to_markdown(), "tex": table.to_latex()}
    return [_write_text(folder / f"{table.name}.{ending}", text) for ending, text in texts.items()]


def _write_text(path: Path, text: str) -> Path:
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(
        lambda: make_tables(parse_options(TableOptions, DESCRIPTION, arguments, PROG, ("results", "RESULTS")))
    )


if __name__ == "__main__":
    sys.exit(main())
