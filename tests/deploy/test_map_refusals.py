"""Bad input for several rasters, workers, URLs and STAC items: one line each, and nothing is written."""

import json
import os

import numpy as np
import pytest
from refusal import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.maps import scene, write  # noqa: E402

from kdjax.deploy.landuse_map import __main__ as command  # noqa: E402
from kdjax.deploy.landuse_map import layers  # noqa: E402
from kdjax.runtime import files  # noqa: E402

CLOSED = "http://127.0.0.1:1"
"""A port that nobody listens to."""

WHOLE = {
    "nothing to map": ((), "INPUT"),
    "one raster and no place": (("{d}/a.tif",), "give RASTER and OUT.tif"),
    "three rasters and no folder": (("{d}/a.tif", "{d}/b.tif", "{d}/c.tif"), "--output=FOLDER"),
    "the second raster as OUT": (("{d}/a.tif", "{d}/b.tif"), "not a kdjax map"),
    "a folder as RASTER": (("{d}/scenes", "{d}/map.tif"), "no file"),
    "workers for one raster": (("{d}/a.tif", "{d}/map.tif", "--workers=2"), "--workers"),
    "no worker": (("{d}/a.tif", "--output={d}/maps", "--workers=0"), "--workers"),
    "half a worker": (("{d}/a.tif", "--output={d}/maps", "--workers=1.5"), "--workers"),
    "empty output": (("{d}/a.tif", "--output="), "--output"),
    "empty input": (("", "--output={d}/maps"), "INPUT"),
    "output is a file": (("{d}/a.tif", "--output={d}/notes.txt"), "is a file"),
    "output in no folder": (("{d}/a.tif", "--output={d}/x/maps"), "there is no folder"),
    "output among the rasters": (("{d}/scenes", "--output={d}/scenes"), "lies in it"),
    "output is not utf-8": (("{d}/a.tif", "--output={d}/caf\udce9"), "is not UTF-8"),
    "empty folder": (("{d}/empty", "--output={d}/maps"), "holds no raster"),
    "two of one name": (("{d}/a.tif", "{d}/scenes/a.tif", "--output={d}/maps"), "map them to two folders"),
    "one twice": (("{d}/a.tif", "{d}/a.tif", "--output={d}/maps"), "map them to two folders"),
    "the name of a part": (("{d}/a.tif", "{d}/a_confidence.tif", "--output={d}/maps"), "a_confidence.tif"),
    "no name": (("https://example.org/", "--output={d}/maps"), "names no file"),
    "gaps": (("{d}/a.tif", "{d}/b.tif", "--output={d}/maps", "--tile=8", "--stride=9"), "--stride"),
    "busy": (("{d}/a.tif", "--output={d}/busy"), "another command"),
    "source of the vrt": (("{d}/other.vrt", "{d}/a.tif"), "is the raster itself"),
    "server is down": ((CLOSED + "/a.tif", "{d}/map.tif"), "GDAL cannot read"),
    "no such scheme": (("gopher://example.org/a.tif", "{d}/map.tif"), "GDAL cannot read"),
    "a virtual file that is not there": (("/vsizip/{d}/none.zip/a.tif", "{d}/map.tif"), "GDAL cannot read"),
    "source is gone": (("{d}/gone.vrt", "{d}/map.tif"), "none.tif: No such file or directory): put back"),
    "no item": (("{d}/none.json#visual", "{d}/map.tif"), "cannot be read"),
    "no item on the server": ((CLOSED + "/one.json#visual", "{d}/map.tif"), "cannot be read"),
    "item in a bucket": (("s3://bucket/one.json#visual", "{d}/map.tif"), "download it"),
    "item is no json": (("{d}/text.json#visual", "{d}/map.tif"), "not JSON"),
    "item is no item": (("{d}/list.json#visual", "{d}/map.tif"), "not a STAC item"),
    "item is a collection": (("{d}/collection.json#visual", "{d}/map.tif"), "not a STAC item"),
    "no asset": (("{d}/one.json#red", "{d}/map.tif"), "no asset 'red'"),
    "asset not named": (("{d}/one.json", "{d}/map.tif"), "one.json#NAME (visual, bare, metadata)"),
    "asset without href": (("{d}/one.json#bare", "{d}/map.tif"), "has no href"),
    "asset is no raster": (("{d}/one.json#metadata", "{d}/map.tif"), "GDAL cannot read"),
    "asset is the map": (("{d}/one.json#visual", "{d}/a.tif"), "is the raster itself"),
    "coordinates that no GeoTIFF holds": (("{d}/pole.tif", "{d}/map.tif"), "pole.tif: a map is a GeoTIFF, "),
    "perspective of a camera": (("{d}/camera.tif", "{d}/map.tif"), "(+proj=tpers +h=5500000 +lat_0=40"),
    "colors by lightness": (("{d}/lab.tif", "{d}/map.tif"), "lab.tif: its colors are CIELAB"),
    "polygons of a place on no map": (("{d}/local.tif", "{d}/map.tif", "--polygons"), "--polygons"),
    "polygons of the moon": (("{d}/moon.tif", "{d}/map.tif", "--polygons"), "--polygons"),
}


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    for name in ("empty", "scenes", "busy"):
        (folder / name).mkdir()
    for name in ("a", "b", "c", "a_confidence", "scenes/a"):
        write(folder / f"{name}.tif", scene(16, 16))
    write(folder / "local.tif", scene(16, 16), crs=rasterio.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'))
    write(folder / "moon.tif", scene(16, 16), crs=rasterio.CRS.from_proj4("+proj=eqc +R=1737400"))
    write(folder / "lab.tif", scene(16, 16), photometric="cielab")
    turned = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433"
    for name, system in (("pole", turned), ("camera", "+proj=tpers +h=5500000 +lat_0=40")):
        write(folder / f"{name}.tif", scene(16, 16), rasterio.CRS.from_proj4(f"{system} +datum=WGS84"))
    for name, source in (("other", "a"), ("gone", "none")):
        bands = "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{color}</ColorInterp><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{source}.tif</SourceFilename><SourceBand>{band}</SourceBand>'
            "</SimpleSource></VRTRasterBand>"
            for band, color in enumerate(("Red", "Green", "Blue"), 1)
        )
        (folder / f"{name}.vrt").write_text(
            '<VRTDataset rasterXSize="16" rasterYSize="16"><SRS>EPSG:32631</SRS>'
            f"<GeoTransform>500000, 1, 0, 4600000, 0, -1</GeoTransform>{bands}</VRTDataset>"
        )
    (folder / "notes.txt").write_text("notes")
    (folder / "text.json").write_text("no JSON")
    (folder / "list.json").write_text("[]")
    (folder / "collection.json").write_text(json.dumps({"type": "Collection", "assets": {}}))
    assets = {"visual": {"href": "./a.tif"}, "bare": {"title": "x"}, "metadata": {"href": "notes.txt"}}
    (folder / "one.json").write_text(json.dumps({"type": "Feature", "assets": assets}))
    return folder


