"""GDAL's sidecar files: values of no data and masks of samples as the file has them; against arrays written by hand."""

import io
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
from helpers.tiffs import GDAL_METADATA, GDAL_NODATA, text_tag, tiff
from PIL import Image

from kdjax.data import decode
from kdjax.data.bands import Bands


def values(*shape):
    return np.random.default_rng(0).integers(1, 255, shape, np.uint8)


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def valid_of(data):
    decoded = decode.decode(data)
    return np.ones(decoded.pixels.shape[:2], bool) if decoded.valid is None else decoded.valid


def gray_png(samples, bits):
    """A gray PNG file of less than eight bits, written by hand."""

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    every = (samples[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(samples), -1)
    lines = b"".join(b"\0" + line.tobytes() for line in np.packbits(every.astype(np.uint8), axis=1))
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


STORED = np.array([[0, 1, 2, 3, 1]] * 3, np.uint8)
COLORMAP = np.zeros((3, 256), np.uint16)
COLORMAP[:, 0], COLORMAP[:, 3] = 65535, 257  # 0 is white, 1 and 2 are black, 3 is nearly black


def palette_png():
    image = Image.fromarray(STORED).convert("P")
    image.putpalette((COLORMAP.T >> 8).astype(np.uint8).tobytes())
    return png(image)


def sidecars(data, nodata=None, mask=None):
    xml = None if nodata is None else metadata(NoDataValue=[nodata])
    return decode.WithSidecars(data, None if mask is None else tiff(mask), xml)


def metadata(**told):
    """What GDAL writes of bands, a text for each, '' = none."""
    texts = [[f"<{tag}>{text}</{tag}>" * (text != "") for text in each] for tag, each in told.items()]
    bands = enumerate(zip(*texts, strict=True), 1)
    items = [f'<PAMRasterBand band="{k}">\n  {"".join(band)}\n</PAMRasterBand>' for k, band in bands]
    return f"<PAMDataset>{''.join(items)}</PAMDataset>".encode()


@pytest.mark.parametrize("nodata", [0, 1, 3, 255])
@pytest.mark.parametrize(
    "data",
    [
        palette_png(),
        tiff(STORED, photometric="palette", colormap=COLORMAP),
        tiff(STORED, photometric="miniswhite"),
        tiff(STORED.astype(np.uint16), photometric="miniswhite"),
        tiff(np.repeat(STORED[..., None], 3, -1), photometric="rgb"),
        gray_png(STORED, 2),
        gray_png(STORED, 4),
        imagecodecs.png_encode(STORED.astype(np.uint16)),
        tiff(STORED, photometric="minisblack", bitspersample=4),
    ],
    ids=["png palette", "tiff palette", "white 0", "deep white 0", "rgb", "2 bits", "4 bits", "png16", "tiff 4 bits"],
)
def test_the_nodata_value_of_a_sidecar_file_is_one_that_is_stored(data, nodata):
    """GDAL, which writes it, reads numbers of colors, white as 0, and fewer than eight bits as they are."""
    valid = valid_of(sidecars(data, nodata))
    np.testing.assert_array_equal(valid, STORED != nodata)


def test_the_nodata_value_of_one_bit():
    image = STORED % 2
    for data in (gray_png(image, 1), tiff(image.astype(bool)), tiff(image.astype(bool), photometric="miniswhite")):
        for nodata in (0, 1):
            np.testing.assert_array_equal(valid_of(sidecars(data, nodata)), image != nodata)
    valid = valid_of(tiff(image.astype(bool), text_tag(GDAL_NODATA, "1")))
    np.testing.assert_array_equal(valid, image != 1)


def test_nodata_of_bands_in_which_white_is_0():
    for data in (tiff(STORED, text_tag(GDAL_NODATA, "3"), photometric="miniswhite"),
                 sidecars(tiff(STORED, photometric="miniswhite"), 3)):  # fmt: skip
        decoded = decode.decode(data, Bands(("pan",), (("pan",),)))
        np.testing.assert_array_equal(decoded.pixels[..., 0], 255 - STORED)
        np.testing.assert_array_equal(decoded.valid, STORED != 3)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "CMYK"])
