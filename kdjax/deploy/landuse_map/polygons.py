"""The map as polygons: cells of one class that touch by an edge are one, in GeoJSON."""

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
BEGINS = _OPENING + '\n{"type": "Feature", "properties": {"value": '
"""What a file begins with: a map has at least one polygon."""
ENDS = "\n]}\n"
"""What it ends with."""


def check(crs: Any) -> None:
    """Refuses what leads to no longitude and latitude, such as the coordinates of a building site or of the moon.

    Args:
        crs: rasterio's coordinate reference system.

    Raises:
        InputError: it does not lead there.
    """
    try:
        transform(crs, DEGREES, [0.0], [0.0])
    except CPLE_NotSupportedError as error:
        raise _nowhere(error) from error
    except CPLE_BaseError:  # of this point alone
        pass


def _nowhere(error: BaseException) -> InputError:
    return InputError(
        f"--polygons: GeoJSON needs longitude and latitude, and the raster's coordinates do not give them "
        f"({reason(error, 80)}): leave it out, or reproject the raster with gdalwarp -t_srs"
    )


def features(path: Path, classes: Sequence[str], reach: tuple[float, float]) -> Iterator[dict[str, Any]]:
    """GeoJSON features of a map of classes, in longitude and latitude, without the cells that have no data.

    Args:
        path: the map, with its classes as values.
        classes: their names.
        reach: how far down and across the raster reaches, in cells; the last ones are cut there.

    Raises:
        InputError: a polygon has no longitude and latitude.
    """
    names = {value: name for value, name, _ in entries(classes)}
    with rasterio.open(path) as file:
        poles = {latitude: _place(DEGREES, file.crs, 0.0, latitude) for latitude in (90.0, -90.0)}
        for geometry, value in shapes(rasterio.band(file, 1), transform=file.transform):
            if value != file.nodata:
                rings = [np.array(_cut(ring, file.transform, reach)) for ring in geometry["coordinates"]]
                has_pole = functools.partial(_has_pole, rings, poles)
                yield {
                    "type": "Feature",
                    "properties": {"value": int(value), "class": names[int(value)]},
                    "geometry": antimeridian.geometry(_in_degrees(file.crs, rings), has_pole),
                }


def _has_pole(rings: Sequence[np.ndarray], poles: Mapping[float, tuple[float, float]], latitude: float) -> bool:
    return antimeridian.holds(rings, poles[latitude])


def _in_degrees(crs: Any, rings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Longitudes and latitudes of rings.

    Raises:
        InputError: a corner has none.
    """
    try:
        places = np.transpose(transform(crs, DEGREES, *np.concatenate(rings).T))
    except CPLE_BaseError as error:
        raise _nowhere(error) from error
    if not np.isfinite(places).all():
        raise _nowhere(ValueError("a corner of a cell lies off the earth"))
    return np.split(places, np.cumsum([len(ring) for ring in rings])[:-1])


def _place(crs: Any, other: Any, x: float, y: float) -> tuple[float, float]:
    """A point in other coordinates, NaN where it has no place there."""
    try:
        (found_x,), (found_y,) = transform(crs, other, [x], [y])
    except CPLE_BaseError:
        return math.nan, math.nan
    return found_x, found_y


def _cut(ring: Sequence[tuple[float, float]], transform: Any, reach: tuple[float, float]) -> list[tuple[float, float]]:
    """The corners of all cells along a ring in the coordinates of `transform`.

    A long straight side is no straight line in longitude and latitude; so many corners also make neighbors meet.

    Args:
        ring: of the corners at which its direction changes, in those coordinates.
        transform: of the cells.
        reach: down and across, cells; nothing lies beyond it.
    """
    (a, b, c, d, e, f), (down, across) = transform[:6], reach
    x, y = np.transpose(ring)
    corners = np.rint(np.linalg.solve([[a, b], [d, e]], [x - c, y - f])).T  # GDAL has placed them
    sides = np.diff(corners, axis=0)
    lengths = np.abs(sides).sum(1).astype(int)
    along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    every = np.repeat(corners[:-1], lengths, 0) + along[:, None] * np.repeat(np.sign(sides), lengths, 0)
    columns, rows = np.minimum([*every, corners[-1]], (across, down)).T
    return list(zip(a * columns + b * rows + c, d * columns + e * rows + f, strict=True))


def write(path: Path, found: Iterator[dict[str, Any]]) -> None:
    """Writes a FeatureCollection, a feature at a time."""
    with path.open("w", encoding="utf-8") as file:
        file.write(_OPENING)
        for number, feature in enumerate(found):
            file.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write(ENDS)
