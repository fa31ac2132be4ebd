"""Bands of files that describe some of them, other ones, or hold a mask beside them."""

import io

import numpy as np
import pytest
import tifffile

from kdjax import data
from kdjax.data import decode
from kdjax.data.bands import Bands
from kdjax.data.pixels import DecodeError
from kdjax.errors import InputError

NAMES = ("red", "green", "blue", "nir")
ORDERED = Bands(NAMES, (NAMES,))
VALUES = np.stack([np.full((8, 8), 10 * k, np.uint8) for k in range(1, 6)], -1)


def tiff(array, descriptions=(), roles=()):
    item = '<Item name="{}" sample="{}" role="{}">{}</Item>'  # as GDAL writes its tag
    items = [item.format("DESCRIPTION", k, "description", text) for k, text in enumerate(descriptions) if text]
    items += [item.format("COLORINTERP", k, "colorinterp", role) for k, role in enumerate(roles) if role]
    tag = [(42112, "s", 0, f"<GDALMetadata>{''.join(items)}</GDALMetadata>", True)] if items else []
    content = io.BytesIO()
    tifffile.imwrite(content, array, photometric="minisblack", planarconfig="contig", extratags=tag)
    return content.getvalue()


def taken(content, bands=ORDERED):
    return decode.decode(content, bands).pixels[0, 0].tolist()


@pytest.mark.parametrize(
    ("descriptions", "said"),
    [
        (("blue", "green", "red", ""), "its band 1 is called blue, where red is expected: describe all of its bands"),
        (("nir", "red", "green", ""), "its band 1 is called nir, where red is expected"),
        (("", "", "", "red"), "its band 4 is called red, where nir is expected"),
    ],
)
def test_a_description_that_contradicts_the_order_is_refused(descriptions, said):
    with pytest.raises(DecodeError, match=said):
        decode.decode(tiff(VALUES[..., :4], descriptions), ORDERED)


def test_a_description_contradicts_the_order_under_another_name_too():
    names = ("B04", "B03", "B02", "B08")
    with pytest.raises(DecodeError, match="its band 1 is called blue, where B04 is expected"):
        decode.decode(tiff(VALUES[..., :4], ("blue", "green", "red", "")), Bands(names, (names,)))
    with pytest.raises(DecodeError, match="its band 3 is called B04, where blue is expected"):
        decode.decode(tiff(VALUES[..., :4], ("", "", "B04", "")), ORDERED)
    assert taken(tiff(VALUES[..., :4], ("red", "", "B2", "")), Bands(names, (names,))) == [10, 20, 30, 40]


@pytest.mark.parametrize("descriptions", [("red", "", "", "nir"), ("", "", "blue", ""), ("Band 1", "", "blue", "grid")])
def test_descriptions_that_agree_with_the_order_may_be_few(descriptions):
    assert taken(tiff(VALUES[..., :4], descriptions)) == [10, 20, 30, 40]


def masked(count):
    """Bands, and behind them a mask that shows all but a quarter."""
    mask = np.full((8, 8, 1), 255, np.uint8)
    mask[:2] = 0
    return np.concatenate([VALUES[..., :count], mask], -1)


def test_a_mask_is_no_near_infrared():
    content = tiff(masked(3), roles=("red", "green", "blue", "alpha"))
    with pytest.raises(DecodeError, match="its band 4 is a mask by its values, but nir is expected there"):
        decode.decode(content, ORDERED)
    opaque = np.concatenate([VALUES[..., :3], np.full((8, 8, 1), 255, np.uint8)], -1)
    with pytest.raises(DecodeError, match="its band 4 is a mask"):
        decode.decode(tiff(opaque, roles=("red", "green", "blue", "alpha")), ORDERED)


def test_what_gdal_calls_alpha_may_be_near_infrared():
    """So it calls the fourth band of any 8-bit file."""
    roles = ("red", "green", "blue", "alpha")
    assert taken(tiff(VALUES[..., :4], roles=roles)) == [10, 20, 30, 40]
    water = np.concatenate([VALUES[..., :3], np.zeros((8, 8, 1), np.uint8)], -1)
    assert taken(tiff(water, roles=roles)) == [10, 20, 30, 0]
    assert taken(tiff(masked(3), ("red", "green", "blue", "nir"), roles)) == [10, 20, 30, 0]


