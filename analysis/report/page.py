"""What stands in the page: every table and figure of the catalogue, or how to make it, and how the jobs went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup
from tqdm import tqdm

from analysis import catalogue
from analysis.catalogue import Item
from analysis.report.pictures import Picture, picture_of
from analysis.report.settings import data_settings, duration, job_summaries, suite_settings
from analysis.report.verdicts import view_claims
from analysis.suite.results import Results, describe_problem
from analysis.tables import Table, make_claims, make_table
from analysis.tables.collect import how_to_run
from figures import caption, draw
from ntk_lpft.errors import InputError


@dataclass(frozen=True)
class Part:
    """A table or figure of the page; what it is made of may be missing.

    Attributes:
        item: Which.
        label: Its numbers in the paper: ``Tables 2 and 9``; or, where it has none, what its title begins with.
        table: The table.
        picture: The figure.
        caption: The figure's caption.
        missing: Why there is neither, and the command that makes it; None where there is one.
    """

    item: Item
    label: str
    table: Table | None = None
    picture: Picture | None = None
    caption: str = ""
    missing: Markup | None = None


def build_page(results: Results, *, progress: bool = False) -> str:
    """Build the page of a results folder.

    Args:
        results: The results.
        progress: Whether to show a progress bar.

    Returns:
        HTML, complete in itself.
    """
    items = [*catalogue.TABLES, *catalogue.FIGURES]
    with tqdm(items, desc="report", unit="part", delay=1, disable=not progress) as bar:
        parts = [_part(results, item) for item in bar]
    try:
        claims, missing = make_claims(results), ""
    except InputError as error:
        claims, missing = None, str(error)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    return environment.get_template("page.html").render(
        suite=results.suite,
        settings=suite_settings(results),
        data=data_settings(results),
        command=f"python -m analysis.run --suite {results.suite['name']}",
        again=f"python -m analysis.run --suite {results.suite['name']} --output-dir {results.folder.path} --retry",
        folder=results.folder.path.name,
        log_folder=results.folder.JOBS,
        problems=[describe_problem(entry, results.folder) for entry in results.problems],
        jobs=job_summaries(results),
        count=len(results.entries),
        claims=claims,
        claims_missing=missing,
        view=None if claims is None else view_claims(claims.layout),
        tables=[part for part in parts if part.item in catalogue.TABLES],
        figures=[part for part in parts if part.item in catalogue.FIGURES],
        stylesheet=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
    )


def _part(results: Results, item: Item) -> Part:
    label = label_of(item)
    try:
        if item in catalogue.TABLES:
            return Part(item, label, table=make_table(results, item.name))
        picture = picture_of(draw(results, item.name), f"{label}: {item.title}")
        return Part(item, label, picture=picture, caption=caption(results, item.name))
    except InputError as error:
        return Part(item, label, missing=_with_command(str(error), how_to_run(results, item.name)))


def _with_command(text: str, command: str) -> Markup:
    """Set a command off from the text that it stands in; put it behind a text that does not name it."""
    before, _, after = " ".join(text.split()).partition(command)
    code = Markup("<code>{}</code>").format(command)
    return Markup("{}{}{}").format(before, code, after) if after else Markup("{}. Run {}").format(before, code)


def label_of(item: Item) -> str:
    """Name a table or figure as the paper numbers it: ``Tables 3, 14 and 15``; else by its title's beginning."""
    if not item.numbers:
        return item.title.split(":")[0].split(",")[0]
    word = "Figure" if item in catalogue.FIGURES else "Table"
    *first, last = map(str, item.numbers)
    return f"{word}s {', '.join(first)} and {last}" if first else f"{word} {last}"
