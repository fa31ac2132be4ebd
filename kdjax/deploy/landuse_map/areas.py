"""How much ground each class covers."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from kdjax.deploy.landuse_map.layers import Grid
from kdjax.deploy.landuse_map.legend import NODATA, entries
from kdjax.results.text import cell

METERS_A_DEGREE = 111_195.0
"""Of latitude, on a sphere of 6371 km."""


class Areas:
    """Sums over the cells of a map, taken a row at a time.

    Args:
        grid: the cells.
        classes: class names.

    Attributes:
        counts: cells of each of `legend.entries`.
    """

    def __init__(self, grid: Grid, classes: Sequence[str]):
        self._grid, self._classes = grid, classes
        self.counts = np.zeros(len(classes) + 1, int)
        self._hectares, self._confidence = np.zeros((2, len(classes) + 1))

    def add(self, number: int, best: np.ndarray, confidence: np.ndarray) -> None:
        """Adds a row of cells: values (n,) uint8 and confidences (n,)."""
        known = best != NODATA
        place = np.minimum(best[known], len(self.counts) - 1)
        counts = np.bincount(place, minlength=len(self.counts))
        self.counts += counts
        self._hectares += counts * hectares(self._grid, number)
        self._confidence += np.bincount(place, confidence[known], len(self.counts))

    def table(self) -> str:
        """CSV with a row for each of `legend.entries` that occurs, the most common first.

        The columns: value in the map, class, cells, share of all cells with data, area in hectares (empty where the
        coordinates do not say) and mean confidence.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("value", "class", "cells", "share", "area_ha", "mean_confidence"))
        found = entries(self._classes)
        for k in np.argsort(-self.counts, kind="stable"):
            if self.counts[k]:
                area = "" if math.isnan(self._hectares[k]) else f"{self._hectares[k]:.4f}"
                share = self.counts[k] / self.counts.sum()
                confidence = self._confidence[k] / self.counts[k]
                writer.writerow(
                    (found[k][0], cell(found[k][1]), self.counts[k], f"{share:.6f}", area, f"{confidence:.4f}")
                )
        return text.getvalue()


def hectares(grid: Grid, number: int) -> float:
    """Area of a cell of a row; NaN where the coordinates are neither meters nor degrees."""
    area = abs(grid.transform.determinant)
    if grid.crs.is_projected:
        return area * grid.crs.linear_units_factor[1] ** 2 / 1e4
    if grid.crs.is_geographic:
        _, latitude = grid.transform @ (grid.width / 2, number + 0.5)
        return area * METERS_A_DEGREE**2 * math.cos(math.radians(latitude)) / 1e4
    return math.nan
