"""Polygons of maps across 180 degrees of longitude and about the poles, as a reader of GeoJSON draws them."""

import itertools

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.maps import CLASSES, write  # noqa: E402
from rasterio.features import rasterize  # noqa: E402
from rasterio.warp import transform  # noqa: E402

from kdjax.deploy.landuse_map import antimeridian, polygons  # noqa: E402

SIDE = 64  # cells


def drawn(tmp_path, crs, corner, cell, values):
    """The polygons of a map whose upper left corner is there, and its transform."""
    place = rasterio.Affine(cell, 0, corner[0], 0, -cell, corner[1])
    write(tmp_path / "map.tif", values[..., None], crs=crs, transform=place, nodata=255)
    shown = polygons.drawable(tmp_path / "map.tif", values.shape)
    return list(polygons.features(tmp_path / "map.tif", CLASSES, values.shape, shown)), place


def outlines(feature):
    """Lists of rings (n, 2)."""
    geometry = feature["geometry"]
    listed = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [[np.array(ring) for ring in polygon] for polygon in listed]


def shoelace(ring):
    x, y = (ring - ring[0]).T
    return (np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def check_rings(found):
    """RFC 7946: closed, within 180 degrees, outlines to the left, holes to the right, no jump to the other side."""
    for feature in found:
        for outline, *holes in outlines(feature):
            assert shoelace(outline) > 0 and all(shoelace(hole) < 0 for hole in holes)
            for ring in (outline, *holes):
                assert len(ring) >= 4 and (ring[0] == ring[-1]).all() and np.abs(ring).max(0)[0] <= 180
                jumps = np.abs(np.diff(ring[:, 0])) > 180
                assert (np.abs(ring[:-1][jumps][:, 1]) == 90).all()


def check_drawn(found, crs, place, values, windows, wrong):
    """Drawn flat in windows (west, south, east, north), they show at each point what the map has there."""
    shapes = [(one["geometry"], one["properties"]["value"]) for one in found]
    for west, south, east, north in windows:
        degrees = rasterio.Affine((east - west) / 300, 0, west, 0, (south - north) / 300, north)
        back = rasterize(shapes, (300, 300), fill=255, transform=degrees, dtype="uint8")
        middles = (np.arange(300) + 0.5) / 300
        longitudes, latitudes = np.meshgrid(west + middles * (east - west), north - middles * (north - south))
        if crs == "EPSG:4326" and place.c > 0:
            longitudes = longitudes % 360
        x, y = np.array(transform("EPSG:4326", crs, longitudes.ravel(), latitudes.ravel()))
        columns, rows = np.floor((x - place.c) / place.a).astype(int), np.floor((y - place.f) / place.e).astype(int)
        inside = (np.minimum(columns, rows) >= 0) & (np.maximum(columns, rows) < SIDE)
        expected = np.where(inside, values[rows.clip(0, SIDE - 1), columns.clip(0, SIDE - 1)], 255)
        assert inside.any() and (back.ravel() != expected).mean() < wrong


MAPS = {  # system, its point in the middle of the map (degrees), m or degrees a cell, windows
    "utm 60": ("EPSG:32660", (180, 18), 100, ((179.96, 17.96, 180, 18.04), (-180, 17.96, -179.96, 18.04))),
    "utm 1 south": ("EPSG:32701", (180, -17), 100, ((179.96, -17.04, 180, -16.96), (-180, -17.04, -179.96, -16.96))),
    "arctic": ("EPSG:3413", (180, 70), 100, ((179.9, 69.96, 180, 70.04), (-180, 69.96, -179.9, 70.04))),
    "mercator of the pacific": (
        "EPSG:3832", (180, -17), 100, ((179.96, -17.04, 180, -16.96), (-180, -17.04, -179.96, -16.96)),
    ),
    "degrees from 0 to 360": (
        "EPSG:4326", (180, 18), 0.001, ((179.96, 17.96, 180, 18.04), (-180, 17.96, -179.96, 18.04)),
    ),
    "degrees up to 180": ("EPSG:4326", (179.968, 18), 0.001, ((179.93, 17.96, 180, 18.04),)),
    "degrees up to the pole": ("EPSG:4326", (10, 88), 1 / 16, ((8, 86.01, 11.99, 90),)),
    "north pole": ("EPSG:3413", (0, 90), 10_000, ((-180, 84, 180, 90),)),
    "south pole": ("EPSG:3031", (0, -90), 10_000, ((-180, -90, 180, -84),)),
    "north pole at a corner": ("EPSG:3413", (0, 90), 10_000, ((-180, 84, 180, 90),)),
    "south pole at a corner": ("EPSG:3031", (0, -90), 10_000, ((-180, -90, 180, -84),)),
    "beside the pole": ("EPSG:3413", (100, 88.8), 10_000, ((-180, 84, 180, 90),)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["patches", "one class", "a hole", "noise"])
@pytest.mark.parametrize("name", MAPS)
def test_polygons_across_180_degrees_are_the_map_again(tmp_path, name, kind):
    crs, middle, cell, windows = MAPS[name]
    (x,), (y,) = transform("EPSG:4326", crs, [middle[0]], [middle[1]])
    corner = (x - 32 * cell, y + 32 * cell) if name.endswith("corner") else (x - 32.3 * cell, y + 32.4 * cell)
    if name.startswith("degrees"):
        corner = middle[0] - 32 * cell, middle[1] + 32 * cell
    rng = np.random.default_rng(1)
    values = {
        "patches": rng.integers(0, 3, (8, 8)).repeat(8, 0).repeat(8, 1),
        "one class": np.zeros((SIDE, SIDE)),
        "a hole": np.pad(np.pad(np.full((8, 8), 255), 12, constant_values=1), 16, constant_values=2),
        "noise": rng.integers(0, 2, (SIDE, SIDE)),
    }[kind].astype(np.uint8)
    found, place = drawn(tmp_path, crs, corner, cell, values)
    check_rings(found)
    check_drawn(found, crs, place, values, windows, 0.04 if kind == "noise" else 0.006)


def test_a_polygon_across_180_degrees_has_two_parts(tmp_path):
    (x,), (y,) = transform("EPSG:4326", "EPSG:3413", [180.0], [70.0])
    values = np.full((SIDE, SIDE), 255, np.uint8)
    values[31:33, 31:33] = 1
    (found,), _ = drawn(tmp_path, "EPSG:3413", (x - 3200, y + 3200), 100, values)
    (west,), (east,) = outlines(found)
    for ring, side in ((west, 180), (east, -180)) if west[0, 0] > 0 else ((east, 180), (west, -180)):
        assert (np.sign(ring[:, 0]) == np.sign(side)).all() and np.ptp(ring[:, 0]) < 0.01
        assert (ring[:, 0] == side).sum() >= 2
    ends = [sorted({lat for lon, lat in ring if abs(lon) == 180}) for ring in (west, east)]
    assert ends[0] == ends[1]


def test_the_pole_within_is_that_of_the_map_and_not_the_one_nearer_to_its_border(tmp_path):
    """A disc about the north pole that ends south of the equator."""
    crs, cell = rasterio.CRS.from_proj4("+proj=laea +lat_0=90 +lon_0=0 +datum=WGS84"), 330_000
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
    values = np.where(np.hypot(rows, columns) < 31, 1, 255).astype(np.uint8)
    found, place = drawn(tmp_path, crs, (-SIDE / 2 * cell, SIDE / 2 * cell), cell, values)
    check_rings(found)
    check_drawn(found, crs, place, values, ((-180, -40, 180, 90),), 0.03)


def holds(feature, point):
    """Whether a point lies in a feature, as GeoJSON has it: an odd number of sides lies to the east of it."""
    crossed = 0
    for ring in (ring for polygon in outlines(feature) for ring in polygon):
        for (x0, y0), (x1, y1) in zip(ring, ring[1:], strict=False):
            if (y0 > point[1]) != (y1 > point[1]):
                crossed += x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0) > point[0]
    return crossed % 2 == 1


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031"])
def test_cells_that_meet_at_a_pole_show_there_what_the_map_has(tmp_path, crs):
    """A pole has any longitude: each of the four cells about it has a quarter of them along it."""
    for about in itertools.product((0, 1, 255), repeat=4):
        values = np.full((4, 4), 1, np.uint8)
        values[0], values[1:3, 1:3] = 0, np.reshape(about, (2, 2))
        found, place = drawn(tmp_path, crs, (-200_000, 200_000), 100_000, values)
        check_rings(found)
        for x, y in itertools.product((-150_000, -50_000, -2000, 1000, 30_000, 150_000), repeat=2):
            (longitude,), (latitude,) = transform(crs, "EPSG:4326", [x], [y])
            there = values[int((y - place.f) // place.e), int((x - place.c) // place.a)]
            shown = [one["properties"]["value"] for one in found if holds(one, (longitude, latitude))]
            assert shown == ([there] if there != 255 else []), (about, x, y)
        for value in (0, 1):
            along = 0
            for one in found:
                for ring in (ring for polygon in outlines(one) for ring in polygon):
                    polar = (np.abs(ring[1:, 1]) == 90) & (np.abs(ring[:-1, 1]) == 90)
                    along += (one["properties"]["value"] == value) * np.abs(np.diff(ring[:, 0]))[polar].sum()
            assert along == pytest.approx(90 * about.count(value)), about


def test_a_ring_in_degrees_that_goes_along_a_pole_stays():
    corners = np.array([[0.0, 80], [10, 80], [10, 90], [5, 90], [0, 90], [0, 80]])
    found = antimeridian.geometry([corners], lambda asked: False)
    assert found == {"type": "Polygon", "coordinates": [corners.tolist()]}


@pytest.mark.parametrize(("crs", "degree"), [("EPSG:4326", 1.0), ("EPSG:4807", 400 / 360)])  # in grads, from Paris
@pytest.mark.parametrize("rows_beyond", [0.5, 1])
def test_polygons_of_a_grid_of_points_end_at_the_poles(tmp_path, crs, degree, rows_beyond):
    """Half of the outermost cells lies beyond them, or all of a row, which then has no area."""
    rng, (rows, columns) = np.random.default_rng(0), (36 + int(2 * rows_beyond), 72)
    values = rng.integers(0, 2, (rows, columns)).astype(np.uint8)
    found, _ = drawn(tmp_path, crs, (-182.5 * degree, (90 + 5 * rows_beyond) * degree), 5 * degree, values)
    check_rings(found)
    covered, edges = np.zeros(2), np.clip(90 + 5 * rows_beyond - 5 * np.arange(rows + 1), -90, 90)
    for feature in found:
        for polygon in outlines(feature):
            latitudes = np.concatenate(polygon)[:, 1]
            assert np.abs(latitudes).max() <= 90
            covered[feature["properties"]["value"]] += sum(map(shoelace, polygon))
    heights = np.repeat(edges[:-1] - edges[1:], columns)
    assert covered.sum() == pytest.approx(360 * 180)
    if crs == "EPSG:4326":  # the pole of another datum lies elsewhere
        np.testing.assert_allclose(covered, np.bincount(values.ravel(), 5 * heights), rtol=1e-9)


def around(latitude, start=-180.0):
    """A ring along a parallel, all around, to the east."""
    longitudes = (start + np.arange(0, 361, 10) + 180) % 360 - 180
    return np.column_stack([longitudes, np.full(37, latitude)])


@pytest.mark.parametrize("start", [-180.0, 95.0])
@pytest.mark.parametrize(("latitude", "pole", "area"), [(80.0, 90, 3600), (-80.0, -90, 3600), (-30.0, 90, 360 * 120)])
def test_what_lies_around_a_pole_reaches_up_to_it(latitude, pole, area, start):
    """To the one that it holds, also where its border is nearer to the other."""
    found = antimeridian.geometry([around(latitude, start)], lambda asked: asked == pole)
    check_rings([{"geometry": found}])
    ((ring,),) = outlines({"geometry": found})
    assert shoelace(ring) == pytest.approx(area) and (ring[:, 1] == pole).sum() == 2


def test_a_ring_around_a_pole_with_a_hole_around_it_is_a_strip():
    found = antimeridian.geometry([around(70.0, 5.0), around(80.0, -35.0)[::-1]], lambda asked: False)
    check_rings([{"geometry": found}])
    ((ring,),) = outlines({"geometry": found})
    assert shoelace(ring) == pytest.approx(3600) and set(ring[:, 1]) == {70, 80}


@pytest.mark.parametrize("beyond", [-1e-11, 0, 1e-11])
@pytest.mark.parametrize("turn", [1, -1])
def test_what_ends_at_180_degrees_is_not_cut(beyond, turn):
    """Up to rounding, and the outline goes to the left wherever it came from."""
    corners = np.array([[170, 0], [180 + beyond, 0], [-180, 10], [170, 10], [170, 0]])[::turn]
    found = antimeridian.geometry([corners], lambda asked: False)
    check_rings([{"geometry": found}])
    assert found["type"] == "Polygon" and np.max(found["coordinates"][0], 0)[0] == 180


def check_simple(feature):
    """No ring passes a point twice, and no side of a polygon crosses another or lies on it along a seam."""
    for polygon in outlines(feature):
        for ring in polygon:
            assert len(np.unique(ring, axis=0)) == len(ring) - 1
    sides = np.concatenate([np.stack([ring[:-1], ring[1:]], 1) for polygon in outlines(feature) for ring in polygon])
    starts, ends = sides.swapaxes(0, 1)
    for meridian in (-180, 180, 0):
        along = np.sort(sides[(sides[..., 0] == meridian).all(1), :, 1])
        along = along[np.argsort(along[:, 0])]
        assert (along[1:, 0] >= along[:-1, 1]).all()

    def left(point):
        """Of each side (in rows), how far a point of each side (in columns) lies to the left."""
        (dx, dy), (x, y) = (ends - starts).T[..., None], (point[None] - starts[:, None]).transpose(2, 0, 1)
        return np.where(np.abs(turned := dx * y - dy * x) < 1e-9, 0, turned)

    apart = left(starts) * left(ends) < 0
    assert not (apart & apart.T).any()


def cell_areas(crs, place, shape):
    """Square degrees (height, width) of cells with straight sides in longitude and latitude."""
    found = np.zeros(shape)
    for row, column in np.ndindex(shape):
        columns, rows = column + np.array([0, 0, 1, 1]), row + np.array([0, 1, 1, 0])
        x, y = place.a * columns + place.c, place.e * rows + place.f
        corners = []
        longitudes, latitudes = transform(crs, "EPSG:4326", x, y)
        for k, (longitude, latitude) in enumerate(zip(longitudes, latitudes, strict=True)):
            about = (longitudes[k - 1], longitudes[(k + 1) % 4]) if abs(latitude) > 90 - 1e-9 else (longitude,)
            corners += [(one, latitude) for one in about]  # a pole has both
        ring = np.array([*corners, corners[0]])
        ring[:, 0] = np.unwrap(ring[:, 0], period=360)
        found[row, column] = abs(shoelace(ring))
    return found


SEAMS = {  # system, upper left corner, side of a cell, cells down and across
    "0 to 360": ("EPSG:4326", (0, 60), 10, (12, 36)),
    "170 to 190": ("EPSG:4326", (170, 10), 1, (20, 20)),
    "south pole": ("EPSG:3031", (-3e6, 3e6), 3e5, (20, 20)),
    "north pole": ("EPSG:3413", (-3e6, 3e6), 3e5, (20, 20)),
}


@pytest.mark.parametrize("name", SEAMS)
def test_polygons_of_cells_with_corners_at_180_degrees_are_simple(tmp_path, name):
    crs, corner, cell, shape = SEAMS[name]
    areas = None
    for seed in range(8):
        rng = np.random.default_rng(seed)
        patches = rng.integers(0, 3, (shape[0] // 4, shape[1] // 4)).repeat(4, 0).repeat(4, 1)
        values = np.where(rng.random(shape) < 0.3, rng.integers(0, 3, shape), patches).astype(np.uint8)
        found, place = drawn(tmp_path, crs, corner, cell, values)
        check_rings(found)
        covered = np.zeros(3)
        for one in found:
            check_simple(one)
            covered[one["properties"]["value"]] += sum(shoelace(ring) for part in outlines(one) for ring in part)
        areas = cell_areas(crs, place, shape) if areas is None else areas
        np.testing.assert_allclose(covered, np.bincount(values.ravel(), areas.ravel()), rtol=1e-9)


def test_a_class_all_around_the_earth_is_one_polygon(tmp_path):
    """In a raster from 0 to 360 degrees, whose edges are the same meridian."""
    found, _ = drawn(tmp_path, "EPSG:4326", (0, 60), 10, np.zeros((12, 36), np.uint8))
    ((ring,),) = outlines(found[0])
    assert shoelace(ring) == 120 * 360 and np.ptp(ring, 0).tolist() == [360, 120]
