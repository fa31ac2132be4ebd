"""What the pixels of a file mean: bands, nodata, masks, palettes, kinds of numbers; against arrays written by hand."""

import io
import pathlib
import threading
import tracemalloc
import zipfile

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers.tiffs import GDAL_METADATA, GDAL_NODATA, text_tag, tiff
from helpers.tiles import OPTIONS, SIDE
from PIL import Image

from kdjax.data import decode, load, pixels
from kdjax.data.meaning import Meaning

SHARED = pathlib.Path(__file__).parents[2] / "../shared/data"
EUROSAT_MS, EUROSAT_RGB = SHARED / "eurosat_ms_100.zip", SHARED / "eurosat_rgb.zip"


def values(*shape, dtype=np.uint8, seed=0):
    """No value is 0 or the highest."""
    return np.random.default_rng(seed).integers(1, np.iinfo(dtype).max, shape, dtype)


def roles(*names):
    items = "".join(
        f'<Item name="COLORINTERP" sample="{k}" role="colorinterp">{name}</Item>' for k, name in enumerate(names)
    )
    return text_tag(GDAL_METADATA, f"<GDALMetadata>{items}</GDALMetadata>")


def png(image, **options):
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def seen(data, like=None):
    """What the file becomes, and where it is data."""
    decoded = decode.decode(data)
    valid = np.ones(decoded.pixels.shape[:2], bool) if decoded.valid is None else decoded.valid
    return (decoded.pixels if like is None else like.to_stored(decoded)), valid


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "names, order",
    [
        (("Blue", "Green", "Red"), [2, 1, 0]),
        (("Red", "Green", "Blue"), [0, 1, 2]),
        (("Blue", "Green", "Red", "NIR"), [2, 1, 0]),
        (("NIR", "Red", "Green", "Blue"), [1, 2, 3]),
        (("Red", "Green", "Blue", "Undefined"), [0, 1, 2]),
        (("Undefined", "Blue", "Green", "Red", "NIR", "Undefined"), [3, 2, 1]),
    ],
)
def test_bands_are_taken_by_their_color_interpretation(dtype, names, order):
    array = values(9, 11, len(names), dtype=dtype)
    extra = {"extrasamples": ["unspecified"] * (len(names) - 1)}
    found, valid = seen(tiff(array, roles(*names), photometric="minisblack", **extra))
    np.testing.assert_array_equal(found, array[..., order])
    assert valid.all()


def test_four_bands_without_colors_are_a_question():
    with pytest.raises(decode.DecodeError, match="4 channels, and nothing says which are red, green and blue"):
        decode.decode(tiff(values(9, 11, 4), photometric="minisblack", extrasamples=["unspecified"] * 3))


@pytest.mark.parametrize(
    "dtype, nodata",
    [(np.uint8, "255"), (np.uint16, "65535"), (np.int16, "-9999"), (np.int16, "-9999.0"), (np.uint16, "0"),
     (np.float32, "-3.4028235e+38"), (np.float32, "-3.40282346638529e+38"), (np.float32, "nan"), (np.float64, "-9999")],
)  # fmt: skip
@pytest.mark.parametrize("bands", [1, 3])
def test_nodata_is_no_data(dtype, nodata, bands):
    array = (np.random.default_rng(0).random((20, 20, bands)) * 200 + 20).astype(dtype)
    hole = np.zeros((20, 20), bool)
    hole[:7, 3:] = True
    array[hole] = float(nodata)
    if bands == 3:
        array[15, 15, 0] = float(nodata) if nodata != "nan" else 50  # one band alone: data
    data = tiff(array.squeeze(), text_tag(GDAL_NODATA, nodata), photometric="rgb" if bands == 3 else "minisblack")
    found, valid = seen(data)
    np.testing.assert_array_equal(valid, ~hole)
    sampled = pixels.sample(decode.decode(data))
    assert sampled.min() >= min(20, float(array[15, 15, 0])) or bands == 3
    assert bands == 3 or (sampled.min() >= 20 and sampled.max() <= 220)
    meaning = Meaning() if dtype == np.uint8 else Meaning((20.0, 220.0))
    found, _ = seen(data, meaning)
    assert (found[hole] == 0).all() and (found[~hole].max(-1) > 0).mean() > 0.9


