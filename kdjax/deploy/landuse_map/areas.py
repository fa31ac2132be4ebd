"""Computes the ground area of each class of a map."""

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
TEXT_START = ",".join(COLUMNS) + "\n"
"""How a table starts."""


@dataclasses.dataclass(frozen=True)
class Ellipsoid:
    """The shape of a celestial body.

    Attributes:
        equator_m: semi-major axis, m.
        eccentricity_2: square of the eccentricity.
    """

    equator_m: float
    eccentricity_2: float


class _RowOfCells(NamedTuple):
    """The parts of a row's cells that lie on the raster.

    Attributes:
        crs, transform: of the cells.
        left, widths: left edge and width of each part, (columns,), in cells.
        top, height: top edge and height of the row, in cells.
    """

    crs: Any
    transform: Any
    left: np.ndarray
    widths: np.ndarray
    top: float
    height: float


EARTH = Ellipsoid(6_378_137.0, 0.00669438)
"""WGS 84. Other ellipsoids of the earth differ from it by 0.1 percent."""

_ELLIPSOID_IN_WKT = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*", *([^],]+), *([^],]+)')
"""Its groups are the semi-major axis, m, and the inverse flattening, 0 for a sphere."""

_TOLERANCE = 0.01
"""Largest relative difference between a projected area and the ground for which the projected area is used."""

_LARGE_M = 100_000.0
"""Side of a projected cell above which the projection's scale is measured at several points in it."""
_MIN_STEP, _MIN_STEP_M = 1 / 64, 10.0
"""Smallest side of the piece of a cell in which the projection's scale is measured, as a share of the cell and in m."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_NODES, _WEIGHTS = (1 + _NODES) / 2, _WEIGHTS / 2
"""Nodes and weights of Gauss-Legendre quadrature from 0 to 1; a mean over 90 degrees of latitude is exact to 1e-7."""


class Areas:
    """Sums over the cells of one map, or of several maps of the same model.

    Args:
        classes: class names.

    Attributes:
        counts: number of cells of each of `legend.entries`.
    """

    def __init__(self, classes: Sequence[str]):
        self._classes = classes
        self.counts = np.zeros(len(classes) + 1, int)
        self._hectares, self._confidence = np.zeros((2, len(classes) + 1))

    def add(self, best: np.ndarray, confidence: np.ndarray, hectares: np.ndarray) -> None:
        """Adds cells: values (n,) uint8, confidences (n,) and areas (n,) in hectares."""
        has_value = best != NODATA
        indices = np.minimum(best[has_value], len(self.counts) - 1)  # that of UNKNOWN is the last one
        for sums, values in ((self._hectares, hectares), (self._confidence, confidence)):
            sums += np.bincount(indices, values[has_value], len(sums))
        self.counts += np.bincount(indices, minlength=len(self.counts))

    def add_table(self, text: str) -> None:
        """Adds the sums in the text of another map's `table`.

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

        Its columns are the value in the map, the class, the number of cells, their share of all cells with a value, the
        area in hectares (empty if the coordinates do not tell) and the mean confidence.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        all_entries = entries(self._classes)
        for k in np.argsort(-self.counts, kind="stable"):
            if self.counts[k]:
                area = "" if math.isnan(self._hectares[k]) else f"{self._hectares[k]:.4f}"
                share = self.counts[k] / self.counts.sum()
                confidence = self._confidence[k] / self.counts[k]
                value, name, _ = all_entries[k]
                writer.writerow((value, cell(name), self.counts[k], f"{share:.6f}", area, f"{confidence:.4f}"))
        return buffer.getvalue()


def rows(text: str) -> list[tuple[int, int, float, float]]:
    """Reads value, cells, hectares (NaN = not known) and mean confidence from each row of an `Areas.table`.

    Raises:
        ValueError: the text is not such a table, or is cut off.
    """
    if not (text.startswith(TEXT_START) and text.endswith("\n")):
        raise ValueError("it is cut off, or not a table of areas")
    records = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            area, confidence = float(row["area_ha"] or math.nan), float(row["mean_confidence"])
            records.append((int(row["value"]), int(row["cells"]), area, confidence))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a row without {error}") from error
    return records


