"""Decoding: formats, orientation, depth, value ranges; against arrays written by hand."""

import io
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from kdjax.data import decode, pixels
from kdjax.data.bands import Bands


def random_image(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def tiff(array, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"planarconfig": "separate"},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"rowsperstrip": 3},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_layouts_give_the_same_pixels(options, dtype):
    image = random_image(19, 23, 3).astype(dtype)
    stored = np.moveaxis(image, -1, 0) if options.get("planarconfig") == "separate" else image
    result = decode.decode(tiff(stored, photometric="rgb", **options))
    assert result.pixels.dtype == dtype and result.deep == (dtype != np.uint8)
    np.testing.assert_array_equal(result.pixels, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_gray_tiff_becomes_rgb(dtype):
    image = random_image(9, 11).astype(dtype)
    result = decode.decode(tiff(image))
    np.testing.assert_array_equal(result.pixels, np.repeat(image[..., None], 3, -1))
    assert result.facts == ("gray made RGB",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_fourth_sample_is_dropped(dtype):
    image = random_image(9, 11, 4, dtype=dtype)
    for extra in ("unassalpha", "unspecified"):
        result = decode.decode(tiff(image, photometric="rgb", extrasamples=[extra]))
        np.testing.assert_array_equal(result.pixels, image[..., :3])
        assert result.facts == ("alpha or fourth channel dropped",)


def test_16_bit_png_keeps_its_depth():
    for channels in (None, 3, 4):
        image = random_image(*((9, 11) if channels is None else (9, 11, channels)), dtype=np.uint16)
        result = decode.decode(imagecodecs.png_encode(image))
        expected = np.repeat(image[..., None], 3, -1) if channels is None else image[..., :3]
        np.testing.assert_array_equal(result.pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes_as_pillow_converts_them(mode):
    rgb = Image.fromarray(random_image(9, 11, 3))
    image = rgb.quantize(32) if mode == "P" else rgb.convert(mode)
    np.testing.assert_array_equal(decode.decode(saved(image, "PNG")).pixels, np.asarray(image.convert("RGB")))


def test_palette_with_transparency_keeps_its_colors():
    image = Image.fromarray(random_image(9, 11, 3)).quantize(32)
    expected = np.asarray(image.convert("RGB"))
    data = saved(image, "PNG", transparency=bytes(range(32)))
    with warnings.catch_warnings():  # `ingest` sets the same filter for all its threads
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decode.decode(data).pixels, expected)


def turned(stored, orientation):
    """(H, W, ...) as each orientation shows it, written out by hand."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg_and_tiff(orientation):
    """Two colored corners tell all eight positions apart."""
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = (255, 0, 0)
    stored[:8, 16:] = (0, 255, 0)
    expected = turned(stored, orientation)
    exif = Image.Exif()
    exif[274] = orientation
    jpeg = decode.decode(saved(Image.fromarray(stored), "JPEG", exif=exif, quality=100, subsampling=0)).pixels
    assert jpeg.shape == expected.shape and np.abs(jpeg.astype(int) - expected).mean() < 3
    for dtype in (np.uint8, np.uint16):
        data = tiff(stored.astype(dtype), photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        np.testing.assert_array_equal(decode.decode(data).pixels, expected)


def with_chunk(png, kind, content):
    """A PNG file with a chunk behind its header."""
    chunk = len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "1"])
def test_orientation_of_special_tiffs(mode, orientation):
    """Pillow has turned them already; the mask beside them it has not."""
    image = Image.fromarray(random_image(6, 9, 3)).convert("RGB" if mode == "LAB" else mode)
    stored = np.asarray(image)
    photometric = {"CMYK": "separated", "YCbCr": "ycbcr", "LAB": "cielab", "1": "minisblack"}[mode]
    mask = np.arange(54).reshape(6, 9) % 7 > 2
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        options = {"photometric": photometric} | ({"subsampling": (1, 1)} if mode == "YCbCr" else {})
        writer.write(stored, extratags=[(274, "H", 1, orientation, True)], **options)
        writer.write(mask, photometric="mask", subfiletype=4)
    result = decode.decode(out.getvalue())
    expected = Image.frombytes("LAB", image.size, stored.tobytes()) if mode == "LAB" else image
    np.testing.assert_array_equal(result.pixels, turned(np.asarray(expected.convert("RGB")), orientation))
    np.testing.assert_array_equal(result.valid, turned(mask, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_png(orientation):
    image, exif = random_image(6, 9, 3, dtype=np.uint16), Image.Exif()
    exif[274] = orientation
    data = with_chunk(imagecodecs.png_encode(image), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    np.testing.assert_array_equal(decode.decode(data).pixels, turned(image, orientation))


def test_special_tiffs_take_pillows_colors():
    rgb = Image.fromarray(random_image(16, 16, 3))
    for image in (rgb.convert("CMYK"), rgb.quantize(16), rgb.convert("1"), rgb.convert("YCbCr")):
        np.testing.assert_array_equal(decode.decode(saved(image, "TIFF")).pixels, np.asarray(image.convert("RGB")))


def test_overviews_of_a_tiff_are_passed_over():
    image = random_image(64, 64, 3)
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(image, photometric="rgb", tile=(16, 16), subifds=0)
        writer.write(image[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1)
    np.testing.assert_array_equal(decode.decode(out.getvalue()).pixels, image)


def test_bad_files_give_reasons():
    rgb = Image.fromarray(random_image(64, 64, 3))
    cases = [
        (b"", "empty"),
        (b"words", "not a JPEG"),
        (b"GIF89a" + bytes(50), "not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a JPEG"),
        (tiff(np.zeros((8, 8), np.complex64)), "complex64"),
        (tiff(np.full((8, 8), np.nan, np.float32)), "no finite"),
    ]
    deep = imagecodecs.png_encode(random_image(64, 64, 3, dtype=np.uint16))
    for data in (
        saved(rgb, "JPEG"),
        saved(rgb, "PNG"),
        saved(rgb, "BMP"),
        saved(rgb, "TIFF"),
        deep,
        tiff(random_image(64, 64, 3), photometric="rgb", compression="lzw"),
    ):
        cases += [(data[: len(data) * 3 // 4], "."), (data[:40], ".")]
    for data, reason in cases:
        with pytest.raises(decode.DecodeError, match=reason) as error:
            decode.decode(data)
        assert str(error.value) and "\n" not in str(error.value)


def test_declared_size_is_checked_before_the_pixels_are_made(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    rgb = random_image(64, 64, 3)
    for data in (
        saved(Image.fromarray(rgb), "PNG"),
        saved(Image.fromarray(rgb), "JPEG"),
        tiff(rgb, photometric="rgb"),
        imagecodecs.png_encode(rgb.astype(np.uint16)),
    ):
        with pytest.raises(decode.DecodeError, match="64 x 64 pixels is more than"):
            decode.decode(data)


def test_the_size_of_a_tile_is_checked_before_it_is_decoded_whole(monkeypatch):
    """The image has 32 x 32 pixels, and a tile of it, or of its mask, 128 x 128."""
    monkeypatch.setattr(decode, "MAX_PIXELS", 64 * 64)
    image, mask = np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), bool)
    large, small = {"tile": (128, 128), "compression": "zlib"}, {"tile": (32, 32), "compression": "zlib"}
    for of_image, of_mask, refused in ((small, small, False), (large, small, True), (small, large, True)):
        out = io.BytesIO()
        with tifffile.TiffWriter(out) as file:
            file.write(image, photometric="rgb", **of_image)
            file.write(mask, subfiletype=4, photometric="mask", **of_mask)
        for bands in (None, Bands(("red", "blue"))):
            if refused:
                with pytest.raises(decode.DecodeError, match="128 x 128 pixels is more than"):
                    decode.decode(out.getvalue(), bands)
            else:
                assert decode.decode(out.getvalue(), bands).pixels.shape[:2] == (32, 32)


def test_value_range_choices():
    rng = np.random.default_rng(0)

    def chosen(*images):
        return pixels.choose_range(
            [pixels.sample(decode.Decoded(image, (), pixels.is_data(image, None))) for image in images]
        )

    unit = rng.random((50, 50, 3)).astype(np.float32)
    assert chosen(unit * 0.6, unit)[:2] == (0, 1)
    full = rng.integers(0, 65536, (50, 50, 3)).astype(np.uint16)
    assert chosen(full)[:2] == (0, 65535)
    reflectance = rng.normal(2000, 300, (100, 100, 3)).astype(np.uint16)
    reflectance[0, 0] = 60000  # one bright roof
    low, high, how = chosen(reflectance)
    assert 1000 < low < 1400 and 2600 < high < 3200 and "percentiles" in how
    exact = np.percentile(reflectance, [0.5, 99.5])
    np.testing.assert_allclose([low, high], exact, rtol=0.03)
    with_gaps = np.where(rng.random((50, 50, 3)) < 0.1, np.nan, unit * 100)
    low, high, _ = chosen(with_gaps)
    assert -1 < low < 3 and 97 < high < 101
    flat = np.full((5, 5, 3), 700, np.uint16)
    low, high, _ = chosen(flat)
    assert high > low
    with pytest.raises(decode.DecodeError, match="mixed"):
        chosen(unit, full)


def test_to_uint8_and_resize():
    values = np.array([[[100.0, 160.0, 200.0], [99.0, 1e9, np.nan]]])
    np.testing.assert_array_equal(pixels.to_levels(values, (100, 200), np.uint8), [[[0, 153, 255], [0, 255, 0]]])
    np.testing.assert_array_equal(
        pixels.to_levels(np.array([[[65535, 0, 257]]], np.uint16), (0, 65535), np.uint8), [[[255, 0, 1]]]
    )
    # A fine checkerboard must become gray, not a moire of black and white.
    board = np.repeat((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, -1)
    small = decode.resize(board, 16)
    assert small.shape == (16, 16, 3) and np.abs(small.astype(int) - 127).max() < 16


def in_order(image, size, rows_first):
    """Two of Pillow's resizes along one axis each."""
    across, down = (size, image.height), (image.width, size)
    first = image.resize(down if rows_first else across, Image.Resampling.LANCZOS)
    return first.resize((size, size), Image.Resampling.LANCZOS)


# Pillow from 13 on takes the rows first where their number falls by more than twice what that of the columns does.
TALL = [(5, 25, 8), (11, 37, 8), (40, 70, 20), (40, 61, 20), (12, 88, 31)]
OTHERS = [(40, 60, 20), (30, 30, 20), (9, 9, 31), (50, 31, 20), (56, 3, 50), (20, 20, 20)]


@pytest.mark.parametrize("own_order", [None, False, True], ids=["this_pillow", "columns_first", "rows_first"])
@pytest.mark.parametrize(("width", "height", "size"), TALL + OTHERS)
def test_every_version_of_pillow_gives_the_same_pixels(monkeypatch, own_order, width, height, size):
    tall = (width, height, size) in TALL
    image = random_image(height, width, 3)
    image[: height // 2] = 255 * (image[: height // 2] > 128)  # edges, beyond which the filter swings
    expected = np.asarray(in_order(Image.fromarray(image), size, tall))
    if width != size and height != size:
        assert (np.asarray(in_order(Image.fromarray(image), size, not tall)) != expected).any()
    floats = [np.asarray(in_order(Image.fromarray(image[..., k].astype(np.float32)), size, tall)) for k in range(2)]
    pillows = Image.Image.resize

    def resize(self, shape, resample):
        """Of a Pillow that has one order for all images."""
        if own_order is not None and self.width != shape[0] and self.height != shape[1]:
            self = pillows(self, (self.width, shape[1]) if own_order else (shape[0], self.height), resample)
        return pillows(self, shape, resample)

    monkeypatch.setattr(Image.Image, "resize", resize)
    np.testing.assert_array_equal(decode.resize(image, size), expected)
    two_bands = np.clip(np.rint(np.stack(floats, axis=-1)), 0, 255)
    np.testing.assert_array_equal(decode.resize(image[..., :2], size), two_bands)


def bmp_of_32_bits(alpha):
    """4 x 4 pixels, written by hand with masks of four channels."""
    pixels = np.full((4, 4, 4), (30, 20, 10, 255), np.uint8)  # blue, green, red, alpha
    pixels[..., 3] = alpha
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 124, 4, 4, 1, 32, 3, 64, 2835, 2835, 0, 0) + masks + bytes(68)
    return b"BM" + struct.pack("<IHHI", 14 + 124 + 64, 0, 0, 14 + 124) + head + pixels.tobytes()


def test_a_bmp_file_whose_alpha_is_0_is_data_everywhere():
    result = decode.decode(bmp_of_32_bits(0))
    assert result.valid is None and (result.pixels == (10, 20, 30)).all()
    half = decode.decode(bmp_of_32_bits(np.repeat([0, 255], 2)))
    assert half.valid.sum() == 8


def test_digest_tells_size_and_pixels_apart():
    image = random_image(4, 6, 3)
    assert decode.digest(image) == decode.digest(image.copy())
    assert decode.digest(image) != decode.digest(image.reshape(6, 4, 3))
    other = image.copy()
    other[3, 5, 2] ^= 1
    assert decode.digest(image) != decode.digest(other)
