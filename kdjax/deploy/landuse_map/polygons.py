"""Writes the map as polygons in GeoJSON; cells of one class that share an edge belong to one polygon."""

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError, CPLE_NotSupportedError  # rasterio.errors has no name for them
from rasterio.features import shapes
from rasterio.warp import transform
from rasterio.windows import Window

from kdjax.deploy.landuse_map import antimeridian
from kdjax.deploy.landuse_map.layers import Grid
from kdjax.deploy.landuse_map.legend import NODATA, entries
from kdjax.errors import InputError, one_line

DEGREES = "EPSG:4326"

_OPENING = '{"type": "FeatureCollection", "features": ['
TEXT_START = _OPENING + '\n{"type": "Feature", "properties": {"value": '
"""How a file starts; every file has at least one feature."""
TEXT_END = "\n]}\n"
"""How a file ends."""

_POINTS = 17  # along each side of a raster; it is refused if none of them lies on the earth


def check(grid: Grid) -> None:
    """Refuses coordinates without longitude and latitude, such as those of a building site, of the moon or of space.

    Args:
        grid: the pixels of the raster.

    Raises:
        InputError: they cannot be transformed to longitude and latitude, at none of the points examined.
    """
    try:
        transform(grid.crs, DEGREES, [0.0], [0.0])
    except CPLE_NotSupportedError as error:
        raise _no_degrees_error(one_line(error, 80)) from error
    except CPLE_BaseError:  # only this point has none
        pass
    shares = np.linspace(0, 1, _POINTS)
    x, y = _places(grid.transform, *np.meshgrid(grid.width * shares, grid.height * shares))
    if not _have_degrees(grid.crs, x.ravel(), y.ravel()).any():
        raise _no_degrees_error("no part of it lies on the earth")


def _no_degrees_error(cause: str) -> InputError:
    return InputError(
        f"--polygons: GeoJSON needs longitude and latitude, and the raster's coordinates do not give them "
        f"({cause}): leave it out, or reproject the raster with gdalwarp -t_srs"
    )


def drawable(path: Path, extent: tuple[float, float]) -> np.ndarray:
    """Finds the cells of a map that polygons can show, bool (rows, columns).

    They have data, a longitude and latitude at each corner, as cells beside a geostationary satellite's view of the
    earth have not, and an area, as cells beyond a pole have not.

    Args:
        path: the map.
        extent: height and width of the raster, in cells; the last cells are cut there.
    """
    with rasterio.open(path) as file:
        result = np.zeros(file.shape, bool)
        for row in range(file.height):
            cells = np.flatnonzero(file.read(1, window=Window(0, row, file.width, 1))[0] != file.nodata)
            if cells.size:
                columns = np.minimum(cells + np.array([[0], [0], [1], [1]]), extent[1])
                rows = np.minimum(row + np.array([[0], [1], [0], [1]]), extent[0])
                x, y = _places(file.transform, columns, rows)
                y = _within_poles(file.crs, y)
                has_degrees = _have_degrees(file.crs, x.ravel(), y.ravel()).reshape(y.shape)
                result[row, cells] = has_degrees.all(0) & (np.ptp(y, 0) > 0)
    return result


