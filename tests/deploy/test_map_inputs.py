"""What can be mapped: files, virtual rasters, URLs and assets of STAC items."""

import datetime
import json
import os
import socket
import threading

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.maps import SIDE, by_pixels, run, scene, write  # noqa: E402
from helpers.range_server import serve  # noqa: E402
from rasterio.shutil import copy  # noqa: E402

from kdjax.deploy.landuse_map import inputs  # noqa: E402
from kdjax.errors import InputError  # noqa: E402


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Pixels, the folder of their COG `scene.tif`, its URL and the file of answers."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    pixels = scene(200, 260)
    folder = tmp_path / "served"
    folder.mkdir()
    write(tmp_path / "plain.tif", pixels)
    copy(tmp_path / "plain.tif", folder / "scene.tif", driver="COG", BLOCKSIZE=128)
    with serve(folder, tmp_path / "answers") as url:
        yield pixels, folder, url, tmp_path / "answers"


def item(assets, **facts):
    known = {"type": "Feature", "stac_version": "1.0.0", "id": "one", "geometry": None, "links": [], "assets": assets}
    return json.dumps(known | {"properties": {"datetime": "2024-01-01T00:00:00Z"}} | facts)


def classes(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_a_virtual_raster_of_two_files_is_one_raster(artifact, tmp_path):
    """A VRT by hand, of two halves: no window sees the seam."""
    pixels = scene(48, 64)
    for name, left in (("west", 0), ("east", 32)):
        write(
            tmp_path / f"{name}.tif",
            pixels[:, left : left + 32],
            transform=rasterio.Affine(0.5, 0, 500_000 + left / 2, 0, -0.5, 4_600_000),
        )
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{color}</ColorInterp>'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="32" ySize="48"/><DstRect xOff="{left}" yOff="0" xSize="32" ySize="48"/>'
            "</SimpleSource>"
            for name, left in (("west", 0), ("east", 32))
        )
        + "</VRTRasterBand>"
        for band, color in enumerate(("Red", "Green", "Blue"), 1)
    )
    (tmp_path / "both.vrt").write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="48"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>500000, 0.5, 0, 4600000, 0, -0.5</GeoTransform>{bands}</VRTDataset>"
    )
    run(artifact, tmp_path / "both.vrt", tmp_path / "map.tif")
    np.testing.assert_array_equal(classes(tmp_path / "map.tif"), by_pixels(pixels, SIDE, 4).argmax(-1))


@pytest.mark.parametrize("form", ["{url}/scene.tif", "/vsicurl/{url}/scene.tif", "{url}/items/one.json#visual"])
def test_a_raster_on_a_server_is_read_by_ranges(artifact, tmp_path, served, form):
    pixels, folder, url, answers = served
    (folder / "items").mkdir()
    (folder / "items" / "one.json").write_text(item({"visual": {"href": "../scene.tif"}}))
    text = form.format(url=url)
    run(artifact, text, "--stride=8", "--output", tmp_path / "maps")
    name = "one_visual.tif" if "#" in form else "scene.tif"
    np.testing.assert_array_equal(classes(tmp_path / "maps" / name), by_pixels(pixels, SIDE, 8).argmax(-1))
    asked = [line.split() for line in answers.read_text().splitlines()[1:]]
    assert {status for method, path, status in asked if (method, path) == ("GET", "/scene.tif")} == {"206"}


@pytest.mark.parametrize(
    "href", ["./rasters/scene.tif", "rasters/scene.tif", "{folder}/rasters/scene.tif", "{url}/scene.tif"]
)
def test_the_href_of_an_asset_is_relative_to_its_item(artifact, tmp_path, served, href):
    pixels, folder, url, _ = served
    (folder / "rasters").mkdir()
    (folder / "scene.tif").rename(folder / "rasters" / "scene.tif")
    (folder / "scene.tif").symlink_to(folder / "rasters" / "scene.tif")
    path = tmp_path / "served" / "one.json"
    path.write_text(item({"thumbnail": {"href": "x.png"}, "visual": {"href": href.format(folder=folder, url=url)}}))
    run(artifact, f"{path}#visual", tmp_path / "map.tif", "--stride=8")
    np.testing.assert_array_equal(classes(tmp_path / "map.tif"), by_pixels(pixels, SIDE, 8).argmax(-1))


def test_an_href_may_be_escaped_or_as_the_file_is_called(tmp_path):
    (tmp_path / "my scenes").mkdir()
    write(tmp_path / "my scenes" / "one.tif", scene(40, 50))
    write(tmp_path / "a%20b.tif", scene(40, 50))
    for href, found in (("./my%20scenes/one.tif", "my scenes/one.tif"), ("a%20b.tif", "a%20b.tif")):
        (tmp_path / "item.json").write_text(item({"data": {"href": href}}))
        assert os.path.normpath(inputs.gdal_path(f"{tmp_path}/item.json#data")) == str(tmp_path / found)


@pytest.mark.parametrize("href", ["./a.tif", "a/b.tif", "../a.tif", "/data/a.tif", "https://example.org/x/a.tif?sig=1"])
def test_hrefs_are_those_of_pystac(tmp_path, href):
    pystac = pytest.importorskip("pystac")
    (tmp_path / "items").mkdir()
    path = tmp_path / "items" / "one.json"
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    made = pystac.Item("one", None, None, moment, {})
    made.add_asset("visual", pystac.Asset(href))
    made.save_object(include_self_link=False, dest_href=str(path))
    expected = pystac.Item.from_file(str(path)).assets["visual"].get_absolute_href()
    found = inputs.gdal_path(f"{path}#visual")
    assert found == expected or os.path.normpath(found) == expected


