"""Tables as text."""

from collections.abc import Sequence

from tabulate import tabulate


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay out a table: a header, one rule, and rows; columns without any content are left out.

    Args:
        header: Names of the columns.
        rows: Cells.
        left: How many columns, the first, are aligned to the left; all others to the right.

    Returns:
        The table, its lines without spaces at their ends; empty where no column has content.
    """
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    if not kept:
        return ""
    # The header goes in as a row, as tabulate makes columns wider than their headers.
    text = tabulate(
        [[row[i] for i in kept] for row in (header, *rows)],
        tablefmt="plain",
        disable_numparse=True,
        colalign=["left" if i < left else "right" for i in kept],
    )
    names, *lines = (line.rstrip() for line in text.splitlines())
    return "\n".join([names, "-" * max(len(line) for line in (names, *lines)), *lines])