def features(
    path: Path, classes: Sequence[str], extent: tuple[float, float], shown: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yields the GeoJSON features of a map in longitude and latitude.

    Args:
        path: the map, whose values are classes.
        classes: class names.
        extent: height and width of the raster, in cells; the last cells are cut there.
        shown: bool (rows, columns), the cells that belong to polygons: all or some of the `drawable` ones.
    """
    names = {value: name for value, name, _ in entries(classes)}
    with rasterio.open(path) as file:
        poles = {latitude: _transform_point(DEGREES, file.crs, 0.0, latitude) for latitude in (90.0, -90.0)}
        if not shown.any():  # `TEXT_START` says that there is a feature; GeoJSON knows some without a place
            yield {"type": "Feature", "properties": {"value": NODATA, "class": None}, "geometry": None}
        for geometry, value in shapes(rasterio.band(file, 1), shown, transform=file.transform):
            rings = [np.array(_densify(ring, file.transform, extent)) for ring in geometry["coordinates"]]
            has_pole = functools.partial(_has_pole, rings, poles)
            yield {
                "type": "Feature",
                "properties": {"value": int(value), "class": names[int(value)]},
                "geometry": antimeridian.geometry(_in_degrees(file.crs, rings), has_pole),
            }


def _has_pole(rings: Sequence[np.ndarray], poles: Mapping[float, tuple[float, float]], latitude: float) -> bool:
    return antimeridian.contains(rings, poles[latitude])


def _in_degrees(crs: Any, rings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Transforms rings to longitude and latitude."""
    x, y = np.concatenate(rings).T
    degrees = np.transpose(transform(crs, DEGREES, x, _within_poles(crs, y)))
    return np.split(degrees, np.cumsum([len(ring) for ring in rings])[:-1])


def _within_poles(crs: Any, y: np.ndarray) -> np.ndarray:
    """Moves latitudes beyond a pole, of which `areas.check` lets a pixel pass, to the pole; keeps projected values."""
    if not crs.is_geographic:
        return y
    pole = math.radians(90) / crs.units_factor[1]
    return np.clip(y, -pole, pole)


def _have_degrees(crs: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each point (n,) has a longitude and latitude, bool (n,)."""
    try:
        return np.isfinite(transform(crs, DEGREES, x, y)).all(0)
    except CPLE_BaseError:  # for some projections, one point without them suffices
        if len(x) == 1:
            return np.zeros(1, bool)
    halves = zip(np.array_split(x, 2), np.array_split(y, 2), strict=True)
    return np.concatenate([_have_degrees(crs, *half) for half in halves])


def _transform_point(source: Any, target: Any, x: float, y: float) -> tuple[float, float]:
    """Transforms a point between coordinate reference systems; NaN if it has no coordinates in `target`."""
    try:
        (target_x,), (target_y,) = transform(source, target, [x], [y])
    except CPLE_BaseError:
        return math.nan, math.nan
    return target_x, target_y


def _densify(
    ring: Sequence[tuple[float, float]], transform: Any, extent: tuple[float, float]
) -> list[tuple[float, float]]:
    """Adds the corners of all cells along a ring to it.

    A long straight side is not a straight line in longitude and latitude. With all corners, neighboring polygons also
    meet exactly.

    Args:
        ring: the corners where its direction changes, in the coordinates of `transform`.
        transform: of the cells.
        extent: height and width of the raster, in cells, to which corners are moved that lie beyond it.
    """
    (a, b, c, d, e, f), (height, width) = transform[:6], extent
    x, y = np.transpose(ring)
    # As column and row: integers, but for the rounding of GDAL's coordinates.
    corners = np.rint(np.linalg.solve([[a, b], [d, e]], [x - c, y - f])).T
    sides = np.diff(corners, axis=0)
    lengths = np.abs(sides).sum(1).astype(int)
    along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    dense = np.repeat(corners[:-1], lengths, 0) + along[:, None] * np.repeat(np.sign(sides), lengths, 0)
    columns, rows = np.minimum([*dense, corners[-1]], (width, height)).T
    return list(zip(*_places(transform, columns, rows), strict=True))


def _places(transform: Any, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates x and y of points by their columns and rows."""
    a, b, c, d, e, f = transform[:6]
    return a * columns + b * rows + c, d * columns + e * rows + f


def write(path: Path, map_path: Path, classes: Sequence[str], extent: tuple[float, float]) -> int:
    """Writes the `features` of the `drawable` cells of a map, one at a time; returns the number of these cells."""
    shown = drawable(map_path, extent)
    with path.open("w", encoding="utf-8") as file:
        file.write(_OPENING)
        for k, feature in enumerate(features(map_path, classes, extent, shown)):
            file.write((",\n" if k else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write(TEXT_END)
    return int(shown.sum())
