"""Pictures on disk: png files of at most 300 kB."""

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from ntk_lpft.arguments import checked
from ntk_lpft.errors import InputError
from ntk_lpft.storage import whole_file

_MAX_BYTES = 300_000
# Dots per inch and colours (None: all), tried in this order: 256 colours are those of a colour map and its labels.
_QUALITIES: tuple[tuple[int, int | None], ...] = ((200, None), (200, 256), (150, 256), (150, 64))


@checked
def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a png of at most 300 kB, at 200 dots per inch; the file appears whole or not at all.

    A picture that would be larger is reduced to 256 colours, then to 150 dots per inch, then to 64 colours.

    Args:
        figure: The figure.
        path: Where to, ending in `.png`; folders that are missing are made, and a file that is there is replaced.

    Returns:
        The path of the file.

    Raises:
        InputError: The path does not end in `.png`, or the picture is too large even so.
        OSError: The file cannot be written; the error names it.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png, the one format of pictures")
    for resolution, colours in _QUALITIES:
        data = _png(figure, resolution, colours)
        if len(data) <= _MAX_BYTES:
            with whole_file(path) as partial:
                partial.write_bytes(data)
            return path
    raise InputError(f"{path} would take {len(data)} bytes, more than {_MAX_BYTES}; draw a smaller figure")


def _png(figure: Figure, resolution: int, colours: int | None) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=resolution)
    if colours is None:
        return buffer.getvalue()
    reduced = io.BytesIO()
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(colours, method=Image.Quantize.MAXCOVERAGE).save(
            reduced, format="png", optimize=True
        )
    return reduced.getvalue()
