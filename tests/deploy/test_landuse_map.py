"""The map of a raster: georeferencing, nodata, and what bad input ends in."""

import dataclasses
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from refusal import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, ROOT, SIDE, UTM, by_pixels, mixed_vrt, run, scene, write  # noqa: E402

from kdjax.deploy.landuse_map import __main__ as command  # noqa: E402
from kdjax.deploy.landuse_map import legend  # noqa: E402
from kdjax.deploy.trust import Trust  # noqa: E402


def test_the_map_of_a_raster(artifact, tmp_path, capsys):
    pixels = scene(61, 83)
    raster = write(tmp_path / "scene.tif", pixels)
    run(artifact, raster, tmp_path / "map.tif")
    expected = by_pixels(pixels, SIDE, SIDE // 2)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.crs == UTM and file.count == 1 and file.dtypes == ("uint8",) and file.nodata == 255
        assert file.transform == rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)
        np.testing.assert_array_equal(file.read(1), expected.argmax(-1))
        assert {k: file.colormap(1)[k][:3] for k in range(3)} == dict(enumerate(legend.colors(3)))
        assert [file.tags(1)[f"class_{k}"] for k in range(3)] == list(CLASSES)
        assert file.descriptions == ("land-use class",)
        assert (file.tags()["tile"], file.tags()["stride"]) == ("8", "4")
        indices = file.read(1)
    with rasterio.open(tmp_path / "map_confidence.tif") as file:
        assert file.crs == UTM and file.transform == rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)
        np.testing.assert_allclose(file.read(1), expected.max(-1), atol=1e-5)
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").find("PAMRasterBand")
    assert [one.text for one in table.find("CategoryNames")] == list(CLASSES)
    rows = [[cell.text for cell in row] for row in table.iter("Row")]
    counts = np.bincount(indices.ravel(), minlength=3)
    assert [(int(row[0]), int(row[1]), row[2]) for row in rows] == list(zip(range(3), counts, CLASSES, strict=True))
    shown = set(Image.open(tmp_path / "map_legend.png").convert("RGB").get_flattened_data())
    assert set(legend.colors(3)) <= shown
    said = capsys.readouterr()
    assert not said.err and f"{100 * counts.max() / counts.sum():.1f} %  {CLASSES[counts.argmax()]}" in said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.tif", "map.tif.aux.xml", "map_areas.csv", "map_confidence.tif", "map_legend.png", "scene.tif",
    ]  # fmt: skip


def test_no_jax_is_needed():
    code = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorflow', 'onnx'): sys.modules[name] = None\n"
        "from kdjax.deploy.landuse_map import __main__, writer"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_a_turned_raster_keeps_its_place(artifact, tmp_path):
    turned = rasterio.Affine(0.25, 0.125, 10, 0.0625, -0.5, 50)
    place = lambda transform, column, row: np.reshape(transform[:6], (2, 3)) @ (column, row, 1)
    raster = write(tmp_path / "scene.tif", scene(24, 40), "EPSG:4326", turned)
    run(artifact, raster, tmp_path / "map.tif", "--stride=8")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.height, file.width) == (3, 5)
        for column, row in ((0, 0), (5, 0), (0, 3), (2, 1)):
            np.testing.assert_array_equal(place(file.transform, column, row), place(turned, 8 * column, 8 * row))


@pytest.mark.parametrize("kind", ["nodata", "float nan", "mask"])
def test_nodata_stays(artifact, tmp_path, kind):
    pixels = scene(48, 64)
    pixels[pixels == 7] = 8
    hole = np.zeros((48, 64), bool)
    hole[:20, 30:] = True
    options, values = {}, pixels.copy()
    if kind == "nodata":
        values[hole] = 7
        values[30, 30, 0] = 7  # one band alone: data
        pixels[30, 30, 0] = 7
        options = {"nodata": 7}
    elif kind == "float nan":
        values = np.where(hole[..., None], np.nan, values).astype(np.float32)
    raster = write(tmp_path / "scene.tif", values, **options)
    if kind == "mask":
        with rasterio.open(raster, "r+") as file:
            file.write_mask(~hole)
    run(artifact, raster, tmp_path / "map.tif", *(["--value-range=0,255"] if kind == "float nan" else []))
    expected = by_pixels(pixels, SIDE, 4, ~hole)
    gone = np.isnan(expected[..., 0])
    assert gone[:4, 9:].all() and not gone[6:].any()
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.where(gone, 255, expected.argmax(-1)))
    with rasterio.open(tmp_path / "map_confidence.tif") as file:
        assert file.nodata == -1
        np.testing.assert_allclose(file.read(1), np.where(gone, -1, expected.max(-1)), atol=1e-5)


