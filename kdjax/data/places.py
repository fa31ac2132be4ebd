"""Where the tiles of a data set lie: by a table of names, or by what georeferenced tiles and their sidecar files say.

Neighboring tiles are alike. On two sides of a split they make a test easier than the world is, so tiles of one place
stay on one side, see `groups`. A place is a group that a table names, or a cell of a grid over the earth.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import unicodedata
import uuid
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.errors import InputError, listed, printable, reason

KM_PER_DEGREE = 111.195
"""Of latitude, on a sphere of 6371 km."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Of N examples.

    Attributes:
        names: (N,) of their places, by which they are kept together. The group of a table is a text, a cell is not, so
            that none is the other by chance.
        centers: (N, 2) float64, longitude and latitude in degrees, NaN where only a name is known.
    """

    names: tuple[Hashable, ...]
    centers: np.ndarray

    @property
    def bounds(self) -> tuple[float, ...]:
        """West, south, east and north of the centers that are known, degrees; () where none is.

        Across 180 degrees west is more than east, as RFC 7946 asks in section 5.2.
        """
        known = self.centers[~np.isnan(self.centers[:, 0])]
        if not len(known):
            return ()
        west, east = _arc(known[:, 0])
        return west, float(known[:, 1].min()), east, float(known[:, 1].max())


def from_table(path: str, names: Sequence[str], block_km: float) -> Places:
    """Places by a table.

    Args:
        path: a CSV file with the columns `name` and `group`, or `name`, `lon` and `lat` in degrees, in any order and
            among others; or GeoJSON, a FeatureCollection in longitude and latitude whose features have a property
            `name`, and are taken by the middle of their bounds or by a property `group`. An empty group is none.
        names: of the examples. What else the table names is left out.
        block_km: side of a place, where there are coordinates.

    Raises:
        InputError: the file cannot be read, is in another reference system than WGS 84, lacks a column or an example,
            or names one twice.
    """
    field = "dataset.places"
    try:
        place = pathlib.Path(os.path.expanduser(path))
        if place.exists() and not place.is_file():  # reading a pipe would wait for ever
            raise InputError(f"{field}: {path} is not a regular file")
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # a name may hold a null character
        raise InputError(f"{field}: {printable(path)} cannot be read: {reason(error)}") from error
    rows = _features(text, path) if text.lstrip().startswith("{") else _rows(text, path)
    found: dict[str, tuple[str, float, float]] = {}
    for name, group, longitude, latitude in rows:
        key = unicodedata.normalize("NFC", name)  # as in the data set
        if key in found:
            raise InputError(f"{field}: {path} names {name!r} twice")
        found[key] = (unicodedata.normalize("NFC", group), longitude, latitude)
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{field}: {path} lacks {len(missing)} of {len(names)} images: {listed(missing, 3)}; images are named as "
            "in splits.json"
        )
    centers = np.array([found[name][1:] for name in names], float).reshape(-1, 2)
    groups = [found[name][0] for name in names]
    cells = blocks(centers, block_km)
    return Places(tuple(group or (cell,) for group, cell in zip(groups, cells, strict=True)), centers)


def from_tiles(names: Sequence[str], files: Iterable[bytes], block_km: float) -> Places:
    """Places by the georeferencing of the tiles themselves, as GDAL reads it.

    Args:
        names: of the examples.
        files: the content of the file of each.
        block_km: side of a place.

    Raises:
        InputError: rasterio is missing, or a tile does not say where it lies.
    """
    if importlib.util.find_spec("rasterio") is None:
        raise InputError("dataset.split_by='place' reads tile locations with rasterio: pip install 'kdjax[geo]'")
    found = []
    for name, data in zip(names, files, strict=True):
        center = _center(name, data)
        if center is None:
            raise InputError(
                f"{name} has no location, which dataset.split_by='place' needs: give a table in dataset.places"
            )
        found.append(center)
    centers = np.array(found, float).reshape(-1, 2)
    return Places(blocks(centers, block_km), centers)


def centers_of(names: Sequence[str], files: Iterable[bytes]) -> np.ndarray | None:
    """Where tiles lie that may say so by their georeferencing, for whoever does not depend on it.

    Args:
        names: of the examples.
        files: the content of the file of each.

    Returns:
        (N, 2) float64, longitude and latitude in degrees, NaN where a tile does not say it. None where no tile does, or
        rasterio is missing.
    """
    if importlib.util.find_spec("rasterio") is None:
        return None
    found: list[tuple[float, float]] = []
    for name, data in zip(names, files, strict=True):
        center = None
        with contextlib.suppress(InputError):
            center = _center(name, data)
        found.append(center or (math.nan, math.nan))
    centers = np.array(found, float).reshape(-1, 2)
    return None if np.isnan(centers).all() else centers


def blocks(centers: np.ndarray, side_km: float) -> tuple[str, ...]:
    """Cells of a grid over the earth, as wide as they are high, that points (N, 2) of longitude and latitude lie in.

    Rows are of equal latitude; each is cut from longitude −180 on at the width that its middle latitude asks for.
    """
    named = []
    for longitude, latitude in centers.tolist():
        if math.isnan(longitude):
            named.append("")
            continue
        row = math.floor(latitude * KM_PER_DEGREE / side_km)
        middle = math.radians(min(abs((row + 0.5) * side_km / KM_PER_DEGREE), 89.9))
        column = math.floor((longitude + 180) * KM_PER_DEGREE * math.cos(middle) / side_km)
        named.append(f"{row}/{column}")
    return tuple(named)


def _arc(longitudes: np.ndarray) -> tuple[float, float]:
    """West and east end of the shortest arc that holds all longitudes, degrees."""
    around = np.sort(longitudes)
    gaps = np.diff(around, append=around[0] + 360)
    west = 0 if gaps[-1] == gaps.max() else int(gaps.argmax()) + 1  # the arc begins after the widest gap
    return float(around[west]), float(around[west - 1])


def _rows(text: str, path: str) -> Iterable[tuple[str, str, float, float]]:
    field = "dataset.places"
    reader = csv.DictReader(text.splitlines())
    try:
        columns = set(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:  # a geometry of many corners
        raise InputError(f"{field}: {path}, line {reader.line_num + 1}: {error}: leave that column out") from error
    if "name" not in columns or not ("group" in columns or {"lon", "lat"} <= columns):
        raise InputError(f"{field}: {path} needs the columns name and group, or name, lon and lat, in its first line")
    for line, row in rows:
        where = f"{field}: {path}, line {line}"
        if not row["name"]:
            raise InputError(f"{where}: the name is empty")
        group = (row.get("group") or "").strip()
        if not group and not {"lon", "lat"} <= columns:
            raise InputError(f"{where}: the group of {row['name']!r} is empty")
        yield row["name"], group, *((math.nan, math.nan) if group else _point(row["lon"], row["lat"], where))


def _features(text: str, path: str) -> Iterable[tuple[str, str, float, float]]:
    field = "dataset.places"
    try:
        document = json.loads(text)
        features = document["features"]
        described = [(one["properties"] or {}, one["geometry"]) for one in features]
        system = document.get("crs")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{field}: {path} is not a GeoJSON FeatureCollection ({reason(error)})") from error
    for number, (properties, geometry) in enumerate(described):
        where = f"{field}: {path}, feature {number}"
        if not isinstance(properties, Mapping) or not isinstance(properties.get("name"), str):
            raise InputError(f"{where}: it has no property 'name'")
        group = properties.get("group")
        group = "" if group is None else str(group).strip()
        if group:
            yield properties["name"], group, math.nan, math.nan
            continue
        if system is not None:
            _check_system(system, path)
        try:
            found = list(_positions(geometry.get("coordinates") if isinstance(geometry, Mapping) else None))
        except OverflowError:
            raise InputError(f"{where}: a coordinate is not a longitude or latitude in degrees") from None
        corners = np.array(found)
        if corners.ndim != 2 or not len(corners):
            raise InputError(f"{where}: it has neither a geometry nor a property 'group'")
        west, east = _arc(corners[:, 0])
        longitude = west + (east - west) % 360 / 2
        longitude, latitude = longitude - 360 * (longitude > 180), float(corners[:, 1].min() + corners[:, 1].max()) / 2
        yield properties["name"], "", *_point(longitude, latitude, where)


def _check_system(system: Any, path: str) -> None:
    """Refuses the member `crs`, which GeoJSON had before RFC 7946, unless it is WGS 84."""
    try:
        name = system["properties"]["name"]
    except (KeyError, TypeError):
        name = system
    if not re.fullmatch(r".*\b(?:CRS84h?|EPSG\W.*\b(?:4326|4979)|WGS ?84)", str(name), re.IGNORECASE):
        raise InputError(
            f"dataset.places: {path} is in {str(name)[:80]!r}, not in longitude and latitude of WGS 84: convert it, as "
            "by ogr2ogr -t_srs EPSG:4326"
        )


def _positions(coordinates: Any) -> Iterable[tuple[float, float]]:
    """Longitude and latitude of every position in nested lists."""
    if not isinstance(coordinates, list) or not coordinates:
        return
    if all(isinstance(value, (int, float)) for value in coordinates[:2]) and len(coordinates) > 1:
        yield float(coordinates[0]), float(coordinates[1])
    else:
        for one in coordinates:
            yield from _positions(one)


def _point(longitude: Any, latitude: Any, where: str) -> tuple[float, float]:
    try:
        found = float(longitude), float(latitude)
    except (TypeError, ValueError):
        found = math.nan, math.nan
    if not (abs(found[0]) <= 180 and abs(found[1]) <= 90):
        raise InputError(f"{where}: {longitude!r}, {latitude!r} is not a longitude and latitude in degrees")
    return found


def _center(name: str, data: bytes) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of a tile, None where it does not say where it lies."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.warp import transform

    sidecar, folder = getattr(data, "metadata", None), uuid.uuid4().hex  # a folder of GDAL's in memory
    try:
        with contextlib.ExitStack() as opened:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # that is what is asked
                file = opened.enter_context(rasterio.MemoryFile(bytes(data), dirname=folder, filename="tile"))
                if sidecar:
                    opened.enter_context(rasterio.MemoryFile(sidecar, dirname=folder, filename="tile.aux.xml"))
                tile = opened.enter_context(file.open())
            known = tile.crs is not None and not tile.transform.is_identity
            if known:
                x, y = tile.xy(tile.height / 2, tile.width / 2, offset="ul")
                (longitude,), (latitude,) = transform(tile.crs, "EPSG:4326", [x], [y])
                return _point(longitude, latitude, f"{name}: its georeferencing")
    except RasterioError as error:
        raise InputError(f"{name} has no readable location ({reason(error)}): give dataset.places") from error
    return None