def test_a_nodata_value_that_no_pixel_can_have_changes_nothing():
    array = values(9, 11, 3)
    for text in ("-9999", "300", "1.5", "words", ""):
        found, valid = seen(tiff(array, text_tag(GDAL_NODATA, text or " "), photometric="rgb"))
        np.testing.assert_array_equal(found, array)
        assert valid.all()


def test_infinite_and_missing_floats_are_no_data():
    array = np.random.default_rng(0).random((9, 11, 3)).astype(np.float32)
    array[0, 0, 1], array[1, 1, 2], array[2, 2, 0] = np.nan, np.inf, -np.inf
    _, valid = seen(tiff(array, photometric="rgb"))
    np.testing.assert_array_equal(np.argwhere(~valid), [[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize("kind", ["png8", "png16", "palette", "tiff8", "tiff16", "gray alpha"])
def test_transparent_pixels_are_no_data(kind):
    dtype = np.uint16 if "16" in kind else np.uint8
    array, full = values(20, 20, 4, dtype=dtype), np.iinfo(dtype).max
    array[..., 3] = full
    array[:6, 5:, 3] = 0
    array[19, :3, 3] = full // 2  # the edge of a mask
    if kind == "png8":
        data = png(Image.fromarray(array))
    elif kind == "gray alpha":
        data = png(Image.fromarray(array[..., 2:]))
    elif kind == "png16":
        data = imagecodecs.png_encode(array)
    elif kind == "palette":
        index = (array[..., 3] == 0) * np.uint8(3)
        image = Image.fromarray(index).convert("P")
        image.putpalette([10, 20, 30] * 4)
        data = png(image, transparency=3)
    else:
        data = tiff(array, photometric="rgb", extrasamples=["unassalpha"])
    found, valid = seen(data, Meaning((0.0, 65535.0), ("8-bit", "16-bit")))
    np.testing.assert_array_equal(valid, array[..., 3] > 0)
    assert (found[~valid] == 0).all() and (found[valid].max(-1) > 0).all()
    if kind in ("png8", "tiff8"):
        np.testing.assert_array_equal(found[valid], array[..., :3][valid])


def test_near_infrared_that_is_called_alpha_masks_nothing():
    """GDAL calls the fourth band of any 8-bit file alpha."""
    array = values(20, 20, 4)
    array[:3, :3, 3] = 0  # water
    found, valid = seen(tiff(array, photometric="rgb", extrasamples=["unassalpha"]))
    assert valid.all()
    np.testing.assert_array_equal(found, array[..., :3])


@pytest.mark.parametrize(
    "dtype, full, is_mask",
    [
        (np.uint16, 255, True),
        (np.int16, 255, True),
        (np.uint32, 255, True),
        (np.uint16, 4095, True),
        (np.int16, 32767, True),
        (np.uint16, 1, False),  # deep water is as dark in near infrared
        (np.uint8, 1, False),
        (np.uint16, 300, False),
    ],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_a_mask_of_fewer_bits_than_its_type_makes_holes(dtype, full, is_mask, bands):
    array = values(20, 20, bands + 1, dtype=np.uint8).astype(dtype)
    hole = np.zeros((20, 20), bool)
    hole[:6, 5:] = True
    array[..., -1] = np.where(hole, 0, full)
    data = tiff(array, photometric="rgb" if bands == 3 else "minisblack", extrasamples=["unassalpha"])
    _, valid = seen(data)
    np.testing.assert_array_equal(valid, ~hole if is_mask else np.ones_like(hole))
    array[15, 15, -1] = full // 2 + 1  # then the type's highest value counts
    if is_mask and full < np.iinfo(dtype).max:
        assert seen(tiff(array, photometric="rgb" if bands == 3 else "minisblack", extrasamples=["unassalpha"]))[
            1
        ].all()


def test_an_image_without_data_is_refused():
    for data in (
        png(Image.new("RGBA", (9, 9))),
        tiff(np.full((9, 9), 7, np.uint8), text_tag(GDAL_NODATA, "7")),
        tiff(np.full((9, 9, 3), -9999, np.int16), text_tag(GDAL_NODATA, "-9999"), photometric="rgb"),
    ):
        with pytest.raises(decode.DecodeError, match="no pixel holds data"):
            decode.decode(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_white_is_zero_at_every_depth(dtype):
    array = values(9, 11, dtype=dtype)
    found, _ = seen(tiff(array, photometric="miniswhite"))
    np.testing.assert_array_equal(found[..., 0], np.iinfo(dtype).max - array)
    with pytest.raises(decode.DecodeError, match="white is 0"):
        decode.decode(tiff(array.astype(np.float32), photometric="miniswhite"))


def test_white_is_zero_in_a_bilevel_image():
    mask = np.random.default_rng(0).random((16, 16)) > 0.5
    found, _ = seen(tiff(mask, photometric="miniswhite"))
    np.testing.assert_array_equal(found[..., 0], np.where(mask, 0, 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reduced_copies_and_masks_of_an_image_are_passed_over(dtype):
    array = values(64, 64, 3, dtype=dtype)
    mask = np.ones((64, 64), bool)
    mask[:20, :30] = False
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(array[::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(array, photometric="rgb")
        writer.write(mask, subfiletype=4, photometric=4)
        writer.write(array[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(mask[::2, ::2], subfiletype=5, photometric=4)
    found, valid = seen(out.getvalue())
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(valid, mask)


def test_masks_turn_with_the_image():
    array = values(20, 30, 3)
    array[:5, :7] = 9
    for orientation, turned in ((3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)):
        tags = (text_tag(GDAL_NODATA, "9"), (274, "H", 1, orientation, True))
        found, valid = seen(tiff(array, *tags, photometric="rgb"))
        np.testing.assert_array_equal(found, turned(array))
        np.testing.assert_array_equal(valid, turned((array != 9).any(-1)))


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes(bits):
    index = values(20, 20, dtype=np.uint8).astype(f"uint{bits}")
    index[:4] = 0
    colormap = np.random.default_rng(1).integers(0, 2**16, (3, 2**bits), np.uint16)
    data = tiff(index, text_tag(GDAL_NODATA, "0"), photometric="palette", colormap=colormap)
    found, valid = seen(data)
    np.testing.assert_array_equal(found, np.moveaxis(colormap >> 8, 0, -1)[index])
    np.testing.assert_array_equal(valid, index != 0)


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"scale": (10, 10), "model": 1, "code": 32631}, 10),
        ({"scale": (10, 10), "model": 1, "code": 32631, "unit": 9001}, 10),
        ({"scale": (10, 10), "model": 1, "code": 32631, "unit": 9999}, None),
        ({"scale": (10, 10), "model": 1, "unit": 9001}, None),  # of no system that is named
        ({"scale": (2, 2), "model": 1, "code": 2222, "unit": 9002}, 2 * 0.3048),
        ({"scale": (2, 2), "model": 1, "code": 2263, "unit": 9003}, 2 * 1200 / 3937),
        ({"scale": (2, 2), "model": 1, "code": 2263}, None),  # beside a vertical system no unit is named
        ({"scale": (1e-4, 1e-4), "model": 2}, 1e-4 * 111_320 * np.sqrt(np.cos(np.radians(60)))),
        ({"scale": (1e-4, 1e-4), "model": 2, "datum": 4326}, 1e-4 * 111_320 * np.sqrt(np.cos(np.radians(60)))),
        ({"scale": (1e-4, 1e-4), "model": 2, "datum": 4807}, None),  # which counts 400 grads a turn
        # Web Mercator at 60 degrees, where it stretches by 1 / cos(60) = 2.
        ({"scale": (3, 3), "model": 1, "north": 6_378_137 * np.arccosh(2), "code": 3857}, 1.5),
        ({"scale": (3, 3), "model": 1, "north": -6_378_137 * np.arccosh(2), "code": 3857}, 1.5),
        ({"scale": (3, 3), "model": 1, "north": 6_378_137 * np.arccosh(2), "code": 32631}, 3),
        ({}, None),
        ({"scale": (0, 0), "model": 1}, None),
    ],
)
def test_the_ground_size_of_a_pixel(tags, expected):
    extra = []
    if tags:
        known = {1024: tags["model"], 2048: tags.get("datum"), 3072: tags.get("code"), 3076: tags.get("unit")}
        keys = [(key, 0, 1, value) for key, value in known.items() if value is not None]
        directory = [1, 1, 0, len(keys), *(number for key in keys for number in key)]
        extra = [
            (33550, "d", 3, (*tags["scale"], 0), True), (33922, "d", 6, (0, 0, 0, 20, tags.get("north", 60), 0), True),
            (34735, "H", len(directory), directory, True),
        ]  # fmt: skip
    found = decode.decode(tiff(values(9, 11, 3), *extra, photometric="rgb")).pixel_size_m
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-9))


@pytest.mark.skipif(not EUROSAT_MS.exists(), reason="../shared/data/eurosat_ms_100.zip is not there")
def test_thirteen_bands_that_say_their_colors_look_like_the_published_rgb_tiles(tmp_path):
    """EuroSAT: the RGB tile of the same name is the same place, stretched by its authors."""
    names = ("coastal", "Blue", "Green", "Red", *["Undefined"] * 9)
    with zipfile.ZipFile(EUROSAT_MS) as archive:
        for name in archive.namelist():
            if name.endswith(".tif"):
                place = tmp_path / "tiles" / name.split("/")[-2] / name.split("/")[-1]
                place.parent.mkdir(parents=True, exist_ok=True)
                bands = tifffile.imread(io.BytesIO(archive.read(name)))
                options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [0] * 12}
                place.write_bytes(tiff(bands, roles(*names), **options))
    data = load(path=str(tmp_path / "tiles"), **OPTIONS)
    assert len(data.classes) == 10 and data.meaning.numbers == ("16-bit",) and data.meaning.tile_px == 64
    with zipfile.ZipFile(EUROSAT_RGB) as archive:
        files = [archive.read(f"eurosat_rgb/{name}".replace(".tif", ".jpg")) for name in data.train.names]
    shown = np.stack([np.asarray(Image.open(io.BytesIO(file)).resize((SIDE, SIDE))) for file in files])
    alike = np.corrcoef(np.asarray(data.train.images).reshape(-1, 3).T, shown.reshape(-1, 3).T)[:3, 3:]
    assert (alike.argmax(1) == (0, 1, 2)).all() and alike.diagonal().min() > 0.9, alike


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_memory_of_deep_images_is_bounded(monkeypatch, dtype):
    """As many threads as images; the images' own pixels, bytes of them and little else."""
    side = 1500
    monkeypatch.setattr(decode, "MAX_PIXELS", side * side)
    array = (np.random.default_rng(0).random((side, side, 4)) * 60000).astype(dtype)
    data = tiff(array, photometric="rgb", extrasamples=["unspecified"])
    size = array.nbytes
    del array
    meaning, results = Meaning((0.0, 60000.0)), []

    def one():
        with decode.open_image(data) as decoded:
            results.append(decode.resize(meaning.to_stored(decoded), SIDE))

    tracemalloc.start()
    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(results) == 4 and peak < 1.5 * size + side * side * 8 + 40e6
