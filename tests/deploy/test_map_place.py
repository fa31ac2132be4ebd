"""A map lies on the ground of its raster, however that is turned, and its areas are those of that ground."""

import csv
import itertools
import json
import math

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, UTM, by_pixels, run, scene, write  # noqa: E402
from rasterio import warp  # noqa: E402
from rasterio._err import CPLE_BaseError  # noqa: E402
from rasterio.warp import transform_geom  # noqa: E402

from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.deploy.landuse_map.areas import EARTH, ellipsoid, hectares  # noqa: E402
from kdjax.deploy.landuse_map.layers import Grid  # noqa: E402
from kdjax.deploy.landuse_map.raster import Raster  # noqa: E402
from kdjax.errors import InputError  # noqa: E402

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
def test_a_map_lies_on_the_ground_of_its_raster(artifact, tmp_path, kind):
    """Each cell, found by its coordinates as a GIS does, holds the class of the pixels there; areas fit that ground."""
    pixels, transform = scene(37, 50), PLACES[kind]
    raster = write(tmp_path / "scene.tif", pixels, transform=transform)
    run(artifact, raster, tmp_path / "map.tif", "--stride=8", "--polygons")
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
        assert ground == pytest.approx((classes == value).sum() * abs(transform.determinant), rel=1e-6)


def test_south_up_is_north_up_upside_down(artifact, tmp_path):
    """The same ground, stored from the south: the same classes and areas."""
    pixels = scene(48, 64)
    write(tmp_path / "north.tif", pixels, transform=Affine(10, 0, 500_000, 0, -10, 4_600_000))
    write(tmp_path / "south.tif", pixels[::-1], transform=Affine(10, 0, 500_000, 0, 10, 4_600_000 - 480))
    run(artifact, tmp_path / "north.tif", tmp_path / "south.tif", "--output", tmp_path / "maps", "--stride=8")
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
def test_cells_in_degrees_are_smaller_at_higher_latitudes(artifact, tmp_path, crs, turn, kind):
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
    run(artifact, write(tmp_path / "scene.tif", pixels, crs, transform), tmp_path / "map.tif", "--stride=8")
    found = areas(tmp_path / "map_areas.csv")
    assert found[1] == pytest.approx(ring_of_ellipsoid(60, 64) * 8 / 360, rel=5e-4)
    assert found[0] == pytest.approx(ring_of_ellipsoid(64, 68) * 8 / 360, rel=5e-4)


def cells_of(shape, crs, transform, stride):
    """The cells of a raster, and its size in them."""
    height, width = (length / stride for length in shape)
    crs = rasterio.CRS.from_user_input(crs)
    return Grid(math.ceil(height), math.ceil(width), crs, transform @ Affine.scale(stride)), (height, width)


WORLD = {
    "whole cells": ((720, 16), Affine(0.25, 0, 5, 0, -0.25, 90), 40),
    "a last row that reaches beyond the pole": ((720, 20), Affine(0.25, 0, 5, 0, -0.25, 90), 64),
    "from the south": ((720, 20), Affine(0.25, 0, 5, 0, 0.25, -90), 64),
    "points on the poles": ((721, 20), Affine(0.25, 0, 5, 0, -0.25, 90.125), 64),
    "a row is a meridian": ((20, 720), Affine(0, 0.25, 5, -0.25, 0, 90), 64),
}


@pytest.mark.parametrize("kind", WORLD)
def test_cells_end_at_the_pole_and_with_the_raster(kind):
    """Cells as large as 16 degrees; every row, or column, is a part of a ring."""
    shape, transform, stride = WORLD[kind]
    grid, size = cells_of(shape, "EPSG:4326", transform, stride)
    found = np.stack([hectares(grid, number, size) for number in range(grid.height)])
    along = 1 if kind == "a row is a meridian" else 0
    side = 0.25 if kind == "from the south" else -0.25
    edges = transform.f + side * np.minimum(stride * np.arange(found.shape[along] + 1), shape[along])
    turn = shape[1 - along] * 0.25 / 360
    rings = [abs(ring_of_ellipsoid(*pair)) * turn for pair in itertools.pairwise(np.clip(edges, -90, 90))]
    np.testing.assert_allclose(found.sum(1 - along), rings, rtol=1e-6)


