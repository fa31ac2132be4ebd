"""The map as polygons: cells of one class that touch by an edge are one, in GeoJSON."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rasterio
from rasterio.features import shapes
from rasterio.warp import transform_geom

from kdjax.deploy.landuse_map.legend import entries


def features(path: Path, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """GeoJSON features of a map of classes, in longitude and latitude, without the cells that have no data.

    Args:
        path: the map, with its classes as values.
        classes: their names.
    """
    names = {value: name for value, name, _ in entries(classes)}
    with rasterio.open(path) as file:
        for geometry, value in shapes(rasterio.band(file, 1), transform=file.transform):
            if value != file.nodata:
                yield {
                    "type": "Feature",
                    "properties": {"value": int(value), "class": names[int(value)]},
                    "geometry": transform_geom(file.crs, "EPSG:4326", geometry),
                }


def write(path: Path, found: Iterator[dict[str, Any]]) -> None:
    """Writes a FeatureCollection, a feature at a time."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(found):
            file.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