@pytest.mark.parametrize(
    "text, stem",
    [
        ("a/scene.tif", "scene"),
        ("a/scene.2024.tif", "scene.2024"),
        ("a/scene#1.tif", "scene#1"),
        ("https://example.org/a/scene.tif?sig=a/b#c", "scene_c"),
        ("https://example.org/a/b%20c.tif", "b_20c"),
        ("/vsicurl/https://example.org/a/scene.tif", "scene"),
        ("s3://bucket/a/scene.tif", "scene"),
        ("a/one.json#B04", "one_B04"),
        ("a/one.json#x/y", "one_x_y"),
        ("https://example.org/items/one#visual", "one_visual"),
    ],
)
def test_maps_have_the_names_of_their_inputs(text, stem):
    assert inputs.stem(text) == stem


def test_a_folder_stands_for_its_rasters(tmp_path):
    for name in ("b.tif", "a.TIFF", "c.vrt", "d.jp2", ".hidden.tif", "notes.txt", "a.tif.aux.xml"):
        (tmp_path / name).touch()
    found = inputs.expand(["x.tif", str(tmp_path), "https://example.org/y.tif"])
    held = [str(tmp_path / name) for name in ("a.TIFF", "b.tif", "c.vrt", "d.jp2")]
    assert found == ["x.tif", *held, "https://example.org/y.tif"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", b"no HTTP\r\n\r\n"])
def test_an_item_that_breaks_off_is_one_line_and_the_others_are_mapped(artifact, tmp_path, capsys, monkeypatch, answer):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write(tmp_path / "scene.tif", scene(16, 16))

    def answering():
        connection, _ = listening.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=answering)
        server.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/one.json#visual"
        with pytest.raises(SystemExit):
            run(artifact, url, tmp_path / "scene.tif", "--output", tmp_path / "maps")
        server.join()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "one.json: it cannot be read" in lines[0] and "1 of 2 rasters" in lines[1]
    assert (tmp_path / "maps" / "scene.tif").exists()


@pytest.mark.parametrize("function", [inputs.stem, inputs.gdal_path])
def test_an_address_of_no_server_is_refused(function):
    with pytest.raises(InputError, match=r"INPUT https://\[a/b.tif: it is not a URL"):
        function("https://[a/b.tif")


def test_an_href_of_no_server_is_refused(tmp_path, monkeypatch):
    document = json.loads(item({"visual": {"href": "//[a/b.tif"}}))
    monkeypatch.setattr(inputs, "_read_item", lambda item: document)
    with pytest.raises(InputError, match="the href of its asset 'visual' is not a URL"):
        inputs.gdal_path("https://example.org/one.json#visual")


@pytest.mark.parametrize(
    ("crs", "transform", "aspect"),
    [
        ("EPSG:32631", (10, 0, 500_000, 0, -10, 4_600_000), 1.0),
        ("EPSG:32631", (10, 0, 500_000, 0, -20, 4_600_000), 2.0),
        ("EPSG:32631", (0, 20, 500_000, 10, 0, 4_600_000), 2.0),
        ("EPSG:4326", (1e-4, 0, 10, 0, -1e-4, 60), 2.0),
        ("EPSG:4326", (1e-4, 0, 10, 0, 1e-4, -60), 2.0),
        ("EPSG:4326", (1e-4, 0, 10, 0, -1e-4, 0), 1.0),
        ("EPSG:4326", (0, 1e-4, 10, 1e-4, 0, 60), 0.5),
        ("EPSG:4087", (10, 0, 1_113_195, 0, -10, 6_679_169), 2.0),  # plate carrée at 60 degrees: as in degrees
        ("EPSG:4087", (20, 0, 1_113_195, 0, -10, 6_679_169), 1.0),
        ("EPSG:4087", (0, 10, 1_113_195, 10, 0, -6_679_169), 0.5),
        ("EPSG:3857", (10, 0, 1_113_195, 0, -10, 8_399_738), 1.0),  # Mercator stretches both sides alike
        ("EPSG:4807", (1e-4, 0, 10, 0, -1e-4, 60 / 0.9), 2.0),  # grads
    ],
)
def test_pixels_that_are_no_squares_on_the_ground_are_told(artifact, tmp_path, capsys, crs, transform, aspect):
    place = rasterio.Affine(*transform)
    raster = write(tmp_path / "scene.tif", scene(16, 16), crs=rasterio.CRS.from_string(crs), transform=place)
    run(artifact, raster, tmp_path / "map.tif")
    said = capsys.readouterr().err
    assert (f"pixels: {aspect:.2g} times as high as wide on the ground" in said) is (aspect != 1)


def test_a_scale_that_is_not_used_is_told(artifact, tmp_path, capsys):
    raster = write(tmp_path / "scene.tif", scene(16, 16))
    for scale, told in ((1.0, False), (0.0001, True)):
        with rasterio.open(raster, "r+") as file:
            file.scales = (scale,) * 3
        run(artifact, raster, tmp_path / "map.tif")
        assert ("its scale and offset are not used" in capsys.readouterr().err) is told
