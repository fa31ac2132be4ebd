"""Images of more bands than red, green and blue: which band is which, and how their values are stored."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from kdjax import data
from kdjax.data import band_statistics, bands, decode
from kdjax.data.bands import SENSORS, Bands
from kdjax.data.dataset import Split, fingerprint
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import DecodeError
from kdjax.errors import InputError

IN_PLACE, LAST = SENSORS["sentinel2_l1c"].orders
L1C = Bands(IN_PLACE, SENSORS["sentinel2_l1c"].orders)


def reflectance(order, seed=0, side=12):
    """Values of each band by its name, the same whatever the order; cirrus is dark."""
    values = {
        name: np.random.default_rng([seed, IN_PLACE.index(name)]).integers(200, 4000, (side, side)) for name in order
    }
    values["B10"] = values["B10"] % 30
    return np.stack([values[name] for name in order], axis=-1).astype(np.uint16)


def tiff(array, descriptions=(), **options):
    file = io.BytesIO()
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{k}" role="description">{text}</Item>' for k, text in enumerate(descriptions)
    )
    extratags = [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)] if descriptions else []
    options = {"photometric": "minisblack", "planarconfig": "contig", **options}
    tifffile.imwrite(file, array, extratags=extratags, **options)
    return file.getvalue()


def test_names_are_one_however_they_are_written():
    for text in ("B4", "b04", " B04 ", "B4, central wavelength 665 nm"):
        assert bands.canonical(text) == bands.canonical("B04")
    assert bands.canonical("B8A") != bands.canonical("B08")
    assert bands.colors(("B08", "B04", "B03", "B02")) == (1, 2, 3)
    assert bands.colors(("nir", "Red", "green")) == (1, 2, None)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_descriptions_decide_whatever_the_order(planar):
    array = reflectance(LAST)
    wanted = Bands(("B08", "B04", "B10"))
    stored = np.moveaxis(array, -1, 0) if planar == "separate" else array
    decoded = decode.decode(tiff(stored, LAST, planarconfig=planar), wanted)
    np.testing.assert_array_equal(decoded.pixels, array[..., [LAST.index(name) for name in wanted.names]])


@pytest.mark.parametrize("order", [IN_PLACE, LAST])
def test_cirrus_tells_the_two_orders_apart(order):
    decoded = decode.decode(tiff(reflectance(order)), L1C)
    np.testing.assert_array_equal(decoded.pixels, reflectance(IN_PLACE))
    assert " ".join(order) in decoded.facts[0]


def test_what_cannot_be_known_is_refused():
    flat = np.full((8, 8, 13), 500, np.uint16)
    with pytest.raises(DecodeError, match=r"13 bands without names, in the order .* dataset.file_bands"):
        decode.decode(tiff(flat), L1C)
    with pytest.raises(DecodeError, match="5 bands, and 13 are expected where it does not describe them all"):
        decode.decode(tiff(flat[..., :5]), L1C)
    with pytest.raises(DecodeError, match="no band B11 among B02, B03"):
        decode.decode(tiff(flat[..., :2], ("B02", "B03")), Bands(("B02", "B11")))
    with pytest.raises(DecodeError, match="2 bands are called B02"):
        decode.decode(tiff(flat[..., :2], ("B02", "B2")), Bands(("B02",)))
    with pytest.raises(DecodeError, match="3 bands, and the file names none of them"):
        decode.decode(tiff(flat[..., :3]), Bands(("nir",)))


def test_a_color_picture_has_red_green_and_blue():
    file, picture = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(picture).save(file, "PNG")
    np.testing.assert_array_equal(decode.decode(file.getvalue(), Bands(("blue", "red"))).pixels, picture[..., [2, 0]])
    with pytest.raises(DecodeError, match="no band nir among red, green, blue"):
        decode.decode(file.getvalue(), Bands(("red", "nir")))


def test_false_color_that_is_stored_as_rgb_is_what_the_user_says():
    """The format calls its first band red, and it is near infrared."""
    file, picture = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(picture).save(file, "PNG")
    wanted = Bands(("red", "green"), (("nir", "red", "green"),))
    for content in (file.getvalue(), tiff(picture, photometric="rgb")):
        np.testing.assert_array_equal(decode.decode(content, wanted).pixels, picture[..., [1, 2]])


@pytest.mark.parametrize(
    ("described", "bands_said"), [(("B2", "B3", "B4"), "3,2,1"), (("green", "red", "blue"), "2,1,3")]
)
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_colors_that_are_described_at_other_places_are_refused(described, bands_said, photometric):
    with pytest.raises(
        DecodeError, match=f"are its bands {bands_said} by their descriptions, and 1,2,3 by their colors"
    ):
        decode.decode(
            tiff(np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8), described, photometric=photometric)
        )


@pytest.mark.parametrize("described", [("B4", "B3", "B2"), ("B8", "B4", "B3"), ("Band 3", "Band 2", "Band 1"), ()])
def test_colors_are_taken_by_their_place_where_no_description_contradicts_it(described):
    array = np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8)
    np.testing.assert_array_equal(decode.decode(tiff(array, described, photometric="rgb")).pixels, array)


def test_descriptions_that_contradict_the_order_are_refused():
    picture = np.full((8, 8, 3), 5, np.uint8)
    wanted = Bands(("B04", "B08"), (("B04", "B08", "B11"),))
    with pytest.raises(DecodeError, match="no band B04, B08 among vv, vh, angle"):
        decode.decode(tiff(picture, ("vv", "vh", "angle")), wanted)
    assert decode.decode(tiff(picture, ("Band 1", "Band 2", "Band 3")), wanted).pixels.shape == (8, 8, 2)


def test_bands_are_resized_as_colors_are():
    # Far from 0 and 255, where Pillow clips what bytes overshoot between its two passes.
    picture = np.random.default_rng(0).integers(90, 160, (30, 30, 3), dtype=np.uint8)
    deep = decode.resize(picture.astype(np.uint16) * 257, 20)
    assert deep.dtype == np.uint16 and deep.shape == (20, 20, 3)
    np.testing.assert_allclose(deep / 257, decode.resize(picture, 20), atol=1.5)


def test_dark_water_keeps_its_depth():
    meaning = Meaning((0.0, 10_000.0), bands=Bands(("B03", "B08")))
    with decode.open_image(
        tiff(np.array([[[100, 101], [10_000, 20_000]]], np.uint16), ("B03", "B08")), meaning.bands
    ) as one:
        stored = meaning.to_stored(one)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, [[[655, 662], [65535, 65535]]])  # v * 65535 / 10000
    assert Meaning.from_metadata(meaning.metadata()) == meaning


@pytest.fixture
def tiles(tmp_path):
    for number, name in enumerate(("field", "forest")):
        (tmp_path / name).mkdir()
        for index in range(10):
            array = reflectance(LAST, seed=100 * number + index, side=40)
            (tmp_path / name / f"{index}.tif").write_bytes(tiff(array))
    return tmp_path


def load(path, cache=None, **fields):
    options = {"source": "folder", "image_size": 32, "storage_size": 40, **fields}
    return data.load(None, data_seed=0, cache_dir=cache, log=lambda line: None, path=path and str(path), **options)


def test_a_data_set_of_bands(tiles, tmp_path, monkeypatch):
    found = load(tiles, tmp_path / "cache", sensor="sentinel2_l1c")
    again = load(tiles, tmp_path / "cache", sensor="sentinel2_l1c")
    assert found.meaning.names == IN_PLACE and found.train.images.dtype == np.uint16
    np.testing.assert_array_equal(found.train.images, again.train.images)
    for row, name in enumerate(found.train.names):
        seed = 100 * (name[:6] == "forest") + int(name.split("/")[1].split(".")[0])
        expected = np.rint(reflectance(IN_PLACE, seed, 40) * 6.5535)
        np.testing.assert_array_equal(found.train.images[row], expected)
    unit = np.asarray(found.train.images).reshape(-1, 13) / 65535
    np.testing.assert_allclose(found.statistics.mean, unit.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.statistics.std, unit.std(0), rtol=1e-12)
    monkeypatch.setattr(band_statistics, "_VALUES_AT_ONCE", 1)
    assert band_statistics.compute(found.train.images) == found.statistics  # to the bit, image by image
    half = np.where(np.arange(40)[:, None, None] < 20, 0, np.asarray(found.train.images))  # at the edge of a scene
    unit = half[:, 20:].reshape(-1, 13) / 65535
    np.testing.assert_allclose(band_statistics.compute(half).mean, unit.mean(0), rtol=1e-12)
    np.testing.assert_allclose(band_statistics.compute(half).std, unit.std(0), rtol=1e-12)
    empty = band_statistics.compute(np.zeros_like(half))
    assert set(empty.mean) == {0.0} and set(empty.std) == {1.0}
    fewer = load(tiles, tmp_path / "cache", sensor="sentinel2_l1c", bands=("B08", "B04"))
    np.testing.assert_array_equal(fewer.train.images, np.asarray(found.train.images)[..., [7, 3]])
    turned = load(tiles, tmp_path / "cache", sensor="sentinel2_l1c", bands=("B04", "B08"))
    assert len({one.fingerprint for one in (found, fewer, turned)}) == 3


WATER = dict(zip(LAST, (1250, 900, 600, 350, 300, 230, 220, 180, 120, 60, 14, 15, 150), strict=True))
"""Clear water under thin cirrus: the short-wave infrared is darker than B10."""


def water(order, side=40):
    return np.full((side, side, 13), [WATER[name] for name in order], np.uint16)


@pytest.mark.parametrize("order", [IN_PLACE, LAST])
def test_land_shows_the_order_of_the_water_beside_it(tiles, tmp_path, order):
    for index, path in enumerate(sorted(tiles.glob("*/*.tif"))):
        path.write_bytes(tiff(reflectance(order, seed=index, side=40)))
    for name in ("field/0.tif", "forest/9.tif"):
        (tiles / name).write_bytes(tiff(water(order)))
    for _ in range(2):  # decoded, and from the cache
        found = load(tiles, tmp_path / "cache", sensor="sentinel2_l1c")
        assert found.meaning.bands.order == order
        splits = [(split.images, split.names) for split in (found.train, found.validation, found.test)]
        rows = {name: np.asarray(images[row]) for images, names in splits for row, name in enumerate(names)}
        assert len(rows) == 20
        for name in ("field/0.tif", "forest/9.tif"):
            np.testing.assert_array_equal(rows[name], np.rint(water(IN_PLACE) * 6.5535))


def test_files_of_two_orders_are_refused(tiles):
    (tiles / "forest" / "3.tif").write_bytes(tiff(reflectance(IN_PLACE, side=40)))
    said = "the bands of field/0.tif are in the order .* B12 B8A, but those of forest/3.tif in .* B12: .*file_bands"
    for on_error in ("refuse", "skip"):
        with pytest.raises(InputError, match=said):
            load(tiles, sensor="sentinel2_l1c", on_error=on_error)
    assert len(load(tiles, sensor="sentinel2_l1c", file_bands=LAST).train.names) == 14


def test_an_exported_file_keeps_the_order(tiles):
    meaning = Meaning.from_metadata(load(tiles, sensor="sentinel2_l1c").meaning.metadata())
    np.testing.assert_array_equal(decode.decode(tiff(water(LAST)), meaning.bands).pixels, water(IN_PLACE))
    with pytest.raises(DecodeError, match="by its values its bands are in the order .*: describe its bands"):
        decode.decode(tiff(reflectance(IN_PLACE)), meaning.bands)
    with pytest.raises(DecodeError, match="13 bands without names"):
        decode.decode(tiff(water(LAST)), L1C)
    assert decode.decode(tiff(reflectance(IN_PLACE), IN_PLACE), meaning.bands).facts == (
        "bands taken by their descriptions",
    )


@pytest.mark.parametrize("nodata", [0, 65535])
def test_the_order_is_shown_by_pixels_of_data(nodata):
    array = reflectance(LAST)
    array[:8] = nodata
    np.testing.assert_array_equal(
        decode.decode(tiff(array), L1C).pixels, array[..., [LAST.index(name) for name in IN_PLACE]]
    )


def test_zeros_in_all_bands_of_a_sensor_are_no_data_without_a_tag(tiles):
    """Sentinel-2's products say nowhere that they are; one dark band, bytes and other bands mean what they say."""
    array = reflectance(LAST)
    array[:8], array[9, 0, 0] = 0, 0
    for wanted in (L1C, Bands(("B04", "B08"), L1C.orders)):
        np.testing.assert_array_equal(decode.decode(tiff(array), wanted).valid, np.arange(12)[:, None] >= [8] * 12)
        assert decode.decode(tiff((array // 16).astype(np.uint8), LAST), wanted).valid is None
    np.testing.assert_array_equal(decode.decode(array, L1C).valid.all(1), np.arange(12) >= 8)
    assert decode.decode(tiff(array), Bands(("x", "y"), (tuple("abcdefghijkxy"),))).valid is None
    (tiles / "field" / "edge.tif").write_bytes(tiff(0 * reflectance(LAST, side=40)))
    with pytest.raises(InputError, match=r"1 unreadable image: field/edge.tif \(no pixel holds data\)"):
        load(tiles, sensor="sentinel2_l1c")


def test_the_names_are_part_of_the_fingerprint():
    """The same pixels under other names are other data: another network would be shown them."""
    split = Split(np.zeros((1, 2, 2, 2), np.uint16), np.zeros(1, np.int32), ("a",))
    prints = {fingerprint(("x", "y"), {"train": split}, Bands(names)) for names in (("B04", "B08"), ("B08", "B04"))}
    assert len(prints) == 2


def test_an_offset_that_the_sensor_should_not_have_is_refused(tiles):
    with pytest.raises(InputError, match="at most 1000.*set it to 'sentinel2_l1c'"):
        load(tiles, sensor="sentinel2_l1c_offset")
    for path in tiles.glob("*/*.tif"):
        path.write_bytes(tiff(tifffile.imread(path) + np.uint16(1000)))
    with pytest.raises(InputError, match="no value is below 1000.*set it to 'sentinel2_l1c_offset'"):
        load(tiles, sensor="sentinel2_l1c")
    assert load(tiles, sensor="sentinel2_l1c_offset").value_range == (1000, 11_000)
    # The user knows more, as that the land is bright or the water dark.
    assert load(tiles, sensor="sentinel2_l1c", value_range=(0.0, 10_000.0)).value_range == (0, 10_000)
    assert load(tiles, sensor="sentinel2_l1c_offset", value_range=(1000.0, 11_000.0)).value_range == (1000, 11_000)


def test_bright_infrared_alone_shows_no_offset(tiles):
    for path in tiles.glob("*/*.tif"):
        path.write_bytes(tiff(tifffile.imread(path) + np.uint16(1000)))
    found = load(tiles, sensor="sentinel2_l1c", bands=("B08", "B11"))
    assert found.value_range == (0, 10_000) and np.asarray(found.train.images).min() > 6553
    with pytest.raises(InputError, match=r"below 1000 in B04, .*or, if that is right, .*value_range=\(0.0,10000.0\)"):
        load(tiles, sensor="sentinel2_l1c", bands=("B08", "B04"))


def test_bytes_of_bands_stay_bytes(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(6):
            (tmp_path / name / f"{index}.tif").write_bytes(tiff(rng.integers(0, 256, (40, 40, 4), dtype=np.uint8)))
    found = load(tmp_path, file_bands=("red", "green", "blue", "nir"), bands=("nir", "red"))
    assert found.train.images.dtype == np.uint8 and found.value_range == ()
    (tmp_path / "a" / "0.tif").write_bytes(tiff(rng.integers(0, 5000, (40, 40, 4), dtype=np.uint16)))
    with pytest.raises(InputError, match="pixels, others are of another depth"):
        load(tmp_path, file_bands=("red", "green", "blue", "nir"))
    with pytest.raises(
        InputError, match="uint8 pixels, and the value range of dataset.value_range .*: leave it out if"
    ):
        load(tmp_path, file_bands=("red", "green", "blue", "nir"), value_range=(0, 5000))


def test_tiles_without_labels_are_of_the_depth_of_the_labeled_ones(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("tiles/a", "tiles/b", "more"):
        (tmp_path / name).mkdir(parents=True)
        for index in range(4):
            (tmp_path / name / f"{index}.tif").write_bytes(tiff(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)))
    (tmp_path / "more" / "0.tif").write_bytes(tiff(rng.integers(0, 5000, (9, 9, 3), dtype=np.uint16)))
    options = {"file_bands": ("red", "green", "blue"), "unlabeled_dir": str(tmp_path / "more"), "on_error": "skip"}
    found = load(tmp_path / "tiles", **options)
    assert sum(name.startswith("unlabeled:") for name in found.train.names) == 3
    assert any("1 unreadable image skipped: unlabeled:0.tif (uint16 pixels" in note for note in found.notes)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"sensor": "landsat"}, "dataset.sensor is 'landsat': choose one of sentinel2_l1c, sentinel2_l1c_offset, "),
        ({"sensor": "sentinel2_l2a", "bands": ("B10",)}, "dataset.bands: there is no band 'B10'"),
        ({"file_bands": ("a", "A")}, "dataset.file_bands is .* repeats"),
        ({"bands": "B04"}, "dataset.bands is 'B04': give names"),
        ({"sensor": "sentinel2_l1c", "bands": ("B04,B03",)}, r"have no commas: give \('B04', 'B03'\)$"),
        ({"file_bands": ("red,green, nir",)}, r"dataset.file_bands holds .*: give \('red', 'green', 'nir'\)$"),
        ({"sensor": "sentinel2_l1c", "file_bands": ("B04",)}, "dataset.file_bands: give the bands of sentinel2_l1c"),
        ({"source": "demo", "sensor": "sentinel2_l1c"}, "dataset.source is 'demo'"),
    ],
)
def test_fields_are_checked(tmp_path, fields, said):
    with pytest.raises(InputError, match=said):
        load(None if "source" in fields else tmp_path, **fields)