def test_sidecar_files_turn_with_the_image(kind, orientation):
    """GDAL does not turn, so its mask lies as the file does."""
    mask = np.arange(54, dtype=np.uint8).reshape(6, 9) % 7 // 3
    exif, out = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    image = Image.fromarray(values(6, 9, 3))
    image, kind = (image.convert("CMYK"), "TIFF") if kind == "CMYK" else (image, kind)
    image.save(out, kind, exif=exif)
    valid = valid_of(sidecars(out.getvalue(), mask=mask))
    np.testing.assert_array_equal(valid, np.rot90(mask > 0, {3: 2, 6: -1}[orientation]))


@pytest.mark.parametrize("shape", [(3000, 3000), (4, 3000, 1000)])
def test_a_mask_of_another_size_is_not_decoded(shape):
    data = sidecars(png(Image.fromarray(values(8, 8, 3))))
    data.mask = tiff(np.zeros(shape, np.uint8), compression="zlib", photometric="minisblack")
    tracemalloc.start()
    with pytest.raises(decode.DecodeError, match="its mask, the sidecar file .msk, is of another size"):
        decode.decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def test_a_mask_of_many_samples_counts_as_many_pixels(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    data = sidecars(png(Image.fromarray(values(8, 8, 3))))
    data.mask = tiff(np.ones((8, 8, 60), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(decode.DecodeError, match="its mask, .* cannot be read: .*pixels is more than"):
        decode.decode(data)


SWAPPED = metadata(Description=["blue", "green", "red"])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_bands_are_read_by_their_descriptions_in_a_sidecar_file(kind):
    out, array = io.BytesIO(), values(6, 9, 3)
    Image.fromarray(array).save(out, kind)
    data = decode.WithSidecars(out.getvalue(), None, SWAPPED)
    with pytest.raises(decode.DecodeError, match="red, green and blue are its bands 3,2,1 by their descriptions"):
        decode.decode(data)
    for orders in ((), (("red", "green", "blue"),)):
        found = decode.decode(data, Bands(("red", "green", "blue"), orders))
        np.testing.assert_array_equal(found.pixels, array[..., ::-1])
    false = decode.decode(decode.WithSidecars(data, None, metadata(Description=["B8", "red &amp; ü", ""])))
    assert false.other_names == ("B8, red & ü, unnamed" if kind == "TIFF" else "")  # of two, one may be alpha
    counted = decode.WithSidecars(data, None, metadata(Description=["Band 1", "Band 2", "Band 3"]))
    np.testing.assert_array_equal(decode.decode(counted, Bands(("green", "red"))).pixels, array[..., [1, 0]])


def test_color_interpretation_and_descriptions_of_a_sidecar_file_count_more_than_the_files_own():
    array = values(6, 9, 3)
    item = '<Item name="DESCRIPTION" sample="{}" role="description">{}</Item>'
    own = "".join(item.format(k, name) for k, name in enumerate(("red", "green", "blue")))
    data = tiff(array, text_tag(GDAL_METADATA, f"<GDALMetadata>{own}</GDALMetadata>"), photometric="rgb")
    roles = ["Blue", "Green", "Red"]
    with pytest.raises(decode.DecodeError, match="are its bands 1,2,3 by their descriptions, and 3,2,1 by their color"):
        decode.decode(decode.WithSidecars(data, None, metadata(ColorInterp=roles)))
    both = decode.WithSidecars(data, None, metadata(Description=["blue", "green", "red"], ColorInterp=roles))
    np.testing.assert_array_equal(decode.decode(both).pixels, array[..., ::-1])


def test_every_band_has_its_own_value_of_no_data():
    array = np.repeat(STORED[..., None], 3, -1)
    array[0, 1], array[0, 2] = (3, 1, 3), (1, 0, 3)
    for data in (png(Image.fromarray(array)), tiff(array, photometric="rgb")):
        beside = decode.WithSidecars(data, None, metadata(NoDataValue=[1, 0, 3]))
        np.testing.assert_array_equal(valid_of(beside), (array != [1, 0, 3]).any(-1))
        none = decode.WithSidecars(data, None, metadata(NoDataValue=[1, -1, 3]))  # bytes have no such value
        assert valid_of(none).all()
    some = decode.decode(beside, Bands(("blue", "red")))
    np.testing.assert_array_equal(some.valid, (array[..., [2, 0]] != [3, 1]).any(-1))
