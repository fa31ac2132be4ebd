"""Class probabilities of a raster's cells from a sliding window: pure NumPy."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

Read = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]
"""From row, column, height and width to pixels (height, width, bands) and whether they are data (height, width)."""


def starts(length: int, tile: int, stride: int) -> list[int]:
    """First pixels of the windows along an axis; the last window ends with the axis."""
    regular = list(range(0, length - tile + 1, stride))
    return regular if regular[-1] + tile == length else [*regular, length - tile]


def probabilities(
    read: Read,
    classify: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, int],
    *,
    classes: int,
    tile: int,
    stride: int,
    batch: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """The map's rows from top to bottom: (columns, classes) float64, NaN without a class, and the cells left out.

    A window of which less than half is data is not classified. A cell has no data where less than half of its pixels
    on the raster are. One that has data is left out where no window over it is classified.

    Args:
        read: gives pixels; it is never asked for more than tile x (tile + (batch - 1) stride) at once.
        classify: from images (n, tile, tile, bands) to probabilities (n, classes).
        shape: height and width of the raster, px; neither is below `tile`.
        classes: how many.
        tile: side of the window, px.
        stride: side of a cell and step of the window, px; at most `tile`.
        batch: windows that are read and classified together.
    """
    height, width = shape
    rows, columns = -(-height // stride), -(-width // stride)
    across, down = starts(width, tile, stride), starts(height, tile, stride)
    waiting: dict[int, _Row] = {}
    done = below = 0
    for top in down:
        # No later window reaches the rows above this one.
        for row in range(done, top // stride):
            yield waiting.pop(row).mean()
        done = top // stride
        for row in range(done, (top + tile - 1) // stride + 1):
            waiting.setdefault(row, _Row(columns, classes))
        right = 0
        for first in range(0, len(across), batch):
            lefts = across[first : first + batch]
            pixels, valid = read(top, lefts[0], tile, lefts[-1] + tile - lefts[0])
            # Each pixel once: those above `below` and left of `right` were in windows before.
            _count(waiting, below, right, valid[below - top :, right - lefts[0] :], stride)
            right = lefts[-1] + tile
            offsets = [left - lefts[0] for left in lefts]
            chosen = [valid[:, at : at + tile].mean() >= 0.5 for at in offsets]
            seen = [pixels[:, at : at + tile] for at, taken in zip(offsets, chosen, strict=True) if taken]
            found = classify(np.stack(seen)) if seen else ()
            for left, values in zip(itertools.compress(lefts, chosen), found, strict=True):
                _add(waiting, top, left, tile, values, stride)
        below = top + tile
    for row in range(done, rows):
        yield waiting.pop(row).mean()


class _Row:
    """Sums over the windows that cover a row of cells."""

    def __init__(self, columns: int, classes: int):
        self.probabilities = np.zeros((columns, classes))
        self.classified, self.pixels, self.valid = np.zeros((3, columns))

    def mean(self) -> tuple[np.ndarray, int]:
        held, seen = 2 * self.valid >= self.pixels, self.classified > 0
        means = self.probabilities / np.maximum(self.classified, 1)[:, None]
        return np.where((held & seen)[:, None], means, np.nan), int(np.count_nonzero(held & ~seen))


def _count(rows: dict[int, _Row], top: int, left: int, valid: np.ndarray, stride: int) -> None:
    """Adds pixels (height, width) to the cells that they lie in."""
    (rows_of, heights, row_edges), (columns_of, widths, column_edges) = (
        _cells(start, length, stride) for start, length in zip((top, left), valid.shape, strict=True)
    )
    data = np.add.reduceat(np.add.reduceat(valid.astype(np.int64), row_edges, 0), column_edges, 1)
    for number, row in enumerate(rows_of):
        rows[row].pixels[columns_of] += heights[number] * widths
        rows[row].valid[columns_of] += data[number]


def _add(rows: dict[int, _Row], top: int, left: int, tile: int, values: np.ndarray, stride: int) -> None:
    """Adds what a window shows to the cells that it covers, weighted by the pixels that they share."""
    (rows_of, heights, _), (columns_of, widths, _) = (_cells(start, tile, stride) for start in (top, left))
    for number, row in enumerate(rows_of):
        area = heights[number] * widths
        rows[row].classified[columns_of] += area
        rows[row].probabilities[columns_of] += area[:, None] * values


def _cells(start: int, length: int, stride: int) -> tuple[range, np.ndarray, np.ndarray]:
    """Along an axis: the cells that a part covers, the pixels it shares with each, and where they begin in the part."""
    cells = range(start // stride, (start + length - 1) // stride + 1)
    edges = np.clip(stride * np.arange(cells.start, cells.stop + 1) - start, 0, length)
    return cells, np.diff(edges), edges[:-1]
