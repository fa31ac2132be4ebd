"""How much ground each class covers."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio import Affine, warp
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it

from kdjax.data.geokeys import METERS_A_DEGREE
from kdjax.deploy.landuse_map.layers import Grid
from kdjax.deploy.landuse_map.legend import NODATA, entries
from kdjax.errors import InputError
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


class _Part(NamedTuple):
    """What of a row of cells lies on the raster.

    Attributes:
        crs, transform: of the cells.
        left, across: where they begin, and their widths (width,), cells.
        top, down: the same of the row.
    """

    crs: Any
    transform: Any
    left: np.ndarray
    across: np.ndarray
    top: float
    down: float


EARTH = Ellipsoid(6_378_137.0, 0.00669438)
"""WGS 84. Other ellipsoids of the earth differ by 0.1 percent."""

_IN_WKT = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*", *([^],]+), *([^],]+)')
"""With half of the longer axis, m, and the inverse flattening; 0 = a sphere."""

_CLOSE = 0.01
"""The part of its area by which a projected cell may differ from the ground and still be taken as it is."""

_LARGE_M = 100_000.0
"""Side of a projected cell from which on one point in it does not stand for all of it."""
_STEP, _SMALL_M = 1 / 64, 10.0
"""Least side of the piece in which a projection's scale is looked up, of the cell and m."""

_AT, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_AT, _WEIGHTS = (1 + _AT) / 2, _WEIGHTS / 2
"""Gauss's points from 0 to 1 and their weights: the mean over 90 degrees of latitude is right to 1e-7."""


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


def hectares(grid: Grid, number: int, shape: tuple[float, float] | None = None) -> np.ndarray:
    """Areas (width,) of the cells of a row, as far as the raster reaches; NaN where the coordinates do not say.

    Args:
        grid: the cells.
        number: of the row.
        shape: height and width of the raster, cells: the last ones may reach beyond it; None = they do not.
    """
    height, width = shape or (grid.height, grid.width)
    left = np.arange(float(grid.width))
    across, down = np.minimum(width - left, 1.0), min(height - number, 1.0)
    part = _Part(grid.crs, grid.transform, left, across, float(number), down)
    area, body = abs(grid.transform.determinant) * across * down, ellipsoid(grid.crs)
    if body is None:
        return np.full(grid.width, math.nan)
    if grid.crs.is_projected:
        flat = area * grid.crs.linear_units_factor[1] ** 2 / 1e4
        ground = _on_the_ground(part, body) / 1e4
        if body is not EARTH:  # whose projections are not known to keep lengths
            return np.where(np.isfinite(ground), ground, math.nan)
        # UTM and the like keep lengths, Mercator stretches them. A comparison with NaN is false.
        return np.where(np.abs(ground - flat) > _CLOSE * ground, ground, flat)
    if grid.crs.is_geographic:
        return area * _in_degrees(part, body) / 1e4
    return np.full(grid.width, math.nan)


def check(path: Path | str, grid: Grid) -> None:
    """Refuses latitudes beyond the poles, up to a pixel: of global grids of points, the outer pixels lie half beyond.

    Args:
        path: the raster, for the message.
        grid: its pixels.

    Raises:
        InputError: there are such latitudes.
    """
    if not grid.crs.is_geographic:
        return
    unit, (_, _, _, d, e, f) = math.degrees(grid.crs.units_factor[1]), grid.transform[:6]
    corners = [unit * (d * column + e * row + f) for column in (0, grid.width) for row in (0, grid.height)]
    furthest = max(corners, key=abs)
    if abs(furthest) > 90 + unit * (abs(d) + abs(e)):
        raise InputError(
            f"raster {path}: its latitudes reach {furthest:g} degrees, beyond the pole: give it its own coordinate "
            "reference system with gdal_translate -a_srs, or cut it off with gdal_translate -projwin"
        )


def pixel(grid: Grid) -> tuple[float | None, float]:
    """The pixel in the middle of a raster on the ground.

    Args:
        grid: the pixels.

    Returns:
        Its side, m, None = not known; and its height over its width.
    """
    (a, b, c, d, e, f), body = grid.transform[:6], ellipsoid(grid.crs)
    side, wide, high = math.nan, math.hypot(a, d), math.hypot(b, e)
    if grid.crs.is_projected and body is not None:
        x, y, half = grid.width // 2, grid.height // 2, np.array([0.5])
        middle = Affine(a, b, a * x + b * y + c, d, e, d * x + e * y + f)
        side = math.sqrt(1e4 * hectares(Grid(1, 1, grid.crs, middle), 0)[0])
        spans = _spans(_Part(grid.crs, middle, np.zeros(1), np.ones(1), 0.0, 1.0), body, half, half, 1.0)
        on_ground = [float(np.linalg.norm(one)) for one in spans]
        if all(map(math.isfinite, on_ground)):
            wide, high = on_ground
    elif grid.crs.is_geographic:
        radians = grid.crs.units_factor[1]
        cosine = max(math.cos(radians * (f + (d * grid.width + e * grid.height) / 2)), 0.01)
        if body is not None:  # of training tiles, the size is taken from the same formula
            meters = METERS_A_DEGREE * body.equator_m / EARTH.equator_m
            side = math.degrees(radians) * meters * math.sqrt(abs(grid.transform.determinant) * cosine)
        wide, high = math.hypot(a * cosine, d), math.hypot(b * cosine, e)
    return side if math.isfinite(side) else None, high / wide