def ellipsoid(crs: Any) -> Ellipsoid | None:
    """The shape of the celestial body to which coordinates refer.

    Args:
        crs: rasterio's coordinate reference system.

    Returns:
        `EARTH` for every ellipsoid of the earth; None = not known.
    """
    match = _ELLIPSOID_IN_WKT.search(crs.to_wkt())
    if match is None:  # for example, an ellipsoid with three different axes
        return None
    equator, inverse_flattening = float(match[1]), float(match[2])
    if abs(equator / EARTH.equator_m - 1) < _TOLERANCE:
        return EARTH
    flattening = 1 / inverse_flattening if inverse_flattening else 0.0
    return Ellipsoid(equator, flattening * (2 - flattening))


def hectares(grid: Grid, number: int, shape: tuple[float, float] | None = None) -> np.ndarray:
    """Areas (width,) of the parts of a row's cells that lie on the raster; NaN if the coordinates do not tell.

    Args:
        grid: the cells.
        number: index of the row.
        shape: height and width of the raster, in cells, if the last cells extend beyond it; None = they do not.
    """
    height, width = shape or (grid.height, grid.width)
    left = np.arange(float(grid.width))
    widths, row_height = np.minimum(width - left, 1.0), min(height - number, 1.0)
    row = _RowOfCells(grid.crs, grid.transform, left, widths, float(number), row_height)
    area, body = abs(grid.transform.determinant) * widths * row_height, ellipsoid(grid.crs)
    if body is None:
        return np.full(grid.width, math.nan)
    if grid.crs.is_projected:
        projected = area * grid.crs.linear_units_factor[1] ** 2 / 1e4
        ground = _ground_areas(row, body) / 1e4
        if body is not EARTH:  # elsewhere no projection is trusted to preserve lengths
            return np.where(np.isfinite(ground), ground, math.nan)
        # UTM and similar projections nearly preserve lengths, but Mercator stretches them. If `ground` is NaN, the
        # comparison is false.
        return np.where(np.abs(ground - projected) > _TOLERANCE * ground, ground, projected)
    if grid.crs.is_geographic:
        return area * _area_per_square_unit(row, body) / 1e4
    return np.full(grid.width, math.nan)