# Not EPSG:4087, which is a projection of the sphere for older versions of PROJ and of the ellipsoid for newer ones.
@pytest.mark.parametrize("crs, unit", [("EPSG:4326", 1.0), ("+proj=eqc +R=6378137", math.pi * 6_378_137 / 180)])
def test_the_areas_of_a_cap_are_those_of_rings(artifact, tmp_path, crs, unit):
    """Rows of pixels from 70 to 90 degrees south, and cells of 12; the last row of cells reaches beyond the pole."""
    pixels = np.zeros((40, 720, 3), np.uint8)
    pixels[:24, :, 0], pixels[24:, :, 1] = 250, 250
    transform = Affine(0.5 * unit, 0, -180 * unit, 0, -0.5 * unit, -70 * unit)
    run(
        artifact,
        write(tmp_path / "scene.tif", pixels, crs, transform),
        tmp_path / "map.tif",
        "--tile=24",
        "--stride=24",
    )
    found = areas(tmp_path / "map_areas.csv")
    assert sum(found.values()) == pytest.approx(ring_of_ellipsoid(-90, -70), rel=1e-5)
    with rasterio.open(tmp_path / "map.tif") as file:
        (first,), (last,) = (set(row) for row in file.read(1).tolist())
    assert found[first] == pytest.approx(ring_of_ellipsoid(-82, -70), rel=1e-5)
    assert found[last] == pytest.approx(ring_of_ellipsoid(-90, -82), rel=1e-5)


@pytest.mark.parametrize("turn", [20, 45, 70, 150])
def test_turned_cells_in_degrees_have_the_area_of_their_ground(turn):
    transform = Affine.translation(20, 60) @ Affine.rotation(turn) @ Affine.scale(0.5, -0.5)
    grid = Grid(2, 3, rasterio.CRS.from_epsg(4326), transform)
    equal = rasterio.CRS.from_proj4("+proj=laea +lon_0=20 +lat_0=60 +ellps=WGS84 +units=m")
    for row in range(grid.height):
        expected = [shoelace(corners_in(equal, grid, column, row)) / 1e4 for column in range(grid.width)]
        np.testing.assert_allclose(hectares(grid, row), expected, rtol=1e-4)


@pytest.mark.parametrize("transform, reach", [
    (Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000), "4.6e.06"),  # UTM under the name of degrees
    (Affine(1, 0, 0, 0, -1, 95), "95"),
    (Affine(1, 0, 0, 0, 1, 70), "94"),
    (Affine(0, 1, 0, -1, 0, -60), "-100"),
])  # fmt: skip
def test_latitudes_beyond_the_pole_are_refused(artifact, tmp_path, transform, reach):
    path = write(tmp_path / "scene.tif", scene(24, 40), "EPSG:4326", transform)
    with pytest.raises(InputError, match=f"scene.tif: its latitudes reach {reach} degrees.*gdal_translate"):
        run(artifact, path, tmp_path / "map.tif")


def test_a_raster_whose_pixels_have_no_area_is_refused(tmp_path):
    path = write(tmp_path / "scene.tif", scene(24, 40), "EPSG:4326", Affine(0.1, 0, 5, 0, 0, 46))
    with pytest.raises(InputError, match="scene.tif: it has no geotransform"):
        Raster(path, None, None, Meaning())


def corners_in(crs, grid, column, row):
    """The outline of a cell, 9 points a side, in other coordinates: x and y."""
    steps = np.linspace(0, 1, 9)
    outline = (
        [(s, 0) for s in steps] + [(1, s) for s in steps] + [(1 - s, 1) for s in steps] + [(0, 1 - s) for s in steps]
    )
    places = [at(grid.transform, column + x, row + y) for x, y in outline]
    return np.transpose(warp.transform(grid.crs, crs, *np.transpose(places)))