def _in_degrees(part: _Part, body: Ellipsoid) -> np.ndarray:
    """The ground (width,) of a unit of longitude times one of latitude, m², on average over each cell.

    There is none beyond the poles.
    """
    _, radians = part.crs.units_factor
    _, _, _, d, e, f = (radians * one for one in part.transform[:6])
    first = np.stack([d * part.left, np.full_like(part.left, e * part.top)])
    steps = np.stack([d * part.across, np.full_like(part.left, e * part.down)])
    if abs(d) > abs(e):  # from here on the second axis is that along which the latitude changes most
        first, steps = first[::-1], steps[::-1]
    starts = f + first.sum(0) + _AT[:, None] * steps[0]
    low, high = np.clip([starts, starts + steps[1]], -math.pi / 2, math.pi / 2)
    latitudes = low + _AT[:, None, None] * (high - low)
    # The product of both radii of curvature: of the meridian, and of the arc across it.
    radii = body.equator_m**2 * (1 - body.eccentricity_2) / (1 - body.eccentricity_2 * np.sin(latitudes) ** 2) ** 2
    mean = np.tensordot(_WEIGHTS, radii * np.cos(latitudes), 1) * (high - low) / steps[1]
    return radians**2 * (_WEIGHTS @ mean)


def _on_the_ground(part: _Part, body: Ellipsoid) -> np.ndarray:
    """Areas (width,) of projected cells on the ellipsoid, m²; NaN where they have none."""
    side = math.sqrt(abs(part.transform.determinant)) * part.crs.linear_units_factor[1]
    at, weights = (_AT, _WEIGHTS) if side > _LARGE_M else (np.array([0.5]), np.ones(1))
    # Near its edges a projection is far from even within a cell, so its scale is looked up in a small part of that.
    # Some projections are not inverted more precisely than to a millimeter.
    step = min(1.0, max(_STEP, _SMALL_M / side))
    x, y = (one.ravel() for one in np.meshgrid(at, at))
    areas = np.linalg.norm(np.cross(*_spans(part, body, x, y, step)), axis=-1) / step**2
    known, counted = np.isfinite(areas), np.outer(weights, weights).reshape(-1, 1)
    found, total = (counted * known).sum(0), np.where(known, counted * areas, 0).sum(0)
    return np.divide(total, found, out=np.full_like(total, math.nan), where=found > 0)


def _spans(part: _Part, body: Ellipsoid, x: np.ndarray, y: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """What spans pieces of projected cells on the ellipsoid: (n, width, 3) across and down, m; not finite beside it.

    They go from the middle of a side to that of the other, as points in space: there is no seam at the poles and the
    antimeridian.

    Args:
        part: the cells.
        body: where they lie.
        x, y: the middles (n,) of the pieces, from 0 to 1 across and down each cell.
        step: side of the pieces, from 0 to 1 as well.
    """
    half = step / 2
    columns = part.left + np.array([x - half, x + half, x, x])[..., None] * part.across
    rows = part.top + np.array([y, y, y - half, y + half])[..., None] * part.down + np.zeros_like(columns)
    a, b, c, d, e, f = part.transform[:6]
    places = (a * columns + b * rows + c).ravel(), (d * columns + e * rows + f).ravel()
    degrees = "EPSG:4326"
    if body is not EARTH:
        shorter = body.equator_m * math.sqrt(1 - body.eccentricity_2)
        degrees = f"+proj=longlat +a={body.equator_m!r} +b={shorter!r} +no_defs +type=crs"
    try:
        longitudes, latitudes = np.radians(warp.transform(part.crs, degrees, *places))
    except CPLE_BaseError:
        nowhere = np.full((*columns.shape[1:], 3), math.nan)
        return nowhere, nowhere
    with np.errstate(invalid="ignore"):  # infinite where there is no place
        radii = body.equator_m / np.sqrt(1 - body.eccentricity_2 * np.sin(latitudes) ** 2)
        out, up = radii * np.cos(latitudes), radii * (1 - body.eccentricity_2) * np.sin(latitudes)
        points = np.stack([out * np.cos(longitudes), out * np.sin(longitudes), up], -1)
        left, right, top, bottom = points.reshape(*columns.shape, 3)
        return right - left, bottom - top
