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

from kdjax.deploy.landuse_map import antimeridian
from kdjax.deploy.landuse_map.legend import entries
from kdjax.errors import InputError, reason

DEGREES = "EPSG:4326"

_OPENING = '{"type": "FeatureCollection", "features": ['
TEXT_START = _OPENING + '\n{"type": "Feature", "properties": {"value": '
"""How a file starts; every map has at least one polygon."""
TEXT_END = "\n]}\n"
"""How a file ends."""


def check(crs: Any) -> None:
    """Refuses coordinates without longitude and latitude, such as those of a building site or of the moon.

    Args:
        crs: rasterio's coordinate reference system.

    Raises:
        InputError: it cannot be transformed to longitude and latitude.
    """
    try:
        transform(crs, DEGREES, [0.0], [0.0])
    except CPLE_NotSupportedError as error:
        raise _no_degrees_error(error) from error
    except CPLE_BaseError:  # only this point has none
        pass


def _no_degrees_error(error: BaseException) -> InputError:
    return InputError(
        f"--polygons: GeoJSON needs longitude and latitude, and the raster's coordinates do not give them "
        f"({reason(error, 80)}): leave it out, or reproject the raster with gdalwarp -t_srs"
    )


def features(path: Path, classes: Sequence[str], extent: tuple[float, float]) -> Iterator[dict[str, Any]]:
    """Yields the GeoJSON features of a map in longitude and latitude; cells without data are left out.

    Args:
        path: the map, whose values are classes.
        classes: class names.
        extent: height and width of the raster, in cells; the last cells are cut there.

    Raises:
        InputError: a polygon has no longitude and latitude.
    """
    names = {value: name for value, name, _ in entries(classes)}
    with rasterio.open(path) as file:
        poles = {latitude: _transform_point(DEGREES, file.crs, 0.0, latitude) for latitude in (90.0, -90.0)}
        for geometry, value in shapes(rasterio.band(file, 1), transform=file.transform):
            if value != file.nodata:
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
    """Transforms rings to longitude and latitude.

    Raises:
        InputError: a corner has none.
    """
    try:
        degrees = np.transpose(transform(crs, DEGREES, *np.concatenate(rings).T))
    except CPLE_BaseError as error:
        raise _no_degrees_error(error) from error
    if not np.isfinite(degrees).all():
        raise _no_degrees_error(ValueError("a corner of a cell lies off the earth"))
    return np.split(degrees, np.cumsum([len(ring) for ring in rings])[:-1])


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
    return list(zip(a * columns + b * rows + c, d * columns + e * rows + f, strict=True))


def write(path: Path, collection: Iterator[dict[str, Any]]) -> None:
    """Writes features to a FeatureCollection, one at a time."""
    with path.open("w", encoding="utf-8") as file:
        file.write(_OPENING)
        for k, feature in enumerate(collection):
            file.write((",\n" if k else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write(TEXT_END)