@pytest.mark.parametrize(
    "crs, place, side",
    [
        ("EPSG:3857", (1_113_194.9, 6_446_275.8), 100.0),  # at 50 degrees
        ("EPSG:3857", (20_037_408.3, 11_000_000), 100.0),  # across the antimeridian
        ("EPSG:3395", (1_113_194.9, -9_000_000), 1000.0),
        ("EPSG:3413", (0.0, -3_300_000), 1000.0),  # stereographic, at 60 degrees
        ("EPSG:3413", (3_000_000, 2_000_000), 1000.0),
        ("EPSG:3413", (-1500.0, 1500), 1000.0),  # about the pole
        ("EPSG:32631", (-4_000_000, 4_000_000), 100.0),  # far out of its zone
        ("EPSG:32631", (500_000, 4_600_000), 100.0),
        ("EPSG:3035", (4_300_000, 3_200_000), 100.0),
    ],
)
@pytest.mark.parametrize("turn", [0, 30])
def test_projected_cells_have_the_area_of_their_ground(crs, place, side, turn):
    """That of their outlines in an equal-area projection about the first of them."""
    transform = Affine.translation(*place) @ Affine.rotation(turn) @ Affine.scale(side, -side)
    grid = Grid(3, 4, rasterio.CRS.from_string(crs), transform)
    (longitude,), (latitude,) = warp.transform(grid.crs, "EPSG:4326", [place[0]], [place[1]])
    equal = rasterio.CRS.from_proj4(f"+proj=laea +lon_0={longitude} +lat_0={latitude} +ellps=WGS84 +units=m")
    for row in range(grid.height):
        expected = [shoelace(corners_in(equal, grid, column, row)) / 1e4 for column in range(grid.width)]
        # Up to the part that is left as it is.
        np.testing.assert_allclose(hectares(grid, row), expected, rtol=1e-4 if crs in STRETCHED else 0.01)