ESRI = (
    'PROJCS["NAD_1983_UTM_Zone_15N",GEOGCS["GCS_North_American_1983",DATUM["D_North_American_1983",'
    'SPHEROID["GRS_1980",6378137,298.257222101]],PRIMEM["Greenwich",0],UNIT["Degree",0.017453292519943295]],'
    'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",-93],'
    'PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["Meter",1]]'
)
HELD = (
    "EPSG:32631", "EPSG:4807", "EPSG:2263+6360", "EPSG:31467", "EPSG:5514", "ESRI:102100", "ESRI:54009", ESRI,
    "+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84", "+proj=laea +lat_0=52 +lon_0=10 +R=6371228",
    "+proj=utm +zone=32 +ellps=intl +towgs84=-87,-98,-121 +units=m", 'LOCAL_CS["site",UNIT["metre",1]]',
)  # fmt: skip


@pytest.mark.parametrize("system", HELD)
def test_coordinates_that_a_geotiff_holds_under_whatever_name_are_mapped(system):
    crs = rasterio.CRS.from_user_input(system)
    corner, pixel = rasterio.Affine.translation(40, 30), rasterio.Affine.scale(0.01, -0.01)
    for turn in (0, 30, 180):
        place = corner @ rasterio.Affine.rotation(turn) @ pixel
        layers.check("scene.tif", layers.Grid(16, 16, crs, place))


@pytest.mark.parametrize(
    ("read_back", "same"),
    [
        ("+proj=tmerc +lat_0=0 +lon_0=3 +k=0.9996 +x_0=500000 +ellps=WGS84", True),  # by another name
        ("EPSG:25831", True),  # on another datum, that lies there
        ("EPSG:23031", False),  # on one that lies 100 m away
        ("EPSG:32632", False),
    ],
)
def test_coordinates_are_the_same_where_they_lie_at_the_same_place(read_back, same):
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)
    grid = layers.Grid(16, 16, rasterio.CRS.from_epsg(32631), place)
    assert rasterio.CRS.from_user_input(read_back) != grid.crs
    assert layers._same_location(rasterio.CRS.from_user_input(read_back), grid) is same


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", WHOLE)
def test_bad_input_is_refused_and_nothing_written(artifact, rasters, capfd, monkeypatch, kind):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    arguments, words = WHOLE[kind]
    held = files.lock(rasters / "busy" / ".lock")
    before = contents(rasters)
    assert words in refused(capfd, command.main, artifact, *(text.replace("{d}", str(rasters)) for text in arguments))
    os.close(held)
    assert contents(rasters) == before and not (rasters / "maps").exists()


def test_maps_are_replaced_by_maps_and_nothing_else_is(artifact, rasters, tmp_path, capfd):
    """A raster that would be overwritten by a map's confidence is as dear as one that the map itself would replace."""
    out = tmp_path / "map.tif"
    for _ in range(2):
        command.main([str(artifact), str(rasters / "a.tif"), str(out)])
    write(tmp_path / "other_confidence.tif", scene(16, 16, 1))
    capfd.readouterr()
    assert "a kdjax map" in refused(capfd, command.main, artifact, rasters / "a.tif", tmp_path / "other.tif")
    with rasterio.open(tmp_path / "other_confidence.tif") as file:
        np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), scene(16, 16, 1))


