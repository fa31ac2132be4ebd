"""Computes class probabilities of a raster's cells with a sliding window, in pure NumPy."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

Read = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]
"""Takes row, column, height and width; gives pixels (height, width, bands) and which are data, (height, width) bool."""


def starts(length: int, tile: int, stride: int) -> list[int]:
    """The first pixel of each window along an axis; the last window ends at the end of the axis."""
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
    """Yields the map's rows from top to bottom.

    A window is classified if at least half of its pixels are data. A cell has data if at least half of its pixels on
    the raster are data. A cell with data is left out if none of the windows that cover it is classified.

    Args:
        read: reads pixels; it is never asked for more than tile x (tile + (batch - 1) stride) at once.
        classify: maps images (n, tile, tile, bands) to probabilities (n, classes).
        shape: height and width of the raster, px; neither is below `tile`.
        classes: number of classes.
        tile: side of the window, px.
        stride: side of a cell and step of the window, px; at most `tile`.
        batch: number of windows that are read and classified together.

    Yields:
        Probabilities (columns, classes) float64, NaN for cells without a class; and the number of cells left out.
    """
    height, width = shape
    rows, columns = -(-height // stride), -(-width // stride)
    all_lefts, tops = starts(width, tile, stride), starts(height, tile, stride)
    sums: dict[int, _RowSums] = {}
    first_row = bottom = 0  # of the rows not yielded yet; of the pixels counted so far
    for top in tops:
        # No later window reaches the rows above this one.
        for row in range(first_row, top // stride):
            yield sums.pop(row).mean()
        first_row = top // stride
        for row in range(first_row, (top + tile - 1) // stride + 1):
            sums.setdefault(row, _RowSums(columns, classes))
        right = 0
        for first in range(0, len(all_lefts), batch):
            lefts = all_lefts[first : first + batch]
            pixels, valid = read(top, lefts[0], tile, lefts[-1] + tile - lefts[0])
            # Each pixel counts once: those above `bottom` and left of `right` were in earlier windows.
            _add_pixels(sums, bottom, right, valid[bottom - top :, right - lefts[0] :], stride)
            right = lefts[-1] + tile
            offsets = [left - lefts[0] for left in lefts]
            has_data = [valid[:, start : start + tile].mean() >= 0.5 for start in offsets]
            images = [pixels[:, start : start + tile] for start in itertools.compress(offsets, has_data)]
            answers = classify(np.stack(images)) if images else ()
            for left, values in zip(itertools.compress(lefts, has_data), answers, strict=True):
                _add_window(sums, top, left, tile, values, stride)
        bottom = top + tile
    for row in range(first_row, rows):
        yield sums.pop(row).mean()


class _RowSums:
    """Sums over the windows that cover a row of cells."""

    def __init__(self, columns: int, classes: int):
        self.probabilities = np.zeros((columns, classes))
        self.classified, self.pixels, self.valid = np.zeros((3, columns))

    def mean(self) -> tuple[np.ndarray, int]:
        """See the values that `probabilities` yields."""
        has_data, has_window = 2 * self.valid >= self.pixels, self.classified > 0
        means = self.probabilities / np.maximum(self.classified, 1)[:, None]
        left_out = int(np.count_nonzero(has_data & ~has_window))
        return np.where((has_data & has_window)[:, None], means, np.nan), left_out


def _add_pixels(sums: dict[int, _RowSums], top: int, left: int, valid: np.ndarray, stride: int) -> None:
    """Adds pixels (height, width) to the counts of the cells in which they lie."""
    (rows, heights, row_edges), (columns, widths, column_edges) = (
        _cells(start, length, stride) for start, length in zip((top, left), valid.shape, strict=True)
    )
    data = np.add.reduceat(np.add.reduceat(valid.astype(np.int64), row_edges, 0), column_edges, 1)
    for k, row in enumerate(rows):
        sums[row].pixels[columns] += heights[k] * widths
        sums[row].valid[columns] += data[k]


def _add_window(sums: dict[int, _RowSums], top: int, left: int, tile: int, values: np.ndarray, stride: int) -> None:
    """Adds a window's probabilities to the cells that it covers, weighted by the number of pixels that they share."""
    (rows, heights, _), (columns, widths, _) = (_cells(start, tile, stride) for start in (top, left))
    for k, row in enumerate(rows):
        area = heights[k] * widths
        sums[row].classified[columns] += area
        sums[row].probabilities[columns] += area[:, None] * values


def _cells(start: int, length: int, stride: int) -> tuple[range, np.ndarray, np.ndarray]:
    """Divides a span of pixels along an axis among cells.

    Returns:
        The cells that it covers, its number of pixels in each, and the offset of the first of these in the span.
    """
    cells = range(start // stride, (start + length - 1) // stride + 1)
    edges = np.clip(stride * np.arange(cells.start, cells.stop + 1) - start, 0, length)
    return cells, np.diff(edges), edges[:-1]
