"""The kind of numbers that training images hold is kept, and images of another kind are refused."""

import pathlib

import numpy as np
import pytest
import tifffile
from helpers.tiffs import GDAL_NODATA, text_tag, tiff
from helpers.tiles import OPTIONS, SIDE, image_of, write_classes

from kdjax.data import decode, load
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import DecodeError
from kdjax.errors import InputError

SHARED = pathlib.Path(__file__).parents[2] / "../shared/data"
EUROSAT_MS, EUROSAT_RGB = SHARED / "eurosat_ms_100.zip", SHARED / "eurosat_rgb.zip"


def kinds(root, make, names=("field", "lake"), count=12, **options):
    rng = np.random.default_rng(len(root.name))
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            unit = np.clip(rng.normal(0.1 + 0.2 * k, 0.03, (40, 40, 3)), 0.005, 0.995)
            tifffile.imwrite(root / name / f"{i}.tif", make(unit), photometric="rgb", **options)
    return root


MAKE = {
    "8-bit": lambda unit: (unit * 255).astype(np.uint8),
    "16-bit": lambda unit: (unit * 10000).astype(np.uint16),
    "float 0..1": lambda unit: unit.astype(np.float32),
    "float": lambda unit: (unit * 10000).astype(np.float32),
}


@pytest.mark.parametrize("kind", MAKE)
def test_the_kind_of_numbers_is_kept_and_read_back(tmp_path, kind):
    meaning = load(path=str(kinds(tmp_path / "tiles", MAKE[kind])), **OPTIONS).meaning
    assert meaning.numbers == (kind,) and meaning.tile_px == 40 and meaning.ground_size_m is None
    assert (meaning.value_range == ()) == (kind == "8-bit")
    assert Meaning.from_metadata(meaning.metadata()) == meaning


@pytest.mark.parametrize("other", MAKE)
@pytest.mark.parametrize("kind", MAKE)
def test_tiles_without_labels_of_another_kind_are_refused(tmp_path, kind, other):
    options = OPTIONS | {
        "path": str(kinds(tmp_path / "tiles", MAKE[kind])),
        "unlabeled_dir": str(kinds(tmp_path / "more", MAKE[other])),
    }
    if kind == other or {kind, other} == {"16-bit", "float"}:  # the same values in other types
        data = load(**options)
        assert abs(data.train.images[data.train.labels < 0].mean() - np.mean(data.test.images)) < 20
    else:
        with pytest.raises(InputError, match="dataset.unlabeled_dir: 24 unreadable images: unlabeled:field/0.tif"):
            load(**options)


def test_images_of_which_most_values_clip_are_refused(tmp_path):
    root = kinds(tmp_path / "tiles", MAKE["16-bit"])
    tifffile.imwrite(root / "lake" / "0.tif", np.full((40, 40, 3), 40, np.uint16), photometric="rgb")
    with pytest.raises(
        InputError, match=r"1 unreadable image: lake/0.tif \(100 % of its values, 40..40, .*value_range"
    ):
        load(path=str(root), **OPTIONS, value_range=(1000, 5000))
    with pytest.raises(InputError, match=r"24 unreadable images: field/0.tif \(floats"):
        load(path=str(kinds(tmp_path / "unit", MAKE["float 0..1"])), **OPTIONS, value_range=(0, 10000))
    with pytest.raises(InputError, match=r"24 unreadable images: field/0.tif \(uint16 pixels, where values 0..1 are"):
        load(path=str(root), **OPTIONS, value_range=(0, 1))


def test_the_darkest_tiles_of_a_set_are_not_refused(tmp_path):
    """Where water is a tenth of all tiles, its darkest ones lie below the half percent that the range leaves out."""
    rng = np.random.default_rng(0)
    for name, mean in (("land", 2500), ("water", 300)):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i in range(300 if name == "land" else 30):
            tile = rng.normal(mean - (i if name == "water" else 0), 3 if name == "water" else 400, (8, 8, 3))
            tifffile.imwrite(tmp_path / "tiles" / name / f"{i}.tif", tile.astype(np.uint16), photometric="rgb")
    data = load(path=str(tmp_path / "tiles"), **OPTIONS)
    assert len(data.train) + len(data.validation) + len(data.test) == 330 and 270 < data.value_range[0] < 300