@pytest.mark.parametrize("descriptions", [(), (*NAMES, "")])
def test_a_mask_behind_the_bands_is_one(descriptions):
    """As gdalwarp -dstalpha writes it."""
    content = tiff(masked(4), descriptions, ("", "", "", "", "alpha"))
    decoded = decode.decode(content, ORDERED)
    assert decoded.pixels.shape == (8, 8, 4) and decoded.pixels[-1, 0].tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(decoded.valid, np.arange(8)[:, None] * np.ones(8) >= 2)


@pytest.mark.parametrize("descriptions", [(), NAMES])
def test_near_infrared_that_is_named_is_no_mask_of_the_other_bands(descriptions):
    """It is 0 over water, and GDAL calls the fourth band of any 8-bit file alpha."""
    water = np.concatenate([VALUES[..., :3], np.arange(64, dtype=np.uint8).reshape(8, 8, 1) // 48 * 200], -1)
    content = tiff(water, descriptions, ("red", "green", "blue", "alpha"))
    decoded = decode.decode(content, Bands(NAMES[:3], () if descriptions else (NAMES,)))
    assert decoded.valid is None and decoded.pixels[0, 0].tolist()[:3] == [10, 20, 30]
    content = tiff(water, roles=("red", "green", "blue", "alpha"))
    rgb = decode.decode(content, Bands(NAMES[:3], (NAMES[:3],)))
    np.testing.assert_array_equal(rgb.valid, water[..., 3] > 0)  # nothing names it but GDAL


def test_colors_that_are_called_otherwise_are_told():
    for descriptions in (("B8", "B4", "B3"), ("nir", "red", "green")):
        decoded = decode.decode(tiff(VALUES[..., :3], descriptions))
        assert decoded.other_names == ", ".join(descriptions)
        assert f"bands called {decoded.other_names} taken as red, green and blue" in decoded.facts
    for descriptions in (("red", "green", "blue"), ("B4", "", "B2"), ("Band 1", "Band 2", "Band 3"), ()):
        assert decode.decode(tiff(VALUES[..., :3], descriptions)).other_names == ""


def test_a_color_at_the_place_of_another_is_refused():
    with pytest.raises(DecodeError, match="it has blue where red is taken from, green where green is taken from"):
        decode.decode(tiff(VALUES[..., :3], ("blue", "green", "")))


def test_tiles_of_some_bands_are_refused_with_those_that_they_have(tmp_path):
    """As tiles of Sentinel-2's four bands of 10 m; where only some tiles lack a band, the tiles are to be mended."""

    def load(**fields):
        options = {"source": "folder", "path": str(tmp_path), "image_size": 32, "storage_size": 32}
        return data.load(None, data_seed=0, cache_dir=None, log=lambda line: None, **options, **fields)

    names, rng = ("B02", "B03", "B04", "B08"), np.random.default_rng(0)
    for place in (tmp_path / "field", tmp_path / "forest"):
        place.mkdir()
        for index in range(10):
            (place / f"{index}.tif").write_bytes(tiff(rng.integers(1, 9000, (32, 32, 4), np.uint16), names))
    said = r"lack the same bands \(no band B01, .*\): set dataset.bands=\"\('B02','B03','B04','B08'\)\", the bands that"
    for on_error in ("refuse", "skip"):
        with pytest.raises(InputError, match=said):
            load(sensor="sentinel2_l2a", on_error=on_error)
    with pytest.raises(
        InputError, match=r"no band B11 .*: set dataset.bands=\"\('B04',\)\", the bands that they have$"
    ):
        load(bands=("B04", "B11"))
    with pytest.raises(InputError, match="20 unreadable images: .* Repair or remove them"):
        load(bands=("B11", "B12"))
    assert load(sensor="sentinel2_l2a", bands=("B04", "B08")).meaning.names == ("B04", "B08")
    more = tiff(rng.integers(1, 9000, (32, 32, 5), np.uint16), (*names, "B11"))
    (tmp_path / "field" / "more.tif").write_bytes(more)
    with pytest.raises(InputError, match="20 unreadable images: .* Repair or remove them"):
        load(bands=("B04", "B11"))