def test_cells_with_data_that_no_window_shows_are_counted(artifact, tmp_path, capsys):
    """Three islands of one cell each in a sea of nodata, and land that has a border along cells."""
    pixels = np.maximum(scene(96, 128), 1)
    valid = np.zeros((96, 128), bool)
    valid[:, :64] = True
    valid[16:24, 96:104] = valid[48:56, 112:120] = valid[72:80, 96:104] = True
    raster = write(tmp_path / "scene.tif", np.where(valid[..., None], pixels, 0), nodata=0)
    run(artifact, raster, tmp_path / "map.tif", "--tile=16", "--stride=8")
    with rasterio.open(tmp_path / "map.tif") as file:
        nothing = file.read(1) == 255
    lost = valid.reshape(12, 8, 16, 8).all((1, 3)) & nothing
    assert lost.sum() == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cells: 3 with data have no class")


def test_bands_and_value_range(artifact, tmp_path):
    pixels = scene(32, 40)
    deep = np.concatenate([pixels[..., ::-1], pixels[..., :1]], -1).astype(np.uint16) * 10 + 1000
    raster = write(tmp_path / "deep.tif", deep)
    run(artifact, raster, tmp_path / "deep_map.tif", "--bands=3,2,1", "--value-range=1000,3550")
    with rasterio.open(tmp_path / "deep_map.tif") as file:
        np.testing.assert_array_equal(file.read(1), by_pixels(pixels, SIDE, 4).argmax(-1))
    gray = write(tmp_path / "gray.tif", pixels[..., :1])
    run(artifact, gray, tmp_path / "gray_map.tif")
    with rasterio.open(tmp_path / "gray_map_confidence.tif") as file:
        np.testing.assert_allclose(file.read(1), 1 / 3, atol=1e-6)


def test_the_window_is_resized_to_the_model(artifact, tmp_path):
    flat = np.full((64, 64, 3), 20, np.uint8)
    flat[:, 32:, 1] = 220
    run(artifact, write(tmp_path / "scene.tif", flat), tmp_path / "map.tif", "--tile=32", "--stride=32")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), [[0, 1], [0, 1]])


