"""A map lies on the ground of its raster, however that is turned, and its areas are those of that ground."""

import csv
import json
import math

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.maps import UTM, by_pixels, run, scene, write  # noqa: E402
from rasterio.warp import transform_geom  # noqa: E402

Affine = rasterio.Affine
TURNED = Affine.translation(500_000, 4_600_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
PLACES = {
    "north up": Affine(10, 0, 500_000, 0, -10, 4_600_000),
    "south up": Affine(10, 0, 500_000, 0, 10, 4_600_000),
    "east up": Affine(0, -10, 500_000, 10, 0, 4_600_000),
    "turned": TURNED,
    "turned south up": TURNED @ Affine.scale(1, -1),
    "sheared": Affine(10, 2, 500_000, 3, -12, 4_600_000),
}


def at(transform, column, row):
    """The place of a point of a raster, by its six numbers."""
    a, b, c, d, e, f = transform[:6]
    return a * column + b * row + c, d * column + e * row + f


def areas(path):
    with path.open(encoding="utf-8") as file:
        return {int(row["value"]): float(row["area_ha"]) for row in csv.DictReader(file)}


def shoelace(ring):
    x, y = np.transpose(ring)
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


@pytest.mark.parametrize("kind", PLACES)
def test_a_map_lies_on_the_ground_of_its_raster(artefact, tmp_path, kind):
    """Each cell, found by its coordinates as a GIS does, holds the class of the pixels there; areas fit that ground."""
    pixels, transform = scene(37, 50), PLACES[kind]
    raster = write(tmp_path / "scene.tif", pixels, transform=transform)
    run(artefact, raster, tmp_path / "map.tif", "--stride=8", "--polygons")
    expected = by_pixels(pixels, 8, 8).argmax(-1)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.crs == UTM and not file.transform.is_identity
        places = [at(transform, 8 * column + 4, 8 * row + 4) for row, column in np.ndindex(expected.shape)]
        np.testing.assert_array_equal([value for (value,) in file.sample(places)], expected.ravel())
    # A raster of 37 x 50 px ends within the last cells.
    corners = [at(transform, *corner) for corner in ((0, 0), (50, 0), (50, 37), (0, 37), (0, 0))]
    found = areas(tmp_path / "map_areas.csv")
    assert sum(found.values()) == pytest.approx(shoelace(corners) / 1e4, abs=1e-3)
    classes = np.repeat(np.repeat(expected, 8, 0), 8, 1)[:37, :50]
    for value, area in found.items():
        assert area == pytest.approx((classes == value).sum() * abs(transform.determinant) / 1e4, abs=1e-3)
    features = json.loads((tmp_path / "map_polygons.geojson").read_text(encoding="utf-8"))["features"]
    for value in found:
        rings = [
            transform_geom("EPSG:4326", UTM, one["geometry"])["coordinates"]
            for one in features
            if one["properties"]["value"] == value
        ]
        ground = sum(shoelace(outer) - sum(map(shoelace, holes)) for outer, *holes in rings)
        assert ground == pytest.approx((expected == value).sum() * 64 * abs(transform.determinant), rel=1e-6)


def test_south_up_is_north_up_upside_down(artefact, tmp_path):
    """The same ground, stored from the south: the same classes and areas."""
    pixels = scene(48, 64)
    write(tmp_path / "north.tif", pixels, transform=Affine(10, 0, 500_000, 0, -10, 4_600_000))
    write(tmp_path / "south.tif", pixels[::-1], transform=Affine(10, 0, 500_000, 0, 10, 4_600_000 - 480))
    run(artefact, tmp_path / "north.tif", tmp_path / "south.tif", "--output", tmp_path / "maps", "--stride=8")
    with rasterio.open(tmp_path / "maps/north.tif") as north, rasterio.open(tmp_path / "maps/south.tif") as south:
        np.testing.assert_array_equal(north.read(1), south.read(1)[::-1])
    assert areas(tmp_path / "maps/north_areas.csv") == areas(tmp_path / "maps/south_areas.csv")


def ring_of_ellipsoid(south, north):
    """Area in hectares between two latitudes in degrees on WGS 84, in closed form (Snyder, 1987, equation 3-12)."""
    a, f = 6_378_137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))

    def q(latitude):
        s = math.sin(math.radians(latitude))
        return (1 - e * e) * (s / (1 - (e * s) ** 2) - math.log((1 - e * s) / (1 + e * s)) / (2 * e))

    return math.pi * a * a * (q(north) - q(south)) / 1e4


@pytest.mark.parametrize("crs, turn", [("EPSG:4326", 360), ("EPSG:4807", 400)])  # degrees, and grads of a full turn
@pytest.mark.parametrize("kind", ["north up", "south up", "east up"])
def test_cells_in_degrees_are_smaller_at_higher_latitudes(artefact, tmp_path, crs, turn, kind):
    """Half of the raster, green, lies at 60 to 64 degrees, the other half, red, at 64 to 68."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (0, 200, 0), (200, 0, 0)
    side, degree = 8 / 64, turn / 360
    if kind == "east up":  # a row of the raster is a meridian
        transform = Affine(0, side * degree, 5 * degree, side * degree, 0, 60 * degree)
    else:
        pixels = pixels.transpose(1, 0, 2)
        transform = Affine(side * degree, 0, 5 * degree, 0, side * degree, 60 * degree)
        if kind == "north up":
            pixels = pixels[::-1]
            transform = Affine(side * degree, 0, 5 * degree, 0, -side * degree, 68 * degree)
    run(artefact, write(tmp_path / "scene.tif", pixels, crs, transform), tmp_path / "map.tif", "--stride=8")
    found = areas(tmp_path / "map_areas.csv")
    assert found[1] == pytest.approx(ring_of_ellipsoid(60, 64) * 8 / 360, rel=5e-4)
    assert found[0] == pytest.approx(ring_of_ellipsoid(64, 68) * 8 / 360, rel=5e-4)
