"""Names of classes: when two are the same one, however they are written, and how messages list them."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import TypeAlias

# Equal numbers are equal cells, however they are written: 1, 01, 1.0, 1e0.
Cell: TypeAlias = Decimal | str

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)
_LONGEST_NUMBER = 60
_DIGITS = 18  # of the largest class number, so that it is exact wherever it goes
# Letters of other scripts that look like Latin ones: Cyrillic, then Greek.
_LOOK_ALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеорсухіјѕԁԛԝ" "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",
    "ABESIJKMHOPCTYXaeopcyxijsdqw" "ABEZHIKMNOPTYXo",
)  # fmt: skip
_INVISIBLE = ("Cf", "Cc")  # Unicode's categories of format and control characters


def as_cell(text: str) -> Cell:
    """Return the number that a text writes, or else the text."""
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        return Decimal(text)
    return text


def is_whole(cell: Cell) -> bool:
    """Whether a cell is a whole number, of a size that a class may be numbered by."""
    return (
        isinstance(cell, Decimal)
        and cell.is_finite()
        and (cell == 0 or cell.adjusted() < _DIGITS)
        and cell == cell.to_integral_value()
    )


def written(cell: Cell) -> str:
    """Write a cell, whole numbers without point and leading zeros."""
    if is_whole(cell):
        return str(int(cell))
    return str(cell)


def look(text: str) -> str:
    """Return what two names share that a reader could take for one another.

    Letter case, white space, characters that cannot be seen, and the scripts of letters of one form do not matter.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKES)
    seen = "".join(character for character in plain if unicodedata.category(character) not in _INVISIBLE)
    return " ".join(unicodedata.normalize("NFKC", seen.casefold()).split())


def listed(names: Sequence[str], most: int = 12) -> str:
    """List names for a message, not more than a reader can take in."""
    shown = ", ".join(shortened(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} others"


def shortened(name: str, most: int = 40) -> str:
    """Cut a long name, and show characters that would not print as they are."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= most else f"{text[: most - 1]}…"