BAD = {
    "corrupt artifact": "ONNX",
    "missing raster": "no file",
    "text as raster": "GDAL cannot read",
    "no crs": "coordinate reference system",
    "no transform": "no geotransform;",
    "no height of a pixel": "no geotransform under which a pixel has an area;",
    "no area of a pixel": "no geotransform under which a pixel has an area;",
    "four bands": "--bands=1,2,3",
    "band too many": "no band 4",
    "16 bits": "--value-range",
    "color table": "color table",
    "too small": "--tile",
    "truncated": "cannot be read",
    "out is the raster": "is the raster itself",
    "confidence is the raster": "is the raster itself",
    "probabilities are the raster": "is the raster itself",  # which are not asked for, but older ones are removed
    "no folder": "there is no folder",
    "no tif": ".tif",
    "gaps": "--stride",
    "bad bands": "--bands",
    "bad range": "--value-range",
    "range beyond bytes": "--value-range is 0,10000",
    "bad tile": "--tile",
    "range of a few values": "--value-range",
    "out is a folder": "exists and is not a file",
    "confidence is a pipe": "exists and is not a file",
    "raster is a pipe": "no file",
    "range without values": "--value-range",
    "another kind": "floats 0.",
    "values clip": "of its values",
    "8 bits for a deep model": "8-bit pixels",
    "bands of two types": "different types (uint16, uint8)",
    "signed white is zero": "white is 0",
    "no data at all": "no cell of the map would have a class: it has no data",
    "little data": "would have a class: less than half of every window is data; a smaller --tile may help",
    "raster is not utf-8": "is not UTF-8: rename it",
    "out is not utf-8": "OUT: the name of",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_ends_in_one_line_and_writes_nothing(artifact, tmp_path, capfd, kind):
    out, flags, pixels, options = tmp_path / "map.tif", [], scene(40, 40), {}
    names = {"confidence is the raster": "map_confidence.tif", "probabilities are the raster": "map_probabilities.tif"}
    raster = tmp_path / names.get(kind, "scene.tif")
    if kind == "four bands":
        pixels = np.concatenate([pixels, pixels[..., :1]], -1)
    elif kind == "16 bits":
        pixels = pixels.astype(np.uint16)
    elif kind == "color table":
        pixels, options = pixels[..., :1], {"photometric": "palette"}
    elif kind == "too small":
        pixels = pixels[:7]
    elif kind == "no crs":
        options = {"crs": None}
    elif kind == "no transform":
        options = {"transform": rasterio.Affine.identity()}
    elif kind in ("no height of a pixel", "no area of a pixel"):
        down = (0.0, 0.0) if kind == "no height of a pixel" else (0.3, -0.9)  # in the direction of a row
        options, flags = {"transform": rasterio.Affine(0.1, down[0], 5, -0.3, down[1], 46)}, ["--polygons"]
    elif kind in ("another kind", "values clip", "8 bits for a deep model"):
        artifact = write_model(tmp_path / "deep.onnx", SIDE, CLASSES, value_range="[0, 10000]", numbers='["16-bit"]')
        if kind == "another kind":
            pixels = (pixels / np.float32(255)).astype(np.float32)
        elif kind == "values clip":
            pixels = pixels.astype(np.uint16) + 20000
    elif kind in ("no data at all", "little data"):
        pixels[0 if kind == "no data at all" else 2 :], options = 7, {"nodata": 7}
    elif kind == "signed white is zero":
        pixels, options = pixels[..., :1].astype(np.int16), {"photometric": "MINISWHITE"}
        flags = ["--value-range=0,255"]
    write(raster, pixels, **options)
    if kind == "raster is not utf-8":
        raster = raster.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif"))
    elif kind == "out is not utf-8":
        out = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")
    elif kind == "out is a folder":
        out.mkdir()
    elif kind == "confidence is a pipe":
        os.mkfifo(tmp_path / "map_confidence.tif")
    elif kind == "raster is a pipe":
        raster = tmp_path / "pipe.tif"
        os.mkfifo(raster)
    elif kind == "bands of two types":
        write(tmp_path / "deep.tif", pixels[..., :1].astype(np.uint16))
        raster = mixed_vrt(tmp_path / "scene.vrt", raster, tmp_path / "deep.tif")
    if kind == "color table":
        with rasterio.open(raster, "r+") as file:
            file.write_colormap(1, {k: (k, 0, 0) for k in range(256)})
    elif kind == "corrupt artifact":
        artifact = tmp_path / "student.onnx"
        artifact.write_bytes(b"no model" * 100)
    elif kind == "missing raster":
        raster = tmp_path / "nothing.tif"
    elif kind == "text as raster":
        raster.write_text("not a raster")
    elif kind == "truncated":
        raster.write_bytes(raster.read_bytes()[:2000])
        out.write_bytes(b"an older map")
    elif kind == "out is the raster":
        out = raster
    elif kind == "no folder":
        out = tmp_path / "nowhere" / "map.tif"
    elif kind == "no tif":
        out = tmp_path / "map.png"
    flags = {
        "band too many": ["--bands=1,2,4"],
        "gaps": ["--stride=9"],
        "bad bands": ["--bands=1,2"],
        "bad range": ["--value-range=5,5"],
        "range beyond bytes": ["--value-range=0,10000"],
        "bad tile": ["--tile=0"],
        "range without values": ["--value-range"],
        "range of a few values": ["--value-range=0,10"],
    }.get(kind, flags)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert BAD[kind] in refused(capfd, command.main, artifact, raster, out, *flags)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_cells_that_the_model_does_not_know_are_unknown(tmp_path, capsys):
    """Gray fields name no class with confidence; dark ones excite none. Nodata stay apart."""
    found = Trust(2.0, {0.9: 0.5, 0.95: 0.8}, 0.5, -2.0)
    artifact = write_model(tmp_path / "student.onnx", SIDE, CLASSES, **found.metadata())
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :16] = (30, 200, 40)  # logits 0.9, 6.3, 1.3
    pixels[:, 16:32] = 120  # all alike
    pixels[:, 32:48] = (0, 40, 0)  # a little green: logits 0, 1.3, 0, whose energy is −1.7
    raster = write(tmp_path / "scene.tif", pixels, nodata=0)
    flags = ("--tile=16", "--stride=16")
    run(artifact, raster, tmp_path / "map.tif", *flags)
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), [[1, 254, 254, 255]] * 2)
        assert file.colormap(1)[254][:3] == legend.GRAY and file.tags(1)["class_254"] == "unknown"
    with rasterio.open(tmp_path / "map_confidence.tif") as file:  # calibrated
        logits = np.array([30, 200, 40]) / 32 / 2.0
        np.testing.assert_allclose(file.read(1)[0, 0], np.exp(logits[1]) / np.exp(logits).sum(), rtol=1e-5)
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").find("PAMRasterBand")
    rows = [[cell.text for cell in row][:3] for row in table.iter("Row")]
    assert rows[-1] == ["254", "4", "unknown"] and rows[1] == ["1", "2", CLASSES[1]]
    said = capsys.readouterr()
    assert " 66.7 %  unknown" in said.out and not said.err
    few = write_model(tmp_path / "few.onnx", SIDE, CLASSES, **dataclasses.replace(found, images=12).metadata())
    run(few, raster, tmp_path / "few.tif", *flags)
    assert capsys.readouterr().err.startswith(f"warning: {few}: with 12 validation images, ")
    shown = set(Image.open(tmp_path / "map_legend.png").convert("RGB").get_flattened_data())
    assert legend.GRAY in shown
    run(artifact, raster, tmp_path / "all.tif", *flags, "--answer-all")
    with rasterio.open(tmp_path / "all.tif") as file:
        np.testing.assert_array_equal(file.read(1)[0, [0, 2, 3]], [1, 1, 255])
        assert not (file.read(1) == 254).any()
