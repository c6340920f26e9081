"""A kernel in tiles of samples, so that what is captured of them need not all be held at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from ntk_lpft.kernel.layout import Layout


@dataclass(frozen=True)
class Tile:
    """Some columns of a kernel against themselves, where wanted, and against some further rows.

    Samples go by their internal numbers; within the tile its columns come first, then its rows.

    Attributes:
        columns: First column sample, and the one behind the last.
        rows: The same of the row samples, which are none of the columns; equal where there are none.
        diagonal: Whether columns × columns is part of the tile, of which one half is computed, as it is symmetric.
    """

    columns: tuple[int, int]
    rows: tuple[int, int]
    diagonal: bool

    @property
    def width(self) -> int:
        """Number of column samples."""
        return self.columns[1] - self.columns[0]

    @property
    def height(self) -> int:
        """Number of row samples beside the columns."""
        return self.rows[1] - self.rows[0]

    def layout(self, whole: Layout) -> Layout:
        """Rows and columns of the tile as a kernel of its own."""
        return replace(whole, columns=self.width, extra=self.height, symmetric=self.diagonal)

    def covers(self, whole: Layout) -> bool:
        """Whether the tile is all of a kernel."""
        return self.layout(whole) == whole

    def add_(
        self, kernel: Float[Tensor, "rows columns"], block: Float[Tensor, "tile_rows tile_columns"], whole: Layout
    ) -> None:
        """Add the tile's kernel to the whole one.

        Args:
            kernel: The whole kernel, in internal order, changed in place.
            block: The tile's, as its own `layout` orders it.
            whole: Rows and columns of the whole kernel.
        """
        w = whole.width
        skipped = 0 if whole.symmetric else whole.columns  # samples without a row
        columns = slice(self.columns[0] * w, self.columns[1] * w)
        at = 0
        for begin, end in ([self.columns] if self.diagonal else []) + [self.rows]:
            if end > begin:
                height = (end - begin) * w
                kernel[(begin - skipped) * w : (end - skipped) * w, columns] += block[at : at + height]
                at += height


def tiles_of(layout: Layout, columns: int, rows: int) -> Iterator[list[Tile]]:
    """Cut a kernel into tiles.

    Of a symmetric kernel the part above the diagonal is covered, in which the rows of a column come before it.

    Args:
        layout: Rows and columns of the kernel.
        columns: Most column samples of a tile.
        rows: Most further row samples of a tile.

    Yields:
        The tiles of one block of columns after the other; their gradients serve all of them.
    """
    for begin in range(0, layout.columns, columns):
        block = (begin, min(begin + columns, layout.columns))
        # Rows that are columns as well, and rows that are not, are never captured in one batch.
        spans = [(0, begin)] if layout.symmetric else []
        spans.append((layout.columns, layout.samples))
        pieces = [(at, min(at + rows, end)) for start, end in spans for at in range(start, end, rows)]
        first = pieces.pop(0) if pieces else (0, 0)
        yield [Tile(block, first, layout.symmetric), *(Tile(block, piece, False) for piece in pieces)]
