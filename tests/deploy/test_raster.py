"""What the pixels of a raster mean."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from refusal import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, SIDE, by_pixels, run, scene, write  # noqa: E402
from rasterio.windows import Window  # noqa: E402

from kdjax.data import decode  # noqa: E402
from kdjax.data.bands import Bands  # noqa: E402
from kdjax.data.image_files import read_file  # noqa: E402
from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.deploy.landuse_map import __main__ as command  # noqa: E402
from kdjax.errors import InputError  # noqa: E402


def test_the_window_of_rasterio_is_that_of_the_reader(artifact, tmp_path):
    """`Raster.read` takes row and column in that order."""
    from kdjax.deploy.landuse_map.raster import Raster

    pixels = scene(30, 50)
    raster = Raster(write(tmp_path / "scene.tif", pixels), None, None, Meaning())
    seen, valid = raster.read(5, 20, 10, 12)
    raster.close()
    np.testing.assert_array_equal(seen, pixels[5:15, 20:32])
    assert valid.all() and valid.shape == (10, 12)
    with rasterio.open(tmp_path / "scene.tif") as file:
        np.testing.assert_array_equal(seen[..., 0], file.read(1, window=Window(20, 5, 12, 10)))


C = rasterio.enums.ColorInterp
KINDS = {
    "bgr": {"colorinterp": (C.blue, C.green, C.red)},
    "bgr and near infrared": {"count": 4, "colorinterp": (C.blue, C.green, C.red, C.undefined)},
    "16-bit bgr": {"dtype": "uint16", "colorinterp": (C.blue, C.green, C.red)},
    "alpha": {"count": 4, "colorinterp": (C.red, C.green, C.blue, C.alpha)},
    "16-bit alpha": {"count": 4, "dtype": "uint16", "colorinterp": (C.red, C.green, C.blue, C.alpha)},
    "8-bit alpha in 16 bits": {
        "count": 4,
        "dtype": "uint16",
        "full": 255,
        "colorinterp": (C.red, C.green, C.blue, C.alpha),
    },
    "signed alpha": {"count": 4, "dtype": "int16", "colorinterp": (C.red, C.green, C.blue, C.alpha)},
    "float alpha": {"count": 4, "dtype": "float32", "colorinterp": (C.red, C.green, C.blue, C.alpha)},
    "alpha and near infrared": {"count": 5, "colorinterp": (C.red, C.green, C.blue, C.undefined, C.alpha)},
    "alpha first": {"count": 4, "colorinterp": (C.alpha, C.red, C.green, C.blue)},
    "alpha and nodata": {"count": 4, "nodata": 0, "colorinterp": (C.red, C.green, C.blue, C.alpha)},
    "nodata": {"nodata": 7},
    "16-bit nodata": {"dtype": "uint16", "nodata": 65535},
    "signed nodata": {"dtype": "int16", "nodata": -9999},
    "float nodata": {"dtype": "float32", "nodata": -3.4028235e38},
    "float nan": {"dtype": "float32", "nodata": float("nan")},
    "mask": {"mask": True},
    "16-bit mask": {"dtype": "uint16", "mask": True},
    "white is zero": {"count": 1, "photometric": "MINISWHITE"},
    "16-bit white is zero": {"count": 1, "dtype": "uint16", "photometric": "MINISWHITE"},
    "white is zero and nodata": {"count": 1, "photometric": "MINISWHITE", "nodata": 0},
    "overviews": {"overviews": True, "tiled": True, "blockxsize": 16, "blockysize": 16},
    "mask and overviews": {"overviews": True, "mask": True},
    "separate bands": {"interleave": "band", "dtype": "uint16"},
    "mask sidecar": {"mask": True},
    "16-bit mask sidecar": {"dtype": "uint16", "mask": True},
    "nodata sidecar": {"nodata": 7, "driver": "PNG"},
    "16-bit nodata sidecar": {"dtype": "uint16", "nodata": 9, "driver": "PNG"},
    "4 bits": {"count": 1, "nbits": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_map_see_the_same(tmp_path, kind):
    """The same file as a tile for training and as a raster; and what it must be, where a hole is cut into it."""
    from kdjax.deploy.landuse_map.raster import Raster

    options = dict(KINDS[kind])
    count, dtype, interp = options.pop("count", 3), options.pop("dtype", "uint8"), options.pop("colorinterp", None)
    masked, overviews, full = options.pop("mask", False), options.pop("overviews", False), options.pop("full", None)
    top = 10000 if dtype != "uint8" else 255
    shown = (np.random.default_rng(3).random((48, 64, count)) * (top - 20) + 10).astype(dtype)
    shown[shown.astype(np.int64) % 1000 == 0] += 1  # 25.5 of 255 and the like, which rounding in float32 decides
    hole = np.zeros((48, 64), bool)
    hole[:20, 30:] = True
    stored = shown.copy()
    if "nbits" in options:
        stored //= 2 ** (8 - options["nbits"])
        shown = stored * (255 // (2 ** options["nbits"] - 1))
    if C.alpha in (interp or ()):
        full = full or (1 if dtype == "float32" else np.iinfo(dtype).max)
        stored[..., interp.index(C.alpha)] = np.where(hole, 0, full)
    elif "nodata" in options:
        stored[hole] = options["nodata"]
    elif not masked:
        hole[:] = False
    path = write(tmp_path / ("scene.png" if "driver" in options else "scene.tif"), stored, **options)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="sidecar" not in kind), rasterio.open(path, "r+") as file:
        if interp:
            file.colorinterp = interp
        if masked:
            file.write_mask(~hole)
        if overviews:
            file.build_overviews([2, 4])
    assert path.with_name(path.name + ".msk").exists() == ("mask sidecar" in kind)
    assert path.with_name(path.name + ".aux.xml").exists() or "nodata sidecar" not in kind
    if kind == "4 bits":
        expected = np.repeat(shown, 3, -1)
    elif count == 1:
        highest = np.iinfo(dtype).max
        expected = np.repeat(highest - shown.astype(np.int64), 3, -1)
        value_range = (highest - 10000, highest)
    else:
        expected = shown[..., [interp.index(color) for color in (C.red, C.green, C.blue)] if interp else [0, 1, 2]]
        value_range = (0, 10000)
    if dtype != "uint8":
        low, high = value_range
        expected = np.rint((expected.astype(np.float64) - low) / (high - low) * 255)
    expected = np.where(hole[..., None], 0, expected)
    meaning = Meaning(value_range if dtype != "uint8" else (), ("8-bit",) if dtype == "uint8" else ("16-bit", "float"))
    decoded = decode.decode(read_file(path))
    np.testing.assert_array_equal(meaning.to_stored(decoded), expected)
    raster = Raster(path, None, None, meaning)
    seen, valid = raster.read(0, 0, 48, 64)
    raster.close()
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(valid, ~hole)


@pytest.mark.parametrize("bits, low, high", [(4, 0, 15), (4, 2, 12), (2, 0, 3)])
def test_a_value_range_counts_in_the_numbers_of_the_file(tmp_path, bits, low, high):
    """Numbers of fewer bits than a byte are spread over bytes only without one, as in training."""
    from kdjax.deploy.landuse_map.raster import Raster

    stored = scene(32, 40)[..., :1] // 2 ** (8 - bits)
    path = write(tmp_path / "scene.tif", stored, nbits=bits)
    raster = Raster(path, None, (low, high), Meaning())
    seen, _ = raster.read(0, 0, 32, 40)
    raster.close()
    expected = np.rint(np.clip((stored.astype(float) - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(seen, np.repeat(expected, 3, -1))
    with pytest.raises(InputError, match=f"0,255, .* numbers of {bits} bits, from 0 to {2**bits - 1}: leave it out"):
        Raster(path, None, (0, 255), Meaning())


def test_alpha_beside_named_bands_makes_holes_in_training_and_map(tmp_path):
    from kdjax.deploy.landuse_map.raster import Raster

    stored = (np.random.default_rng(3).random((48, 64, 5)) * 200 + 10).astype(np.uint8)
    stored[..., 4] = 255
    stored[:20, 30:, 4] = 0
    path = write(tmp_path / "scene.tif", stored)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (C.red, C.green, C.blue, C.undefined, C.alpha)
        file.descriptions = ("red", "green", "blue", "nir", "alpha")
    wanted = Bands(("nir", "red"))
    decoded = decode.decode(read_file(path), wanted)
    raster = Raster(path, None, None, Meaning((), ("8-bit",), bands=wanted))
    seen, valid = raster.read(0, 0, 48, 64)
    raster.close()
    np.testing.assert_array_equal(decoded.valid, stored[..., 4] > 0)
    np.testing.assert_array_equal(valid, stored[..., 4] > 0)
    np.testing.assert_array_equal(seen, np.where(valid[..., None], stored[..., [3, 0]], 0))
    whole = Bands(("nir", "alpha"))  # alpha is asked for: it is a band like others
    raster = Raster(path, None, None, Meaning((), ("8-bit",), bands=whole))
    assert decode.decode(read_file(path), whole).valid is None and raster.read(0, 0, 48, 64)[1].all()
    raster.close()


def test_near_infrared_that_is_named_makes_no_holes_in_training_and_map(tmp_path):
    from kdjax.deploy.landuse_map.raster import Raster

    stored = np.full((32, 40, 4), 90, np.uint8)
    stored[..., 3] = np.where(np.arange(40) < 30, 0, 255)
    path = write(tmp_path / "scene.tif", stored)
    wanted = Bands(("green", "red"), (("red", "green", "blue", "nir"),))
    raster = Raster(path, None, None, Meaning((), ("8-bit",), bands=wanted))
    assert decode.decode(read_file(path), wanted).valid is None and raster.read(0, 0, 32, 40)[1].all()
    raster.close()


def test_near_infrared_that_is_called_alpha_makes_no_holes(artifact, tmp_path, capsys):
    pixels = np.concatenate([scene(32, 40), scene(32, 40, 1)[..., :1]], -1)
    pixels[:16, :16, 3] = 0  # water
    raster = write(tmp_path / "scene.tif", pixels)
    with rasterio.open(raster) as file:
        assert file.colorinterp[3] == C.alpha
    run(artifact, raster, tmp_path / "map.tif", "--bands=1,2,3")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), by_pixels(pixels[..., :3], SIDE, 4).argmax(-1))
    write(tmp_path / "other.tif", pixels[..., [2, 1, 0, 3]])
    with rasterio.open(tmp_path / "other.tif", "r+") as file:
        file.colorinterp = (C.blue, C.green, C.red, C.undefined)
    capsys.readouterr()
    run(artifact, tmp_path / "other.tif", tmp_path / "other_map.tif")
    assert "bands: 3, 2, 1" in capsys.readouterr().err
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "other_map.tif").read_bytes()


@pytest.mark.parametrize("other", [None, 9])
def test_an_alpha_band_hides_pixels_or_is_said_not_to(artifact, tmp_path, capsys, other):
    """In 16 bits, 0 or 255; where it is 9 as well, it is no mask."""
    pixels = np.zeros((32, 32, 4), np.uint16)
    pixels[:, :16] = 0, 2500, 0, 255
    pixels[:, 16:, 0] = 9
    if other:
        pixels[:, 20:24, 3] = other
    raster = write(tmp_path / "scene.tif", pixels, photometric="rgb", alpha="yes")
    run(artifact, raster, tmp_path / "map.tif", "--value-range=0,3000", "--bands=1,2,3", "--stride=8")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.read(1)[:, :2] == 1).all() and (file.read(1)[:, 2:] == (0 if other else 255)).all()
    assert ("alpha: band 4 is no mask" in capsys.readouterr().err) == bool(other)


def test_names_are_harmless_in_the_files(tmp_path, capsys):
    names = ("=field", "for\x1b[31mest\uffff", "河流 <&>")
    artifact = write_model(tmp_path / "student.onnx", SIDE, names)
    run(artifact, write(tmp_path / "scene.tif", scene(32, 40)), tmp_path / "map.tif")
    assert "\x1b" not in capsys.readouterr().out
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").find("PAMRasterBand")
    assert [one.text for one in table.find("CategoryNames")] == ["=field", "for\\x1b[31mest\\uffff", "河流 <&>"]


def test_a_raster_of_another_kind_below_the_first_look_is_refused(tmp_path, capfd):
    """What the windows of the first look miss is seen while the map is made; nothing is written then."""
    pixels = np.zeros((1200, 1200, 3), np.uint16)
    pixels[150:180, 150:180] = 30000
    raster = write(tmp_path / "scene.tif", pixels, nodata=0)
    artifact = write_model(tmp_path / "deep.onnx", SIDE, CLASSES, value_range="[0, 10000]", numbers='["16-bit"]')
    assert "100 % of its values" in refused(capfd, command.main, artifact, raster, tmp_path / "map.tif", "--tile=64")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep.onnx", "scene.tif"]


def test_the_values_that_are_kept_do_not_grow_with_the_raster(tmp_path, monkeypatch):
    """And they are still values of all of it: the first half is as in training, the second is not."""
    from kdjax.deploy.landuse_map import raster as module

    monkeypatch.setattr(module, "_MAX_SAMPLES", 500)
    pixels = np.full((64, 9000, 3), 5000, np.uint16)
    pixels[10:50, 5000:] = 30000
    pixels[:, 4000:4900] = 9000
    path = write(tmp_path / "scene.tif", pixels)
    raster = module.Raster(path, None, None, Meaning((0, 10000), ("16-bit",)))
    for start, stop in ((0, 4000), (5000, 9000)):
        for column in range(start, stop, 40):
            raster.read(16, column, 32, 32)
            assert sum(map(len, raster._samples)) <= 500
    values = np.concatenate(raster._samples)
    raster.close()
    assert 0.4 < (values == 30000).mean() < 0.6
    bad = module.Raster(path, None, None, Meaning((0, 10000), ("16-bit",)))
    for column in range(5000, 9000, 8):
        bad.read(16, column, 32, 32)
    with pytest.raises(InputError, match="of its values"):
        bad.check_samples()
    bad.close()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32"])
def test_bytes_in_a_wider_type_are_refused_and_not_mapped_as_black(tmp_path, dtype):
    from kdjax.deploy.landuse_map.raster import Raster

    meaning, pixels = Meaning((0.0, 10_000.0), ("16-bit",)), scene(40, 40)
    path = write(tmp_path / "scene.tif", pixels.astype(dtype))
    with pytest.raises(InputError, match=rf"values are {dtype}, .* up to 249, where 0..10000 .*--value-range=0,255"):
        Raster(path, None, None, meaning)
    for given in ((0, 255), (0, 10_000)):
        Raster(path, None, given, meaning).close()
    Raster(path, None, None, Meaning((0.0, 3000.0), ("16-bit",))).close()
    Raster(write(tmp_path / "black.tif", 0 * pixels.astype(dtype)), None, None, meaning).close()
    lit = pixels.astype(dtype)
    lit[:8] = 3000
    Raster(write(tmp_path / "lit.tif", lit), None, None, meaning).close()


def test_a_raster_that_is_not_there_is_named(artifact, tmp_path, capfd):
    said = refused(capfd, command.main, artifact, tmp_path / "scene.tif", tmp_path / "map.tif")
    assert f"raster: no file {tmp_path / 'scene.tif'}: give a GeoTIFF, another raster that GDAL reads, or a URL" in said


@pytest.mark.parametrize("colors", ["MINISBLACK", "RGB"])
@pytest.mark.parametrize("names", [("B2", "B3", "B4"), ("blue", "green", "red")])
def test_colors_that_lie_otherwise_than_they_are_described_are_asked_for(artifact, tmp_path, capfd, names, colors):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 2] = 200  # red, by its description
    raster = write(tmp_path / "scene.tif", pixels, photometric=colors)
    with rasterio.open(raster, "r+") as file:
        file.descriptions = names
    said = refused(capfd, command.main, artifact, raster, tmp_path / "map.tif")
    assert "bands 3,2,1 by their descriptions" in said and "--bands=3,2,1, or" in said
    for bands, value in (("3,2,1", 0), ("1,2,3", 2)):
        run(artifact, raster, tmp_path / "map.tif", f"--bands={bands}")
        with rasterio.open(tmp_path / "map.tif") as file:
            assert (file.read(1) == value).all()
    for right in (names[::-1], ("B3", "B2", "B1"), ("", "", "")):  # or it is not said which are all three
        with rasterio.open(raster, "r+") as file:
            file.descriptions = right
        run(artifact, raster, tmp_path / "map.tif")