def test_a_tile_that_the_chosen_range_left_out_is_clipped_and_told(tmp_path):
    """One snowy scene among many: to refuse it as unreadable would ask for the data set without its bright scenes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i in range(150):
            level = 9000 if (name, i) == ("a", 0) else 500
            tile = rng.normal(level, 100, (8, 8, 3)).astype(np.uint16)
            tifffile.imwrite(tmp_path / "tiles" / name / f"{i}.tif", tile, photometric="rgb")
    data = load(path=str(tmp_path / "tiles"), **OPTIONS)
    assert data.value_range[1] < 1000 and (image_of(data, "a/0.tif") == 255).all()
    assert "1 images: most values lie outside of that range" in data.notes
    decoded = decode.decode((tmp_path / "tiles" / "a" / "0.tif").read_bytes())
    with pytest.raises(DecodeError, match="lie outside of"):
        data.meaning.to_stored(decoded)
    assert (data.meaning.to_stored(decoded, outside=True) == 255).all()  # as the export reads it again
    with pytest.raises(InputError, match=r"1 unreadable image: a/0.tif"):  # a range that was given is meant
        load(path=str(tmp_path / "tiles"), **OPTIONS, value_range=(0, 1000))


def test_a_tile_without_label_may_be_clipped_by_a_range_that_was_found(tmp_path):
    """As one with a label may; most of them show that they are of another kind."""
    rng = np.random.default_rng(0)
    for name, level in (("tiles/a", 500), ("tiles/b", 500), ("more", 500), ("bright", 9000)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(4):
            tile = rng.normal(level, 100, (8, 8, 3)).astype(np.uint16)
            tifffile.imwrite(tmp_path / name / f"{i}.tif", tile, photometric="rgb")
    (tmp_path / "more" / "snow.tif").write_bytes((tmp_path / "bright" / "0.tif").read_bytes())
    options = OPTIONS | {"path": str(tmp_path / "tiles"), "cache_dir": tmp_path / "cache"}
    data = load(**options, unlabeled_dir=str(tmp_path / "more"))
    assert "unlabeled tiles: 1 images: most values lie outside of that range" in data.notes
    assert (image_of(data, "unlabeled:snow.tif") == 255).all()
    with pytest.raises(InputError, match=r"1 unreadable image: unlabeled:snow.tif"):
        load(**options, unlabeled_dir=str(tmp_path / "more"), value_range=data.value_range)
    with pytest.raises(InputError, match=r"4 unreadable images: unlabeled:0.tif .* lie outside .*value_range"):
        load(**options, unlabeled_dir=str(tmp_path / "bright"))


def test_deep_tiles_that_clip_to_one_image_are_not_identical(tmp_path):
    """Dark water below the range, of which one tile is there twice."""
    rng = np.random.default_rng(0)
    for name in ("land", "sea"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i in range(6):
            tile = rng.integers(*((1500, 5000) if name == "land" else (100, 900)), (8, 8, 3)).astype(np.uint16)
            tifffile.imwrite(tmp_path / "tiles" / name / f"{i}.tif", tile, photometric="rgb")
    (tmp_path / "tiles" / "sea" / "twin.tif").write_bytes((tmp_path / "tiles" / "sea" / "5.tif").read_bytes())
    data = load(path=str(tmp_path / "tiles"), **OPTIONS, value_range=(1000.0, 11000.0))
    sides = [set(split.names) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, sides)) == 13 and all(("sea/5.tif" in side) == ("sea/twin.tif" in side) for side in sides)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("uint16", {"extratags": [(42113, "s", 0, "0", True)]}), ("float32", {}), ("float64", {}), ("int16", {})],
)
def test_copies_of_a_deep_tile_are_one_image_however_they_are_stored(tmp_path, dtype, options):
    """A tile at the edge of a scene, once as it came and once with the tag of no data or from a raster calculator."""
    rng = np.random.default_rng(0)
    for name in ("land", "sea"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i in range(6):
            tile = rng.integers(1500, 5000, (8, 8, 3)).astype(np.uint16)
            tile[:3, :5] = 0
            tifffile.imwrite(tmp_path / "tiles" / name / f"{i}.tif", tile, photometric="rgb")
            copy = tmp_path / "tiles" / name / f"copy_{i}.tif"
            tifffile.imwrite(copy, tile.astype(dtype), photometric="rgb", **options)
    data = load(path=str(tmp_path / "tiles"), **OPTIONS, value_range=(1000.0, 11000.0))
    side_of = {
        name: side for side, split in enumerate((data.train, data.validation, data.test)) for name in split.names
    }
    assert len(side_of) == 24
    for name in ("land", "sea"):
        assert all(side_of[f"{name}/{i}.tif"] == side_of[f"{name}/copy_{i}.tif"] for i in range(6))


def test_the_digest_of_a_deep_image_is_of_its_values():
    values, valid = np.array([[[7, 0]], [[70000, 3]]]), np.array([[True], [False]])
    same = {decode.digest(values.astype(dtype)) for dtype in ("uint32", "int32", "float32", "float64")}
    assert len(same) == 1 and decode.digest(values * -0.0) == decode.digest(values * 0.0)
    assert decode.digest(values, valid) == decode.digest(values * valid[..., None])
    others = [values + 1, values + 2**-30, values.reshape(1, 2, 2), values[..., :1], np.full(values.shape, 1e300)]
    assert len(same.union(map(decode.digest, others))) == 6


def test_nodata_does_not_stretch_the_range(tmp_path):
    """A quarter of the tiles lies at the edge of a swath."""
    plain = load(path=str(kinds(tmp_path / "a/tiles", MAKE["16-bit"])), **OPTIONS)
    root = kinds(tmp_path / "b/tiles", MAKE["16-bit"])
    for k in range(0, 12, 4):
        file = root / "lake" / f"{k}.tif"
        array = tifffile.imread(file)
        array[:20] = 65535
        file.write_bytes(tiff(array, text_tag(GDAL_NODATA, "65535"), photometric="rgb"))
    cut = load(path=str(root), **OPTIONS)
    assert cut.value_range == pytest.approx(plain.value_range, rel=0.03)
    assert (image_of(cut, "lake/4.tif")[: SIDE // 2 - 3] == 0).all()
    np.testing.assert_allclose(
        image_of(cut, "lake/4.tif")[20:].mean(), image_of(plain, "lake/4.tif")[20:].mean(), rtol=0.02
    )


def test_median_sizes_of_the_tiles(tmp_path):
    scale = [(33550, "d", 3, (2.5, 2.5, 0), True), (33922, "d", 6, (0, 0, 0, 5e5, 4e6, 0), True),
             (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32631), True)]  # fmt: skip
    meaning = load(path=str(kinds(tmp_path / "tiles", MAKE["8-bit"], extratags=scale)), **OPTIONS).meaning
    assert (meaning.tile_px, meaning.pixel_size_m, meaning.ground_size_m) == (40, 2.5, 100)
    assert load(path=str(write_classes(tmp_path / "png")), **OPTIONS).meaning.tile_px == pytest.approx(24, abs=1)


def test_a_value_range_that_no_image_is_of_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for folder, dtype in (("bytes", np.uint8), ("wider", np.uint16)):
        for label in "ab":
            (tmp_path / folder / label).mkdir(parents=True)
            for k in range(10):
                pixels = rng.integers(0, 255, (8, 8, 3)).astype(dtype)
                tifffile.imwrite(tmp_path / folder / label / f"{k}.tif", pixels, photometric="rgb")
    options = {**OPTIONS, "value_range": (0, 10_000)}
    with pytest.raises(InputError, match=r"value_range is \(0, 10000\), but all images are 8-bit, .* leave it out"):
        load(path=str(tmp_path / "bytes"), **options)
    with pytest.raises(InputError, match=r"of all 16-bit and float images no value is above 255.* \(0.0, 255.0\)"):
        load(path=str(tmp_path / "wider"), **options)
    assert load(path=str(tmp_path / "wider"), **{**options, "value_range": (0, 255)}).value_range == (0, 255)
    # One of them that is of the range shows that the others may be dark; they are counted.
    tifffile.imwrite(tmp_path / "wider" / "a" / "0.tif", np.full((8, 8, 3), 4000, np.uint16), photometric="rgb")
    notes = load(path=str(tmp_path / "wider"), **options).notes
    assert "19 images: no value is above 255, as of bytes in a wider type" in notes