def check(path: Path | str, grid: Grid) -> None:
    """Refuses latitudes that reach more than a pixel beyond a pole.

    Up to a pixel is allowed: in global grids of points, half of each outermost pixel lies beyond the pole.

    Args:
        path: the raster, for the message.
        grid: its pixels.

    Raises:
        InputError: the latitudes reach further.
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


def middle_pixel(grid: Grid) -> tuple[float | None, float]:
    """Measures the pixel in the middle of a raster on the ground.

    Args:
        grid: the pixels.

    Returns:
        The side of a square of the same area, m, None = not known; and the ratio of its height to its width.
    """
    (a, b, c, d, e, f), body = grid.transform[:6], ellipsoid(grid.crs)
    side, width, height = math.nan, math.hypot(a, d), math.hypot(b, e)
    if grid.crs.is_projected and body is not None:
        x, y, half = grid.width // 2, grid.height // 2, np.array([0.5])
        middle = Affine(a, b, a * x + b * y + c, d, e, d * x + e * y + f)
        side = math.sqrt(1e4 * hectares(Grid(1, 1, grid.crs, middle), 0)[0])
        row = _RowOfCells(grid.crs, middle, np.zeros(1), np.ones(1), 0.0, 1.0)
        lengths = [float(np.linalg.norm(span)) for span in _spans(row, body, half, half, 1.0)]
        if all(map(math.isfinite, lengths)):
            width, height = lengths
    elif grid.crs.is_geographic:
        radians = grid.crs.units_factor[1]
        cosine = max(math.cos(radians * (f + (d * grid.width + e * grid.height) / 2)), 0.01)
        if body is not None:  # the same formula as for training tiles, see `kdjax.data.geokeys`
            meters = METERS_A_DEGREE * body.equator_m / EARTH.equator_m
            side = math.degrees(radians) * meters * math.sqrt(abs(grid.transform.determinant) * cosine)
        width, height = math.hypot(a * cosine, d), math.hypot(b * cosine, e)
    return side if math.isfinite(side) else None, height / width


def _area_per_square_unit(row: _RowOfCells, body: Ellipsoid) -> np.ndarray:
    """The ground area (columns,), m², of one unit of longitude by one of latitude, averaged over each cell.

    Ground beyond the poles counts as 0.
    """
    _, radians = row.crs.units_factor
    _, _, _, d, e, f = (radians * coefficient for coefficient in row.transform[:6])
    first = np.stack([d * row.left, np.full_like(row.left, e * row.top)])
    steps = np.stack([d * row.widths, np.full_like(row.left, e * row.height)])
    if abs(d) > abs(e):  # make the second axis the one along which the latitude changes more
        first, steps = first[::-1], steps[::-1]
    starts = f + first.sum(0) + _NODES[:, None] * steps[0]
    low, high = np.clip([starts, starts + steps[1]], -math.pi / 2, math.pi / 2)
    latitudes = low + _NODES[:, None, None] * (high - low)
    # The product of the radii of curvature along the meridian and across it.
    radii = body.equator_m**2 * (1 - body.eccentricity_2) / (1 - body.eccentricity_2 * np.sin(latitudes) ** 2) ** 2
    mean = np.tensordot(_WEIGHTS, radii * np.cos(latitudes), 1) * (high - low) / steps[1]
    return radians**2 * (_WEIGHTS @ mean)


def _ground_areas(row: _RowOfCells, body: Ellipsoid) -> np.ndarray:
    """Areas (columns,) of projected cells on the ellipsoid, m²; NaN for cells beyond the projection."""
    side = math.sqrt(abs(row.transform.determinant)) * row.crs.linear_units_factor[1]
    nodes, node_weights = (_NODES, _WEIGHTS) if side > _LARGE_M else (np.array([0.5]), np.ones(1))
    # Near the edges of a projection its scale varies much within a cell, so it is measured in small pieces; but some
    # projections are inverted only to within a millimeter, so the pieces are not too small.
    step = min(1.0, max(_MIN_STEP, _MIN_STEP_M / side))
    x, y = (coordinates.ravel() for coordinates in np.meshgrid(nodes, nodes))
    areas = np.linalg.norm(np.cross(*_spans(row, body, x, y, step)), axis=-1) / step**2
    finite, weights = np.isfinite(areas), np.outer(node_weights, node_weights).reshape(-1, 1)
    weight_sums, area_sums = (weights * finite).sum(0), np.where(finite, weights * areas, 0).sum(0)
    return np.divide(area_sums, weight_sums, out=np.full_like(area_sums, math.nan), where=weight_sums > 0)


def _spans(
    row: _RowOfCells, body: Ellipsoid, x: np.ndarray, y: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, columns, 3) that span pieces of projected cells on the ellipsoid, m: across and down.

    They connect the middles of opposite sides, as points in space, so there are no seams at the poles and the
    antimeridian. They are not finite for pieces beyond the projection.

    Args:
        row: the cells.
        body: the ellipsoid.
        x, y: the middles (n,) of the pieces, from 0 to 1 across and down each cell.
        step: side of the pieces, as a share of the cell.
    """
    half = step / 2
    columns = row.left + np.array([x - half, x + half, x, x])[..., None] * row.widths
    rows = row.top + np.array([y, y, y - half, y + half])[..., None] * row.height + np.zeros_like(columns)
    a, b, c, d, e, f = row.transform[:6]
    coordinates = (a * columns + b * rows + c).ravel(), (d * columns + e * rows + f).ravel()
    degrees = "EPSG:4326"
    if body is not EARTH:
        polar_m = body.equator_m * math.sqrt(1 - body.eccentricity_2)
        degrees = f"+proj=longlat +a={body.equator_m!r} +b={polar_m!r} +no_defs +type=crs"
    try:
        longitudes, latitudes = np.radians(warp.transform(row.crs, degrees, *coordinates))
    except CPLE_BaseError:
        undefined = np.full((*columns.shape[1:], 3), math.nan)
        return undefined, undefined
    with np.errstate(invalid="ignore"):  # coordinates beyond the projection are infinite
        radii = body.equator_m / np.sqrt(1 - body.eccentricity_2 * np.sin(latitudes) ** 2)
        out, up = radii * np.cos(latitudes), radii * (1 - body.eccentricity_2) * np.sin(latitudes)
        points = np.stack([out * np.cos(longitudes), out * np.sin(longitudes), up], -1)
        left, right, top, bottom = points.reshape(*columns.shape, 3)
        return right - left, bottom - top