FOREIGN = {
    "map.tif": b"II*\0 of a codec that GDAL does not know",
    "map_confidence.tif": b"II*\0\xc0\0\0\0GDAL_STRUCTURAL_METADATA_SIZE=000140",  # as GDAL begins
    "map_probabilities.tif": b"II. Survey of 1987, plain text",
    "map.tif.aux.xml": b'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n',
    "map_areas.csv": b"",
    "map.tif.ovr": b"overviews of another file",
    "map_confidence.tif.msk": b"a mask",
    "map_legend.png.aux.xml": b"<PAMDataset>\n</PAMDataset>\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_gdal_cannot_open_or_puts_beside_rasters_stays_where_no_map_was(artifact, rasters, tmp_path, capfd, name):
    (tmp_path / name).write_bytes(FOREIGN[name])
    said = refused(capfd, command.main, artifact, rasters / "a.tif", tmp_path / "map.tif")
    assert f"{name} exists and" in said and "a kdjax map" in said
    assert contents(tmp_path) == {tmp_path / name: FOREIGN[name]}


def test_a_tiff_that_gdal_cannot_open_stays_beside_a_map(artifact, rasters, tmp_path, capfd):
    """A map that was cut off is replaced, and a TIFF that GDAL did not lay out as it does a map is none."""
    arguments = [str(artifact), str(rasters / "a.tif"), str(tmp_path / "map.tif")]
    command.main([*arguments, "--probabilities"])
    whole = contents(tmp_path)
    for name in ("map.tif", "map_confidence.tif", "map_probabilities.tif"):
        (tmp_path / name).write_bytes(whole[tmp_path / name][:100])
    command.main([*arguments, "--probabilities"])
    assert contents(tmp_path) == whole
    (tmp_path / "map_probabilities.tif").write_bytes(FOREIGN["map.tif"])
    before = contents(tmp_path)
    capfd.readouterr()
    assert "map_probabilities.tif exists" in refused(capfd, command.main, *arguments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["map.tif.ovr", "map_legend.png.msk"])
def test_a_folder_with_the_name_of_a_sidecar_is_refused_before_the_map_goes(artifact, rasters, tmp_path, capfd, name):
    arguments = [str(artifact), str(rasters / "a.tif"), str(tmp_path / "map.tif")]
    command.main(arguments)
    (tmp_path / name).mkdir()
    before = contents(tmp_path)
    capfd.readouterr()
    assert f"{name} exists and is not a file" in refused(capfd, command.main, *arguments)
    assert contents(tmp_path) == before


NOT_OF_A_MAP = ["map.tif", "map_probabilities.tif", "map_polygons.geojson", "map_areas.csv", "map_legend.png"]


@pytest.mark.parametrize("name", NOT_OF_A_MAP)
def test_what_is_no_file_of_a_map_stays(artifact, rasters, tmp_path, capfd, name):
    """Neither replaced nor removed, also beside a map and without the option that would write it."""
    (tmp_path / name).write_text('{"type": "FeatureCollection", "features": []}')
    said = refused(capfd, command.main, artifact, rasters / "a.tif", tmp_path / "map.tif")
    assert f"{name} exists" in said and "a kdjax map" in said
    assert [path.name for path in tmp_path.iterdir()] == [name]
    kept = (tmp_path / name).rename(tmp_path / "kept")
    command.main([str(artifact), str(rasters / "a.tif"), str(tmp_path / "map.tif")])
    if name != "map_legend.png":  # a legend goes with its areas
        kept.replace(tmp_path / name)
        before = contents(tmp_path)
        capfd.readouterr()
        assert name in refused(capfd, command.main, artifact, rasters / "a.tif", tmp_path / "map.tif")
        assert contents(tmp_path) == before


LATER = ("map.tif", "map_confidence.tif", "map_probabilities.tif", "map_legend.png", "map_areas.csv")


@pytest.mark.parametrize("gone", [1, len(LATER)])
def test_files_of_a_map_without_the_map_are_replaced(artifact, rasters, tmp_path, gone):
    """As a process leaves them that was killed while they came to their place."""
    arguments = [str(artifact), str(rasters / "a.tif"), str(tmp_path / "map.tif")]
    command.main([*arguments, "--polygons", "--probabilities"])
    for name in LATER[:gone]:
        (tmp_path / name).unlink()
    command.main(arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.tif", "map.tif.aux.xml", "map_areas.csv", "map_confidence.tif", "map_legend.png"
    ]  # fmt: skip


@pytest.mark.parametrize("raster", ["a.tif", "none.tif"])
def test_a_table_of_another_kind_in_the_folder_stays(artifact, rasters, tmp_path, capfd, raster):
    """It would be replaced by the sums over the maps, or removed where there is no map."""
    (tmp_path / "areas.csv").write_text("parcel,area\n1,2\n")
    said = refused(capfd, command.main, artifact, rasters / raster, "--output", tmp_path)
    assert "areas.csv exists and does not belong to a kdjax map" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "areas.csv"]
    assert (tmp_path / "areas.csv").read_text() == "parcel,area\n1,2\n"
