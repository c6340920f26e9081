"""``RESULTS.md``: every command writes its own section, and keeps all others as they are."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def machine() -> str:
    """Name processor, Python and the libraries that numbers depend on."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), torch {version('torch')}, "
        f"transformers {version('transformers')}, Python {platform.python_version()}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


def write_section(heading: str, lines: Sequence[str], file: Path = RESULTS) -> None:
    """Put a section in the place of the one of that heading, or at the end.

    Args:
        heading: Without ``##``.
        lines: What stands below it.
        file: The document.
    """
    before = file.read_text(encoding="utf-8") if file.exists() else "# Benchmarks\n"
    parts = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    section = "\n".join([f"## {heading}", "", *lines]).rstrip() + "\n"
    own = [number for number, part in enumerate(parts) if part.partition("\n")[0].rstrip() == f"## {heading}"]
    if own:
        parts[own[0]] = section + "\n"
    else:
        parts[-1] = parts[-1].rstrip() + "\n\n"
        parts.append(section)
    file.write_text("".join(parts).rstrip() + "\n", encoding="utf-8")
