"""How much ground each class covers."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio import warp
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it

from kdjax.deploy.landuse_map.layers import Grid
from kdjax.deploy.landuse_map.legend import NODATA, entries
from kdjax.results.text import cell

COLUMNS = ("value", "class", "cells", "share", "area_ha", "mean_confidence")
BEGINS = ",".join(COLUMNS) + "\n"
"""What a table begins with."""


@dataclasses.dataclass(frozen=True)
class Ellipsoid:
    """The shape of a body.

    Attributes:
        equator_m: half of the longer axis, m.
        eccentricity_2: the square of the eccentricity.
    """

    equator_m: float
    eccentricity_2: float


EARTH = Ellipsoid(6_378_137.0, 0.00669438)
"""WGS 84. Other ellipsoids of the earth differ by 0.1 percent."""

_IN_WKT = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*", *([^],]+), *([^],]+)')
"""With half of the longer axis, m, and the inverse flattening; 0 = a sphere."""

_CLOSE = 0.01
"""The part of its area by which a projected cell may differ from the ground and still be taken as it is."""


class Areas:
    """Sums over the cells of a map, or of several maps by the same model.

    Args:
        classes: class names.

    Attributes:
        counts: cells of each of `legend.entries`.
    """

    def __init__(self, classes: Sequence[str]):
        self._classes = classes
        self.counts = np.zeros(len(classes) + 1, int)
        self._hectares, self._confidence = np.zeros((2, len(classes) + 1))

    def add(self, best: np.ndarray, confidence: np.ndarray, hectares: np.ndarray) -> None:
        """Adds cells: values (n,) uint8, confidences (n,) and areas (n,) in hectares."""
        known = best != NODATA
        place = np.minimum(best[known], len(self.counts) - 1)
        for sums, values in ((self._hectares, hectares), (self._confidence, confidence)):
            sums += np.bincount(place, values[known], len(sums))
        self.counts += np.bincount(place, minlength=len(self.counts))

    def add_table(self, text: str) -> None:
        """Adds what `table` wrote of another map.

        Raises:
            ValueError: see `rows`.
        """
        for value, cells, hectares, confidence in rows(text):
            k = min(value, len(self.counts) - 1)
            self.counts[k] += cells
            self._hectares[k] += hectares
            self._confidence[k] += cells * confidence

    def table(self) -> str:
        """CSV with a row for each of `legend.entries` that occurs, the most common first.

        The columns: value in the map, class, cells, share of all cells with data, area in hectares (empty where the
        coordinates do not say) and mean confidence.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
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


def rows(text: str) -> list[tuple[int, int, float, float]]:
    """Value, cells, hectares (NaN = not known) and mean confidence of each row that `Areas.table` wrote.

    Raises:
        ValueError: it did not write that, or the last row is not whole.
    """
    if not (text.startswith(BEGINS) and text.endswith("\n")):
        raise ValueError("it is cut off, or not a table of areas")
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            area, confidence = float(row["area_ha"] or math.nan), float(row["mean_confidence"])
            found.append((int(row["value"]), int(row["cells"]), area, confidence))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a row without {error}") from error
    return found


def ellipsoid(crs: Any) -> Ellipsoid | None:
    """The shape of the body, such as the moon, on which coordinates lie; None = not known.

    Args:
        crs: rasterio's coordinate reference system.

    Returns:
        `EARTH` for all of the earth.
    """
    found = _IN_WKT.search(crs.to_wkt())
    if found is None:  # of three axes, for one
        return None
    equator, inverse = float(found[1]), float(found[2])
    if abs(equator / EARTH.equator_m - 1) < _CLOSE:
        return EARTH
    flattening = 1 / inverse if inverse else 0.0
    return Ellipsoid(equator, flattening * (2 - flattening))


def hectares(grid: Grid, number: int) -> np.ndarray:
    """Areas (width,) of the cells of a row; NaN where the coordinates do not say."""
    area, body = abs(grid.transform.determinant), ellipsoid(grid.crs)
    if body is None:
        return np.full(grid.width, math.nan)
    if grid.crs.is_projected:
        flat = area * grid.crs.linear_units_factor[1] ** 2 / 1e4
        ground = _on_the_ground(grid, number)
        if body is not EARTH:  # whose projections are not known to keep lengths
            return np.where(np.isfinite(ground), ground, math.nan)
        # UTM and the like keep lengths, Mercator stretches them. A comparison with NaN is false.
        return np.where(np.abs(ground - flat) > _CLOSE * ground, ground, flat)
    if grid.crs.is_geographic:
        _, radians = grid.crs.units_factor
        turned, down, top = grid.transform.d, grid.transform.e, grid.transform.f  # a turned row crosses latitudes
        latitudes = radians * (turned * (np.arange(grid.width) + 0.5) + down * (number + 0.5) + top)
        # The product of both radii of curvature: of the meridian, and of the arc across it.
        radii = body.equator_m**2 * (1 - body.eccentricity_2) / (1 - body.eccentricity_2 * np.sin(latitudes) ** 2) ** 2
        return area * radians**2 * radii * np.cos(latitudes) / 1e4
    return np.full(grid.width, math.nan)


def sides(crs: Any, transform: Any) -> tuple[float, float]:
    """Width and height on the ground of a projected pixel at the corner of `transform`, m; not finite nowhere."""
    across, down = _spans(Grid(1, 1, crs, transform), 0)
    return float(np.linalg.norm(across)), float(np.linalg.norm(down))


def _on_the_ground(grid: Grid, number: int) -> np.ndarray:
    """Areas (width,) in hectares of the projected cells of a row on the ellipsoid; not finite where they have none."""
    return np.linalg.norm(np.cross(*_spans(grid, number)), axis=-1) / 1e4


def _spans(grid: Grid, number: int) -> tuple[np.ndarray, np.ndarray]:
    """What spans the projected cells of a row on the ellipsoid: (width, 3) across and down, m.

    They go from the middle of a side to that of the other, as points in space: there is no seam at the poles and the
    antimeridian.
    """
    columns = np.arange(grid.width) + [[0.0], [1.0], [0.5], [0.5]]
    rows = number + np.broadcast_to([[0.5], [0.5], [0.0], [1.0]], columns.shape)
    a, b, c, d, e, f = grid.transform[:6]
    x, y = (a * columns + b * rows + c).ravel(), (d * columns + e * rows + f).ravel()
    nowhere, body = np.full((grid.width, 3), math.nan), ellipsoid(grid.crs)
    if body is None:
        return nowhere, nowhere
    degrees = "EPSG:4326"
    if body is not EARTH:
        shorter = body.equator_m * math.sqrt(1 - body.eccentricity_2)
        degrees = f"+proj=longlat +a={body.equator_m!r} +b={shorter!r} +no_defs +type=crs"
    try:
        longitudes, latitudes = np.radians(warp.transform(grid.crs, degrees, x, y))
    except CPLE_BaseError:
        return nowhere, nowhere
    with np.errstate(invalid="ignore"):  # infinite where there is no place
        radii = body.equator_m / np.sqrt(1 - body.eccentricity_2 * np.sin(latitudes) ** 2)
        out, up = radii * np.cos(latitudes), radii * (1 - body.eccentricity_2) * np.sin(latitudes)
        points = np.stack([out * np.cos(longitudes), out * np.sin(longitudes), up], -1)
        left, right, top, bottom = points.reshape(4, grid.width, 3)
        return right - left, bottom - top
