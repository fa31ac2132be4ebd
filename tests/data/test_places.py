"""Where tiles lie, and that neighbors stay on one side of a split."""

import json
import unicodedata

import numpy as np
import pytest
from helpers.tiles import OPTIONS, picture, sides, write_classes

from kdjax.config import base
from kdjax.data import load
from kdjax.data.loading import locations
from kdjax.data.places import blocks, centers_of, from_table
from kdjax.errors import InputError

NAMES = ("a/1.png", "a/2.png", "b/1.png")


def table(tmp_path, text, name="places.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_a_table_gives_groups_or_coordinates(tmp_path):
    groups = from_table(table(tmp_path, "group,name\nx,a/1.png\ny,b/1.png\nx,a/2.png\nz,else.png\n"), NAMES, 1.0)
    assert groups.names == ("x", "x", "y") and np.isnan(groups.centers).all()
    text = "\ufeffname,lon,lat,note\na/1.png,11.50,48.10,\na/2.png,11.5001,48.1001,\nb/1.png,12.5,48.1,far\n"
    found = from_table(table(tmp_path, text), NAMES, 1.0)
    assert found.names[0] == found.names[1] != found.names[2]
    np.testing.assert_array_equal(found.centers[2], [12.5, 48.1])


def test_geojson_gives_the_middle_of_each_feature(tmp_path):
    square = [[[10.0, 50.0], [10.2, 50.0], [10.2, 50.4], [10.0, 50.4], [10.0, 50.0]]]
    features = [
        {"properties": {"name": "a/1.png"}, "geometry": {"type": "Polygon", "coordinates": square}},
        {"properties": {"name": "a/2.png"}, "geometry": {"type": "Point", "coordinates": [10.1, 50.2, 300.0]}},
        {"properties": {"name": "b/1.png", "group": 7}, "geometry": None},
    ]
    path = table(tmp_path, json.dumps({"type": "FeatureCollection", "features": features}), "places.geojson")
    found = from_table(path, NAMES, 2.0)
    np.testing.assert_allclose(found.centers[:2], [[10.1, 50.2]] * 2)
    assert found.names[0] == found.names[1] and found.names[2] == "7"


def test_the_middle_of_a_feature_across_180_degrees_lies_in_it(tmp_path):
    """Cut there as RFC 7946 asks, or not."""
    parts = [[[[180, 1], [179.8, 1], [179.8, 2], [180, 2], [180, 1]]], [[[-180, 1], [-180, 2], [-179.4, 2], [-180, 1]]]]
    geometries = [
        {"type": "MultiPolygon", "coordinates": parts},
        {"type": "Polygon", "coordinates": [[[179.8, 1], [-179.4, 1], [-179.4, 2], [179.8, 2], [179.8, 1]]]},
        {"type": "Point", "coordinates": [-179.8, 1.5]},
    ]
    features = [{"properties": {"name": name}, "geometry": one} for name, one in zip(NAMES, geometries, strict=True)]
    found = from_table(table(tmp_path, json.dumps({"features": features}), "places.geojson"), NAMES, 2.0)
    np.testing.assert_allclose(found.centers, [[-179.8, 1.5]] * 3)


def geojson(tmp_path, groups, points, **more):
    """A table of NAMES with the property 'group' and points."""
    features = [
        {"properties": {"name": name, "group": group}, "geometry": {"type": "Point", "coordinates": point}}
        for name, group, point in zip(NAMES, groups, points, strict=True)
    ]
    return table(tmp_path, json.dumps({"type": "FeatureCollection", "features": features, **more}), "places.geojson")


def test_an_empty_group_is_none_in_every_table(tmp_path):
    points = [[0.0, 50.0], [90.0, 50.0], [0.0, 50.0]]
    found = from_table(geojson(tmp_path, ["", "  ", None], points), NAMES, 1.0)
    np.testing.assert_array_equal(found.centers, points)
    assert found.names[0] == found.names[2] != found.names[1]
    rows = "\n".join(f"{name},,{lon},{lat}" for name, (lon, lat) in zip(NAMES, points, strict=True))
    assert from_table(table(tmp_path, f"name,group,lon,lat\n{rows}\n"), NAMES, 1.0).names == found.names


def test_a_group_in_two_spellings_of_unicode_is_one_place(tmp_path):
    spelled = [unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD", "NFC")]
    rows = "\n".join(f"{name},{group}" for name, group in zip(NAMES, spelled, strict=True))
    assert len(set(from_table(table(tmp_path, f"name,group\n{rows}\n"), NAMES, 1.0).names)) == 1
    assert len(set(from_table(geojson(tmp_path, spelled, [[0.0, 50.0]] * 3), NAMES, 1.0).names)) == 1


def test_a_group_that_is_called_like_a_cell_is_another_place(tmp_path):
    (cell,) = blocks(np.array([[0.0, 50.0]]), 1.0)
    found = from_table(geojson(tmp_path, [None, cell, cell], [[0.0, 50.0]] * 3), NAMES, 1.0)
    assert found.names[0] != found.names[1] == found.names[2]


@pytest.mark.parametrize(
    ("named", "known"),
    [
        ("urn:ogc:def:crs:OGC:1.3:CRS84", True), ("urn:ogc:def:crs:EPSG::4326", True), ("EPSG:4326", True),
        ("http://www.opengis.net/def/crs/EPSG/0/4326", True), ("urn:ogc:def:crs:EPSG::32632", False),
        ("EPSG:43260", False), ("EPSG:2154", False),
    ],
)  # fmt: skip
def test_geojson_in_another_reference_system_is_refused(tmp_path, named, known):
    """Coordinates in meters may lie within 180 and 90, and would be degrees in the Gulf of Guinea."""
    crs = {"type": "name", "properties": {"name": named}}
    points = [[0.0, 50.0], [90.0, 50.0], [0.0, 50.0]]
    path = geojson(tmp_path, [None] * 3, points, crs=crs)
    if known:
        np.testing.assert_array_equal(from_table(path, NAMES, 1.0).centers, points)
        return
    with pytest.raises(InputError, match=f"dataset.places: .*places.geojson is in {named!r}, .*ogr2ogr") as error:
        from_table(path, NAMES, 1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name\na/1.png\n", "needs the columns name and group, or name, lon and lat"),
        ("name,group\na/1.png,x\na/1.png,y\n", "names 'a/1.png' twice"),
        ("name,group\na/1.png,x\nb/1.png,y\n", "lacks 1 of 3 images: a/2.png"),
        ("name,group\na/1.png,\n", "line 2: the group of 'a/1.png' is empty"),
        ("name,lon,lat\na/1.png,200,3\n", "line 2: '200', '3' is not a longitude"),
        ("name,lon,lat\na/1.png,,3\n", "not a longitude and latitude in degrees"),
        ("name,lon,lat\na/1.png,nan,3\n", "not a longitude and latitude in degrees"),
        ('{"type": "FeatureCollection"}', "is not a GeoJSON FeatureCollection"),
        (
            '{"features": [{"properties": {"name": "a/1.png"}, "geometry": {"coordinates": [1' + 400 * "0" + ", 2]}}]}",
            "feature 0: a coordinate is not a longitude or latitude in degrees",
        ),
        (f'name,group,wkt\na/1.png,x,"{"1 2, " * 30_000}"\n', "line 2: field larger .*: leave that column out"),
        ('{"features": [{"properties": {}, "geometry": null}]}', "feature 0: it has no property 'name'"),
        ('{"features": [{"properties": {"name": "a/1.png"}, "geometry": null}]}', "neither a geometry nor"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as error:
        from_table(table(tmp_path, text), NAMES, 1.0)
    assert "\n" not in str(error.value) and "dataset.places" in str(error.value)


def test_of_many_images_that_a_table_lacks_the_first_are_named(tmp_path):
    path = table(tmp_path, "name,group\na,x\n")
    with pytest.raises(InputError, match=r"lacks 4 of 5 images: b, c, d, \.\.\.; images are named"):
        from_table(path, list("abcde"), 1.0)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="dataset.places: .*none.csv cannot be read"):
        from_table(str(tmp_path / "none.csv"), NAMES, 1.0)


@pytest.mark.parametrize("latitude", [0.0, 48.0, -70.0])
def test_blocks_are_as_wide_as_they_are_high(latitude):
    """Along a line of 40 km there are 20 blocks of 2 km, whatever the latitude and the direction."""
    per_degree = 6371 * np.pi / 180
    steps = np.linspace(0, 40, 2001)
    north = np.stack([np.full(2001, 7.0), latitude + steps / per_degree], 1)
    east = np.stack([7.0 + steps / per_degree / np.cos(np.radians(latitude)), np.full(2001, latitude + 0.001)], 1)
    rows = {name.split("/")[0] for name in blocks(north, 2.0)}
    assert abs(len(rows) - 20) <= 1 and abs(len(set(blocks(east, 2.0))) - 20) <= 1
    assert blocks(np.array([[np.nan, np.nan]]), 2.0) == ("",)


@pytest.fixture
def tiles(tmp_path):
    """Sixty tiles in twelve places, of which each holds two classes."""
    root = write_classes(tmp_path / "tiles")
    lines = [f"{p.parent.name}/{p.name},{int(p.stem[-2:]) % 4}{p.parent.name == 'town'}" for p in root.rglob("*.png")]
    return root, table(tmp_path, "name,group\n" + "\n".join(lines) + "\n"), dict(line.split(",") for line in lines)


def test_tiles_of_a_place_stay_on_one_side(tiles):
    root, path, place = tiles
    data = load(path=str(root), split_by="place", places=path, **{**OPTIONS, "data_seed": 2})
    side = sides(data)
    assert len(side) == 60
    for one in set(place.values()):
        assert len({side[name] for name in side if place[name] == one}) == 1
    assert {"train", "validation", "test"} == set(side.values())
    assert any("8 groups, each kept on one side" in note for note in data.notes)
    assert any("split by place: 8 places" in note for note in data.notes)
    assert data.bounds == ()  # names say nothing of where a place is


def test_folds_are_disjoint_and_together_everything(tiles):
    root, path, _ = tiles
    found = [load(path=str(root), split_by="place", places=path, fold=(number, 4), **OPTIONS) for number in range(4)]
    tested = [name for data in found for name in data.test.names]
    assert len(tested) == len(set(tested)) == 60
    assert found[0].overlap == pytest.approx(len(found[0].test) / len(found[0].train))


def test_identical_images_join_their_places(tiles):
    root, path, place = tiles
    first, second = next((a, b) for a in place for b in place if place[a] != place[b] and a[:2] == b[:2])
    (root / second).write_bytes((root / first).read_bytes())
    for seed in range(4):
        side = sides(load(path=str(root), split_by="place", places=path, **{**OPTIONS, "data_seed": seed}))
        assert len({side[name] for name in place if place[name] in (place[first], place[second])}) == 1


def geotiff(path, easting, northing, crs="EPSG:32632", number=0):
    rasterio = pytest.importorskip("rasterio")
    pixels = picture([number, int(easting)], 24, 24).transpose(2, 0, 1)
    place = {} if crs is None else {"crs": crs, "transform": rasterio.Affine(10, 0, easting, 0, -10, northing)}
    with rasterio.open(path, "w", driver="GTiff", width=24, height=24, count=3, dtype="uint8", **place) as file:
        file.write(pixels)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_georeferenced_tiles_say_where_they_lie(tmp_path):
    """Rows of tiles at 10 m a pixel, 240 m apart: with blocks of 1 km about four lie together."""
    root = tmp_path / "tiles"
    for k, name in enumerate(("field", "lake")):
        (root / name).mkdir(parents=True)
        for i in range(24):
            geotiff(root / name / f"{i:02d}.tif", 500_000 + 240 * i, 5_300_000 + 30_000 * k, number=k)
    data = load(path=str(root), split_by="place", **OPTIONS)
    (note,) = [note for note in data.notes if "split by place" in note]
    # UTM zone 32 has its middle meridian at 9 degrees; 5.76 km there are 0.077 degrees of longitude.
    assert "between 9.00 and 9.08 degrees of longitude, 47.8" in note
    west, south, east, north = data.bounds
    assert (west, east) == pytest.approx((9.0016, 9.0752), abs=1e-3) and north - south == pytest.approx(0.27, abs=0.01)
    side = sides(data)
    runs = [[side[f"{name}/{i:02d}.tif"] for i in range(24)] for name in ("field", "lake")]
    changes = sum(a != b for run in runs for a, b in zip(run, run[1:], strict=False))
    assert changes <= 12  # at most one between neighboring blocks, where single tiles would change about 20 times
    section = {**base().dataset, "path": str(root)}
    names = ["lake/00.tif", "field/23.tif"]
    found = locations(section, names)
    np.testing.assert_allclose(found, [[9.0016, 48.12], [9.0752, 47.85]], atol=5e-3)  # one needs no split by place
    geotiff(root / "lake" / "05.tif", 0, 0, crs=None, number=9)
    last = locations(section, [*names, "lake/05.tif"])
    np.testing.assert_array_equal(last, [*found, [np.nan, np.nan]])
    np.testing.assert_array_equal(locations(section, ["lake/05.tif", *names]), [[np.nan, np.nan], *found])
    assert locations(section, ["lake/05.tif"]) is None
    with pytest.raises(InputError, match="lake/05.tif has no location.*give a table in dataset.places"):
        load(path=str(root), split_by="place", **OPTIONS)


def test_a_sidecar_file_says_where_a_tile_lies(tmp_path):
    """As GDAL writes it for formats that have no place for it."""
    rasterio = pytest.importorskip("rasterio")
    root = tmp_path / "tiles"
    names = [f"{name}/{i}.png" for name in ("field", "lake") for i in range(4)]
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000 + 20_000 * k, 0, -10, 5_300_000)}
        with rasterio.open(
            root / name, "w", driver="PNG", width=24, height=24, count=3, dtype="uint8", **place
        ) as file:
            file.write(picture([k], 24, 24).transpose(2, 0, 1))
    data = load(path=str(root), split_by="place", **OPTIONS)
    assert any("split by place: 8 places between 9.00 and 10.8" in note for note in data.notes)
    (root / "field" / "0.png.aux.xml").unlink()
    found = locations({**base().dataset, "path": str(root)}, names)
    assert np.isnan(found[0]).all() and not np.isnan(found[1:]).any()


def test_tiles_that_say_nothing_are_not_all_read(tmp_path):
    pytest.importorskip("rasterio")
    root = write_classes(tmp_path / "tiles")
    names = [f"{path.parent.name}/{path.name}" for path in sorted(root.rglob("*.png"))]
    (root / names[1]).unlink()
    assert locations({**base().dataset, "path": str(root)}, names) is None


def test_the_middle_of_a_tile_needs_no_operator_of_a_new_affine(tmp_path, monkeypatch):
    """Before version 3 it knows no `@`, from version 3.1 on it warns of `*`; rasterio takes any version."""
    rasterio = pytest.importorskip("rasterio")
    geotiff(tmp_path / "a.tif", 500_000, 5_300_000)
    data = (tmp_path / "a.tif").read_bytes()
    (expected,) = centers_of(["a.tif"], [data])
    monkeypatch.delattr(rasterio.Affine, "__matmul__")
    (found,) = centers_of(["a.tif"], [data])
    np.testing.assert_array_equal(found, expected)
    from rasterio.warp import transform

    (longitude,), (latitude,) = transform("EPSG:32632", "EPSG:4326", [500_000 + 120], [5_300_000 - 120])
    np.testing.assert_allclose(found, [longitude, latitude], atol=1e-9)


def test_the_middle_of_a_tile_that_is_no_square_lies_in_its_middle(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:4326", "transform": rasterio.Affine(0.5, 0, 10, 0, -0.5, 50)}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=4, width=8, count=1, dtype="uint8", **place
    ) as file:
        file.write(np.full((1, 4, 8), 9, np.uint8))
    found = centers_of(["a.tif"], [(tmp_path / "a.tif").read_bytes()])
    np.testing.assert_allclose(found, [[12.0, 49.0]])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"split_by": "scene"}, "dataset.split_by is 'scene': choose one of image, place"),
        ({"places": "x.csv"}, "dataset.places is given, but dataset.split_by is 'image'"),
        ({"split_by": "place", "block_km": 0}, "dataset.block_km is 0: must be at least 0.001 and at most 1000"),
        ({"split_by": "place", "block_km": 1e-310}, "dataset.block_km is 1e-310: must be at least 0.001"),
        ({"fold": (3, 3)}, "dataset.fold"),
        ({"fold": (0.0, 3)}, "dataset.fold"),
        ({"fold": (0, 3), "splits": "s.json"}, "dataset.fold does nothing"),
        ({"group_near_duplicates": True, "splits": "s.json"}, "dataset.group_near_duplicates does nothing"),
        ({"split_by": "place", "source": "demo"}, "rendered scenes have no location"),
        ({"split_by": "place", "source": "tfds", "builder": "x"}, "give dataset.places"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        load(**{**OPTIONS, **fields})


def test_more_folds_than_images_are_named(tmp_path):
    root = write_classes(tmp_path / "tiles", count=4)
    with pytest.raises(InputError, match="too few groups of images to split .*: give fewer folds in dataset.fold$"):
        load(path=str(root), fold=(0, 100), **OPTIONS)


def test_too_few_places_and_official_splits_are_refused(tmp_path):
    root = write_classes(tmp_path / "tiles", count=4)
    names = [f"{path.parent.name}/{path.name}" for path in root.rglob("*.png")]
    path = table(tmp_path, "name,group\n" + "\n".join(f"{name},x" for name in names) + "\n")
    with pytest.raises(InputError, match="too few groups of images to split .1 groups for 2 parts.*lower"):
        load(path=str(root), split_by="place", places=path, **OPTIONS)
    for side in ("train", "test"):
        (tmp_path / "sided" / side).mkdir(parents=True)
        write_classes(tmp_path / "sided" / side / "x", count=4)
        for one in (tmp_path / "sided" / side / "x").iterdir():
            one.rename(tmp_path / "sided" / side / one.name)
        (tmp_path / "sided" / side / "x").rmdir()
    with pytest.raises(InputError, match="has splits of its own"):
        load(path=str(tmp_path / "sided"), fold=(0, 2), **OPTIONS)
