"""The files of a map: laid out for the cloud, every class's probability, areas and polygons."""

import csv
import json
import resource

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.maps import CLASSES, SIDE, UTM, by_pixels, run, scene, write  # noqa: E402
from rasterio._err import CPLE_BaseError  # noqa: E402
from rasterio.features import rasterize  # noqa: E402
from rasterio.warp import transform, transform_bounds, transform_geom  # noqa: E402

from kdjax.deploy.landuse_map import mapping, outputs, polygons  # noqa: E402
from kdjax.deploy.landuse_map.areas import hectares  # noqa: E402
from kdjax.deploy.landuse_map.layers import Grid, Layers  # noqa: E402
from kdjax.deploy.landuse_map.legend import NODATA, UNKNOWN  # noqa: E402
from kdjax.errors import InputError  # noqa: E402

METERS = rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)


NAMES = ("map.tif", "map_confidence.tif")


def areas(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rasters_are_cloud_optimized_with_overviews_by_mode(artifact, tmp_path):
    """Where one class has three of four cells, an overview shows that class; a mean would be another one."""
    pixels = np.zeros((4, 1200, 3), np.uint8)
    pixels[..., 0] = 200  # the first class
    pixels[1::2, 1::2] = (0, 0, 200)  # the third
    raster = write(tmp_path / "scene.tif", pixels, transform=METERS)
    run(artifact, raster, tmp_path / "map.tif", "--tile=1", "--stride=1", "--batch=1024", "--probabilities")
    for name in ("map.tif", "map_confidence.tif", "map_probabilities.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.overviews(1)[0] == 2
            assert file.crs == UTM and file.transform == METERS
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as file:
        assert (file.read(1) == 0).all()


def under(cells, factor):
    """The cells (n, m, factor²) that each cell of an overview stands for."""
    (height, width), f = cells.shape, factor
    return cells.reshape(height // f, f, width // f, f).swapaxes(1, 2).reshape(height // f, width // f, f * f)


def test_every_overview_is_that_of_the_cells(tmp_path):
    """Not of the overview before it: a mode of modes is another class, and a mean of means weighs holes wrongly."""
    rng, names, grid = np.random.default_rng(0), (*NAMES, "map_probabilities.tif"), Grid(32, 2080, UTM, METERS)
    known, chances = (0, 1, 2, UNKNOWN), (0.3, 0.25, 0.2, 0.05, 0.2)
    values = rng.choice([*known, NODATA], (grid.height, grid.width), p=chances).astype(np.uint8)
    values[:, :64] = NODATA
    steps = rng.integers(0, 251, (*values.shape, 3))
    confidence = rng.random(values.shape).astype(np.float32)
    layers = Layers(tmp_path, names, grid, CLASSES, {})
    for row, best in enumerate(values):
        none = best == NODATA
        odds = np.where(none[:, None], np.nan, steps[row] / 250)
        layers.write(row, best, np.where(none, np.float32(-1), confidence[row]), odds)
    layers.finish()
    for level, factor in enumerate((2, 4, 8)):
        shown = []
        for name in names:
            with rasterio.open(tmp_path / name, overview_level=level) as file:
                shown.append(file.read(masked=True)[-1])
        counts = np.stack([(under(values, factor) == value).sum(-1) for value in known])
        empty = counts.sum(0) == 0
        assert empty.any() and all((one.mask == empty).all() for one in shown)
        chosen = np.where([shown[0].data == value for value in known], counts, 0).max(0)
        np.testing.assert_array_equal(chosen, counts.max(0))
        for means, cells, rounding in ((shown[1], confidence, 1e-6), (shown[2], steps[..., -1], 0.501)):
            kept = under(np.where(values == NODATA, np.nan, cells), factor)[~empty]
            np.testing.assert_allclose(means[~empty], np.nanmean(kept, -1), rtol=0, atol=rounding)


def laid_out(folder, limit=resource.RLIM_INFINITY, shape=(40, 700)):
    """Sizes of the files of a map of noise where no file may have more bytes than `limit`."""
    rng, grid = np.random.default_rng(0), Grid(*shape, UTM, METERS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        layers = Layers(folder, NAMES, grid, CLASSES, {})
        for row in range(grid.height):
            best = rng.integers(0, 3, grid.width).astype(np.uint8)
            layers.write(row, best, rng.random(grid.width).astype(np.float32), np.empty(0))
        layers.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return [(folder / name).stat().st_size for name in NAMES]


def test_a_file_that_finds_no_place_is_named_wherever_it_ends(tmp_path):
    """GDAL says that a file could not be written, that it cannot be read, or nothing: by which bytes are missing."""
    (tmp_path / "whole").mkdir()
    _, size = laid_out(tmp_path / "whole")
    for limit in (1000, size // 2, 3 * size // 4, size - 5000, size - 1):
        (tmp_path / str(limit)).mkdir()
        with pytest.raises(OSError, match=r"^map(_confidence)?\.tif: "):
            laid_out(tmp_path / str(limit), limit)


@pytest.mark.parametrize("limit", [22_750, 23_500])
def test_an_overview_that_finds_no_place_is_not_left_out(tmp_path, limit):
    """Where the whole of the map does."""
    with pytest.raises(OSError, match=r"^map\.tif: "):
        laid_out(tmp_path, limit, (1300, 40))


SATELLITE = rasterio.CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=WGS84")


def has_degrees(x, y):
    """Whether a point of a geostationary satellite's view has a longitude and latitude."""
    try:
        return bool(np.isfinite(transform(SATELLITE, "EPSG:4326", [x], [y])).all())
    except CPLE_BaseError:
        return False


def test_cells_beside_the_earth_are_in_no_polygon(tmp_path):
    """Of a satellite's view: those with data and a corner in space; the others are the map again."""
    place, values = rasterio.Affine(4e5, 0, -6e6, 0, -4e5, 6e6), np.zeros((30, 30), np.uint8)
    values[:, 10:], values[:8, :8] = 1, 255
    write(tmp_path / "map.tif", values[..., None], crs=SATELLITE, transform=place, nodata=255)
    corners = np.array([[has_degrees(*(place @ (x, y))) for x in range(31)] for y in range(31)])
    on_earth = corners[1:, 1:] & corners[:-1, 1:] & corners[1:, :-1] & corners[:-1, :-1]
    shown = polygons.drawable(tmp_path / "map.tif", (30, 30))
    np.testing.assert_array_equal(shown, on_earth & (values < 255))
    found = list(polygons.features(tmp_path / "map.tif", CLASSES, (30, 30), shown))
    drawn = [(transform_geom("EPSG:4326", SATELLITE, one["geometry"]), one["properties"]["value"]) for one in found]
    back = rasterize(drawn, values.shape, fill=255, transform=place, dtype="uint8")
    np.testing.assert_array_equal(back, np.where(shown, values, 255))


@pytest.mark.parametrize("kind", ["disk", "data in space"])
def test_a_map_that_reaches_off_the_earth_is_kept(artifact, tmp_path, capsys, kind):
    """In the second, what lies on the earth holds no data; the file says so and is replaced like any other."""
    pixels, place = scene(48, 48), rasterio.Affine(250_000, 0, -6e6, 0, -250_000, 6e6)
    if kind == "data in space":
        pixels[1:-1, 1:-1] = 0
        pixels[[0, -1]] |= 1
        pixels[:, [0, -1]] |= 1
    raster = write(tmp_path / "scene.tif", pixels, SATELLITE, place, nodata=None if kind == "disk" else 0)
    side = "8" if kind == "disk" else "1"
    for _ in range(2):
        run(artifact, raster, tmp_path / "map.tif", f"--tile={side}", f"--stride={side}", "--polygons")
        said = capsys.readouterr().err
        cells = 4 * 5 + 4 if kind == "disk" else 4 * 47  # of 6 x 6, the border and the corners within
        assert f"polygons: {cells} cells are in none, as they reach off the earth\n" in said
    features = json.loads((tmp_path / "map_polygons.geojson").read_text(encoding="utf-8"))["features"]
    if kind == "disk":
        assert all(np.isfinite(one["geometry"]["coordinates"][0]).all() for one in features)
    else:
        assert [one["geometry"] for one in features] == [None]


def test_a_raster_in_space_is_refused_before_it_is_mapped(artifact, tmp_path, monkeypatch):
    raster = write(tmp_path / "scene.tif", scene(32, 32), SATELLITE, rasterio.Affine(100, 0, 6e6, 0, -100, 6e6))
    monkeypatch.setattr(mapping, "write_map", None)
    with pytest.raises(InputError, match="--polygons: .*no part of it lies on the earth.* leave it out"):
        run(artifact, raster, tmp_path / "map.tif", "--polygons")


def test_the_probability_of_every_class_is_a_band(artifact, tmp_path):
    pixels = scene(61, 83)
    run(artifact, write(tmp_path / "scene.tif", pixels), tmp_path / "map.tif", "--probabilities")
    expected = by_pixels(pixels, SIDE, SIDE // 2)
    with rasterio.open(tmp_path / "map_probabilities.tif") as file:
        assert file.descriptions == CLASSES and file.nodata == 255 and set(file.dtypes) == {"uint8"}
        found = file.read() * np.array(file.scales)[:, None, None]
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected, atol=0.0021)


def test_no_data_has_no_probability(artifact, tmp_path):
    pixels = scene(32, 32)
    pixels[:, 16:] = 7
    pixels[:, :16][pixels[:, :16] == 7] = 8
    raster = write(tmp_path / "scene.tif", pixels, nodata=7)
    run(artifact, raster, tmp_path / "map.tif", "--stride=8", "--probabilities")
    with rasterio.open(tmp_path / "map_probabilities.tif") as file:
        gone = file.read() == 255
    assert gone[:, :, 2:].all() and not gone[:, :, :2].any()


def test_areas_are_those_of_the_cells(artifact, tmp_path):
    pixels = scene(64, 48)
    run(artifact, write(tmp_path / "scene.tif", pixels, transform=METERS), tmp_path / "map.tif", "--stride=8")
    with rasterio.open(tmp_path / "map.tif") as file, rasterio.open(tmp_path / "map_confidence.tif") as other:
        values, confidence = file.read(1), other.read(1)
    rows = areas(tmp_path / "map_areas.csv")
    assert sum(int(row["cells"]) for row in rows) == values.size
    assert [int(row["cells"]) for row in rows] == sorted((int(row["cells"]) for row in rows), reverse=True)
    for row in rows:
        here = values == int(row["value"])
        assert row["class"] == CLASSES[int(row["value"])] and int(row["cells"]) == here.sum()
        assert float(row["area_ha"]) == pytest.approx(here.sum() * 0.64)  # a cell is 80 m x 80 m
        assert float(row["share"]) == pytest.approx(here.mean(), abs=1e-6)
        assert float(row["mean_confidence"]) == pytest.approx(confidence[here].mean(), abs=1e-4)


def test_feet_are_a_third_of_a_meter_and_unknown_units_have_no_area():
    feet = Grid(2, 2, rasterio.CRS.from_epsg(2263), rasterio.Affine(100, 0, 0, 0, -100, 0))
    np.testing.assert_allclose(hectares(feet, 0), [(100 * 0.3048) ** 2 / 1e4] * 2, rtol=1e-4)
    local = rasterio.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    assert np.isnan(hectares(Grid(2, 2, local, METERS), 0)).all()


def test_polygons_are_the_map_again(artifact, tmp_path):
    pixels = scene(64, 96)
    pixels[:16, :16] = 7
    pixels[16:, 16:][pixels[16:, 16:] == 7] = 8
    raster = write(tmp_path / "scene.tif", pixels, nodata=7, transform=METERS)
    run(artifact, raster, tmp_path / "map.tif", "--stride=8", "--polygons")
    document = json.loads((tmp_path / "map_polygons.geojson").read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection" and document["features"]
    with rasterio.open(tmp_path / "map.tif") as file:
        values, place = file.read(1), file.transform
    found = [
        (transform_geom("EPSG:4326", UTM, one["geometry"]), one["properties"]["value"]) for one in document["features"]
    ]
    back = rasterize(found, values.shape, fill=255, transform=place, dtype="uint8")
    np.testing.assert_array_equal(back, values)
    assert (values == 255).any()
    for one in document["features"]:
        assert one["properties"]["class"] == CLASSES[one["properties"]["value"]]
    # Those of an older map do not stay beside a newer one that has none.
    run(artifact, raster, tmp_path / "map.tif", "--stride=8")
    assert not (tmp_path / "map_polygons.geojson").exists()
    # Cells that touch by an edge are one polygon.
    from scipy.ndimage import label

    assert len(found) == sum(label(values == k)[1] for k in range(3))


@pytest.mark.parametrize(("epsg", "corner"), [(3035, (3_000_000, 4_000_000)), (3413, (-520_000, 520_000))])
def test_polygons_are_the_map_again_in_longitude_and_latitude(tmp_path, epsg, corner):
    """Of Europe and around the pole: long straight sides are none there. What lies where is asked of the projection."""
    crs, place = rasterio.CRS.from_epsg(epsg), rasterio.Affine(10_000, 0, corner[0], 0, -10_000, corner[1])
    values = np.zeros((104, 104, 1), np.uint8)
    values[52:], values[60:70, 30:50] = 2, 1
    write(tmp_path / "map.tif", values, crs=crs, transform=place, nodata=255)
    shown = polygons.drawable(tmp_path / "map.tif", (104, 104))
    found = polygons.features(tmp_path / "map.tif", CLASSES, (104, 104), shown)
    sides = corner[0], corner[1] - 1_040_000, corner[0] + 1_040_000, corner[1]
    west, south, east, north = transform_bounds(crs, "EPSG:4326", *sides)
    degrees = rasterio.Affine((east - west) / 400, 0, west, 0, (south - north) / 400, north)
    drawn = [(one["geometry"], one["properties"]["value"]) for one in found]
    back = rasterize(drawn, (400, 400), fill=255, transform=degrees, dtype="uint8")
    middles = (np.arange(400) + 0.5) / 400
    longitudes, latitudes = np.meshgrid(west + middles * (east - west), north - middles * (north - south))
    x, y = np.array(transform("EPSG:4326", crs, longitudes.ravel(), latitudes.ravel()))
    columns, rows = np.floor((x - corner[0]) / 10_000).astype(int), np.floor((corner[1] - y) / 10_000).astype(int)
    inside = (np.minimum(columns, rows) >= 0) & (np.maximum(columns, rows) < 104)
    expected = np.where(inside, values[rows.clip(0, 103), columns.clip(0, 103), 0], 255)
    assert (back.ravel() != expected).mean() < 0.005  # those on a border, and beside the pole


@pytest.mark.parametrize(("tag", "expected"), [("artifact", True), ("artefact", True), ("other", False)])
def test_maps_of_earlier_versions_are_known(tmp_path, tag, expected):
    """Else a new map would be refused, as if another file had its name."""
    path = tmp_path / "map.tif"
    shape = {"width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs=UTM, transform=METERS, **shape) as file:
        file.update_tags(**{tag: "student.onnx"})
    assert outputs.is_map(path) == expected


def test_what_a_killed_command_left_is_swept(artifact, tmp_path):
    """Of this map; another map's folder is not looked at."""
    raster = write(tmp_path / "scene.tif", scene(32, 40))
    for name in (".map.tif-abc.kdjax.tmp", ".other.tif-abc.kdjax.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "map.tif").touch()
        (tmp_path / f"{name}.lock").touch()
    run(artifact, raster, tmp_path / "map.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.tif-abc.kdjax.tmp", ".other.tif-abc.kdjax.tmp.lock", "map.tif", "map.tif.aux.xml", "map_areas.csv",
        "map_confidence.tif", "map_legend.png", "scene.tif",
    ]  # fmt: skip


def test_sidecar_files_of_an_older_map_are_gone(artifact, tmp_path):
    raster = write(tmp_path / "scene.tif", scene(32, 40))
    run(artifact, raster, tmp_path / "map.tif")
    stale = [
        f"{name}{suffix}"
        for name in ("map.tif", "map_confidence.tif", "map_legend.png")
        for suffix in (".ovr", ".msk", ".msk.ovr", ".aux.xml")
    ]
    for name in stale:
        (tmp_path / name).write_text("of an older map")
    run(artifact, raster, tmp_path / "map.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.tif", "map.tif.aux.xml", "map_areas.csv", "map_confidence.tif", "map_legend.png", "scene.tif",
    ]  # fmt: skip
    assert "of an older map" not in (tmp_path / "map.tif.aux.xml").read_text()