@pytest.mark.parametrize("side", [2e3, 32e3, 128e3, 512e3])
@pytest.mark.parametrize(
    "crs, left, top",
    [("EPSG:6933", -17_367_530, 7_314_540), ("ESRI:54034", -2e7, 6_363_885), ("ESRI:54009", -18e6, 9e6)],
)
def test_cells_in_equal_area_projections_have_the_same_area_up_to_the_edges(crs, left, top, side):
    """World maps, from their upper left corner: the second one ends at the pole."""
    transform = Affine(side, 0, left, 0, -side, top)
    grid = Grid(int(2 * top / side), min(int(-2 * left / side), 400), rasterio.CRS.from_string(crs), transform)
    for row in (0, 1, 2, grid.height // 3, grid.height - 1):
        np.testing.assert_allclose(hectares(grid, row), side**2 / 1e4, rtol=1e-12)


@pytest.mark.parametrize("side", [80e3, 120e3, 1e6])
def test_large_cells_of_web_mercator_have_the_areas_of_rings(side):
    """North from 34 degrees."""
    grid = Grid(9, 1, rasterio.CRS.from_epsg(3857), Affine(side, 0, 0, 0, side, 4e6))
    for row in range(grid.height):
        south, north = (
            math.degrees(2 * math.atan(math.exp((4e6 + y * side) / 6_378_137)) - math.pi / 2) for y in (row, row + 1)
        )
        expected = ring_of_ellipsoid(south, north) * side / (2 * math.pi * 6_378_137)
        np.testing.assert_allclose(hectares(grid, row), expected, rtol=2e-5)


MOON, MARS = 1_737_400.0, 3_396_190.0  # radii, m


@pytest.mark.parametrize(
    ("crs", "radius", "transform"),
    [
        ("+proj=longlat +R=1737400 +no_defs +type=crs", MOON, Affine(0.01, 0, 20, 0, -0.01, 40)),
        ("IAU_2015:49900", MARS, Affine(0.01, 0, 20, 0, -0.01, 40)),
        # A true length along the equator alone: at 40 degrees an area is 1.3 times that of the ground.
        ("+proj=eqc +R=1737400 +units=m +no_defs", MOON, Affine(300, 0, 0, 0, -300, math.radians(40) * MOON)),
        ("IAU_2015:49910", MARS, Affine(300, 0, 0, 0, -300, math.radians(40) * MARS)),
    ],
)
def test_areas_and_pixels_of_another_body_are_those_of_its_sphere(artifact, tmp_path, capsys, crs, radius, transform):
    """Rows are parts of a ring between two latitudes: R² · turn · (sin north - sin south)."""
    raster = write(tmp_path / "scene.tif", scene(64, 96), rasterio.CRS.from_user_input(crs), transform)
    run(artifact, raster, tmp_path / "map.tif")
    assert not capsys.readouterr().err
    degree = math.radians(1) if transform.a < 1 else 1 / radius
    north = transform.f * degree
    south = north - 64 * abs(transform.e) * degree
    expected = radius**2 * 96 * transform.a * degree * (math.sin(north) - math.sin(south)) / 1e4
    assert sum(areas(tmp_path / "map_areas.csv").values()) == pytest.approx(expected, rel=1e-3)
    opened = Raster(raster, None, None, Meaning())
    opened.close()
    assert opened.pixel_size_m == pytest.approx(math.sqrt(1e4 * expected / (64 * 96)), rel=5e-3)


def test_the_ellipsoid_of_mars_is_flattened():
    """3396.19 km along the equator and 3376.2 km along the axis (IAU, 2015)."""
    mars = ellipsoid(rasterio.CRS.from_user_input("IAU_2015:49901"))
    assert mars.equator_m == MARS and mars.equator_m * math.sqrt(1 - mars.eccentricity_2) == pytest.approx(3_376_200)
    assert ellipsoid(UTM) == ellipsoid(rasterio.CRS.from_epsg(4807)) == EARTH


def test_coordinates_that_do_not_say_the_size_have_no_areas_and_a_line_that_says_so(artifact, tmp_path, capsys):
    local = rasterio.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    run(artifact, write(tmp_path / "scene.tif", scene(64, 96), local), tmp_path / "map.tif")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("areas: none") and "area_ha" in line
    with (tmp_path / "map_areas.csv").open() as file:
        assert {row["area_ha"] for row in csv.DictReader(file)} == {""}


def test_what_leads_to_no_longitude_and_latitude_of_another_body_has_no_area(monkeypatch):
    """Before, it was taken for flat."""
    grid = Grid(2, 3, rasterio.CRS.from_proj4("+proj=eqc +R=1737400"), Affine(300, 0, 0, 0, -300, 0))
    assert np.isfinite(hectares(grid, 0)).all()

    def failing(*arguments):
        raise CPLE_BaseError(1, 1, "no way")

    monkeypatch.setattr(warp, "transform", failing)
    assert np.isnan(hectares(grid, 0)).all()


STRETCHED = ("EPSG:3857", "EPSG:3395", "EPSG:3413")


@pytest.mark.parametrize("north", [6_446_275.84, -8_399_737.89])  # 50 degrees north and 60 south
def test_a_web_mercator_map_has_the_areas_and_the_window_of_its_ground(tmp_path, north):
    """Rows of the map are rings between latitudes; a pixel of 10 map meters shows less ground."""
    artifact = write_model(tmp_path / "student.onnx", 8, CLASSES, ground_size_m="100", tile_px="16")
    transform = Affine(10, 0, 1_113_194.9, 0, -10, north)
    raster = write(tmp_path / "scene.tif", scene(64, 96), rasterio.CRS.from_epsg(3857), transform)
    run(artifact, raster, tmp_path / "map.tif")
    latitudes = [math.degrees(2 * math.atan(math.exp(y / 6_378_137)) - math.pi / 2) for y in (north - 640, north)]
    turn = 960 / (2 * math.pi * 6_378_137)
    assert sum(areas(tmp_path / "map_areas.csv").values()) == pytest.approx(
        ring_of_ellipsoid(*latitudes) * turn, rel=1e-5
    )
    with rasterio.open(tmp_path / "map.tif") as file:
        assert int(file.tags()["tile"]) == round(10 / math.cos(math.radians(latitudes[1])))
