"""Locates the tiles of a data set, by a table of names or by the georeferencing of the tiles and their sidecar files.

Neighboring tiles look alike. If they were on different sides of a split, the test would be easier than reality, so the
tiles of one place stay on one side; see `groups`. A place is a group named in the table, or a cell of a grid over the
earth.
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

from kdjax.errors import InputError, first_few, one_line, printable

KM_PER_DEGREE = 111.195
"""Kilometers in a degree of latitude, on a sphere with a radius of 6371 km."""


@dataclasses.dataclass(frozen=True)
class Places:
    """The places of N examples.

    Attributes:
        names: (N,) the place of each example; examples with equal ones are kept together. A table's group is a string
            and a cell from coordinates in the same table is a tuple, so the two are never equal by chance.
        centers: (N, 2) float64, longitude and latitude in degrees, NaN where only a name is known.
    """

    names: tuple[Hashable, ...]
    centers: np.ndarray

    @property
    def bounds(self) -> tuple[float, ...]:
        """West, south, east and north of the known centers, degrees; () if none is known.

        If the bounds cross the antimeridian, west is greater than east, as in RFC 7946, section 5.2.
        """
        known_centers = self.centers[~np.isnan(self.centers[:, 0])]
        if not len(known_centers):
            return ()
        west, east = _arc(known_centers[:, 0])
        return west, float(known_centers[:, 1].min()), east, float(known_centers[:, 1].max())


def from_table(path: str, names: Sequence[str], block_km: float) -> Places:
    """Reads the places of examples from a table.

    Args:
        path: a CSV file with the columns `name` and `group`, or `name`, `lon` and `lat` in degrees, in any order and
            possibly among others; or a GeoJSON FeatureCollection in longitude and latitude, whose features have a
            property `name` and are located by a property `group` or by the center of their bounds. An empty group
            counts as none.
        names: names of the examples. Other names in the table are ignored.
        block_km: side of a place that is formed from coordinates.

    Raises:
        InputError: the file cannot be read, is in another reference system than WGS 84, lacks a column or an example,
            or names an example twice.
    """
    field = "dataset.places"
    try:
        file = pathlib.Path(os.path.expanduser(path))
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            raise InputError(f"{field}: {path} is not a regular file")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: the path holds a null character, or the text is not UTF-8
        raise InputError(f"{field}: {printable(path)} cannot be read: {one_line(error)}") from error
    rows = _features(text, path) if text.lstrip().startswith("{") else _rows(text, path)
    entries: dict[str, tuple[str, float, float]] = {}
    for name, group, longitude, latitude in rows:
        key = unicodedata.normalize("NFC", name)  # the data set's names are NFC
        if key in entries:
            raise InputError(f"{field}: {path} names {name!r} twice")
        entries[key] = (unicodedata.normalize("NFC", group), longitude, latitude)
    missing = [name for name in names if name not in entries]
    if missing:
        raise InputError(
            f"{field}: {path} lacks {len(missing)} of {len(names)} images: {first_few(missing, 3)}; images are named "
            "as in splits.json"
        )
    centers = np.array([entries[name][1:] for name in names], float).reshape(-1, 2)
    groups = [entries[name][0] for name in names]
    cells = blocks(centers, block_km)
    return Places(tuple(group or (cell,) for group, cell in zip(groups, cells, strict=True)), centers)


def from_tiles(names: Sequence[str], files: Iterable[bytes], block_km: float) -> Places:
    """Derives the places from the georeferencing of the tiles, as GDAL reads it.

    Args:
        names: names of the examples.
        files: the content of each example's file.
        block_km: side of a place.

    Raises:
        InputError: rasterio is missing, or a tile is not georeferenced.
    """
    if importlib.util.find_spec("rasterio") is None:
        raise InputError("dataset.split_by='place' reads tile locations with rasterio: pip install 'kdjax[geo]'")
    locations = []
    for name, data in zip(names, files, strict=True):
        location = _center(name, data)
        if location is None:
            raise InputError(
                f"{name} has no location, which dataset.split_by='place' needs: give a table in dataset.places"
            )
        locations.append(location)
    centers = np.array(locations, float).reshape(-1, 2)
    return Places(blocks(centers, block_km), centers)


def centers_of(names: Sequence[str], files: Iterable[bytes]) -> np.ndarray | None:
    """Reads the locations of those tiles that are georeferenced, for callers that can do without.

    Args:
        names: names of the examples.
        files: the content of each example's file.

    Returns:
        (N, 2) float64, longitude and latitude in degrees, NaN for tiles that are not georeferenced. None if no tile is,
        or if rasterio is missing.
    """
    if importlib.util.find_spec("rasterio") is None:
        return None
    locations: list[tuple[float, float]] = []
    for name, data in zip(names, files, strict=True):
        location = None
        with contextlib.suppress(InputError):
            location = _center(name, data)
        locations.append(location or (math.nan, math.nan))
    centers = np.array(locations, float).reshape(-1, 2)
    return None if np.isnan(centers).all() else centers


def blocks(centers: np.ndarray, side_km: float) -> tuple[str, ...]:
    """Returns the grid cell of each point, given as (N, 2) longitude and latitude in degrees; '' for NaN.

    The cells of the grid over the earth are about as wide as they are high. Its rows follow the parallels; each row is
    divided from longitude −180 eastward, by the width of a cell at the row's middle latitude.
    """
    cells = []
    for longitude, latitude in centers.tolist():
        if math.isnan(longitude):
            cells.append("")
            continue
        row = math.floor(latitude * KM_PER_DEGREE / side_km)
        middle = math.radians(min(abs((row + 0.5) * side_km / KM_PER_DEGREE), 89.9))
        column = math.floor((longitude + 180) * KM_PER_DEGREE * math.cos(middle) / side_km)
        cells.append(f"{row}/{column}")
    return tuple(cells)


def _arc(longitudes: np.ndarray) -> tuple[float, float]:
    """The western and eastern end of the shortest arc that holds all longitudes, degrees."""
    ordered = np.sort(longitudes)
    gaps = np.diff(ordered, append=ordered[0] + 360)
    west = 0 if gaps[-1] == gaps.max() else int(gaps.argmax()) + 1  # the arc begins after the widest gap
    return float(ordered[west]), float(ordered[west - 1])


def _rows(text: str, path: str) -> Iterable[tuple[str, str, float, float]]:
    """Yields name, group, longitude and latitude from CSV text; a row has either a group or finite coordinates."""
    field = "dataset.places"
    reader = csv.DictReader(text.splitlines())
    try:
        columns = set(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:  # such as a field over the size limit, from a geometry with many corners
        raise InputError(f"{field}: {path}, line {reader.line_num + 1}: {error}: leave that column out") from error
    if "name" not in columns or not ("group" in columns or {"lon", "lat"} <= columns):
        raise InputError(f"{field}: {path} needs the columns name and group, or name, lon and lat, in its first line")
    for line, row in rows:
        origin = f"{field}: {path}, line {line}"
        if not row["name"]:
            raise InputError(f"{origin}: the name is empty")
        group = (row.get("group") or "").strip()
        if not group and not {"lon", "lat"} <= columns:
            raise InputError(f"{origin}: the group of {row['name']!r} is empty")
        yield row["name"], group, *((math.nan, math.nan) if group else _point(row["lon"], row["lat"], origin))


def _features(text: str, path: str) -> Iterable[tuple[str, str, float, float]]:
    """Yields name, group, longitude and latitude from GeoJSON; a feature has either a group or finite coordinates."""
    field = "dataset.places"
    try:
        document = json.loads(text)
        features = document["features"]
        parts = [(feature["properties"] or {}, feature["geometry"]) for feature in features]
        crs = document.get("crs")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{field}: {path} is not a GeoJSON FeatureCollection ({one_line(error)})") from error
    for number, (properties, geometry) in enumerate(parts):
        origin = f"{field}: {path}, feature {number}"
        if not isinstance(properties, Mapping) or not isinstance(properties.get("name"), str):
            raise InputError(f"{origin}: it has no property 'name'")
        group = properties.get("group")
        group = "" if group is None else str(group).strip()
        if group:
            yield properties["name"], group, math.nan, math.nan
            continue
        if crs is not None:
            _check_crs(crs, path)
        try:
            positions = list(_positions(geometry.get("coordinates") if isinstance(geometry, Mapping) else None))
        except OverflowError:
            raise InputError(f"{origin}: a coordinate is not a longitude or latitude in degrees") from None
        corners = np.array(positions)
        if corners.ndim != 2 or not len(corners):
            raise InputError(f"{origin}: it has neither a geometry nor a property 'group'")
        west, east = _arc(corners[:, 0])
        longitude = west + (east - west) % 360 / 2
        longitude, latitude = longitude - 360 * (longitude > 180), float(corners[:, 1].min() + corners[:, 1].max()) / 2
        yield properties["name"], "", *_point(longitude, latitude, origin)


def _check_crs(crs: Any, path: str) -> None:
    """Refuses a reference system other than WGS 84 in the member `crs`, which GeoJSON had before RFC 7946."""
    try:
        name = crs["properties"]["name"]
    except (KeyError, TypeError):
        name = crs
    if not re.fullmatch(r".*\b(?:CRS84h?|EPSG\W.*\b(?:4326|4979)|WGS ?84)", str(name), re.IGNORECASE):
        raise InputError(
            f"dataset.places: {path} is in {str(name)[:80]!r}, not in longitude and latitude of WGS 84: convert it, as "
            "by ogr2ogr -t_srs EPSG:4326"
        )


def _positions(coordinates: Any) -> Iterable[tuple[float, float]]:
    """Yields the longitude and latitude of every position in nested lists."""
    if not isinstance(coordinates, list) or not coordinates:
        return
    if all(isinstance(value, (int, float)) for value in coordinates[:2]) and len(coordinates) > 1:
        yield float(coordinates[0]), float(coordinates[1])
    else:
        for item in coordinates:
            yield from _positions(item)


def _point(longitude: Any, latitude: Any, origin: str) -> tuple[float, float]:
    try:
        point = float(longitude), float(latitude)
    except (TypeError, ValueError):
        point = math.nan, math.nan
    if not (abs(point[0]) <= 180 and abs(point[1]) <= 90):
        raise InputError(f"{origin}: {longitude!r}, {latitude!r} is not a longitude and latitude in degrees")
    return point


def _center(name: str, data: bytes) -> tuple[float, float] | None:
    """Longitude and latitude of a tile's center, degrees; None if the tile is not georeferenced."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.warp import transform

    sidecar, folder = getattr(data, "metadata", None), uuid.uuid4().hex  # a folder in GDAL's memory file system
    try:
        with contextlib.ExitStack() as stack:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # this function returns None instead
                file = stack.enter_context(rasterio.MemoryFile(bytes(data), dirname=folder, filename="tile"))
                if sidecar:
                    stack.enter_context(rasterio.MemoryFile(sidecar, dirname=folder, filename="tile.aux.xml"))
                tile = stack.enter_context(file.open())
            is_located = tile.crs is not None and not tile.transform.is_identity
            if is_located:
                x, y = tile.xy(tile.height / 2, tile.width / 2, offset="ul")
                (longitude,), (latitude,) = transform(tile.crs, "EPSG:4326", [x], [y])
                return _point(longitude, latitude, f"{name}: its georeferencing")
    except RasterioError as error:
        raise InputError(f"{name} has no readable location ({one_line(error)}): give dataset.places") from error
    return None
