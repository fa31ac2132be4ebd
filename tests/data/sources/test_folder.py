"""Class folders and archives: layouts, kinds of images, bad input, cache."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import tifffile
from helpers.tiles import OPTIONS, SIDE, image_of, names_of, pack, picture, write_classes
from PIL import Image

from kdjax.data import load
from kdjax.errors import InputError


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("plain") / "tiles")


@pytest.fixture
def mixed(tmp_path):
    """3 x 20 images; one gray, one RGBA, one 16-bit TIFF, one CMYK JPEG, one palette PNG among them."""
    root = write_classes(tmp_path / "mixed")
    for folder, i in (("field", 0), ("field", 1), ("lake", 0), ("lake", 1), ("town", 0)):
        (root / folder / f"{folder}{i:02d}.png").unlink()
    Image.fromarray(picture(1, 20, 20)[..., 0]).save(root / "field" / "gray.png")
    rgba = np.dstack([picture(2, 20, 20), np.full((20, 20), 7, np.uint8)])
    Image.fromarray(rgba).save(root / "field" / "alpha.png")
    tifffile.imwrite(root / "lake" / "deep.tif", picture(3, 20, 20).astype(np.uint16) * 40, photometric="rgb")
    Image.fromarray(picture(4, 20, 20)).convert("CMYK").save(root / "lake" / "cmyk.jpg", quality=95)
    Image.fromarray(picture(5, 20, 20)).quantize(64).save(root / "town" / "palette.png")
    return root


def test_shapes_types_and_counts(plain):
    data = load(path=str(plain), **OPTIONS)
    assert data.classes == ("field", "lake", "town") and data.name == "tiles"
    assert (len(data.train), len(data.validation), len(data.test)) == (42, 6, 12)
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8 and split.images.shape == (len(split), SIDE, SIDE, 3)
        assert split.images[:].flags.c_contiguous and split.labels.dtype == np.int32
        assert [data.classes[label] for label in split.labels] == [name.split("/")[0] for name in split.names]
        assert len(set(np.bincount(split.labels, minlength=3))) == 1
    assert len(names_of(data)) == 60


def test_pixels_are_the_antialiased_resize(plain):
    data = load(path=str(plain), **OPTIONS)
    with Image.open(plain / "lake" / "lake03.png") as image:
        expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(image_of(data, "lake/lake03.png"), expected)


@pytest.mark.parametrize("prefix", ["", "tiles/", "some/more/folders/"])
def test_zip_is_the_same_as_the_directory_wrapped_or_not(plain, tmp_path, prefix):
    archive = pack(plain, tmp_path / "tiles.zip", prefix)
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("__MACOSX/field/._field00.png", b"junk")
        more.writestr(f"{prefix}field/.hidden.png", b"junk")
        more.writestr(f"{prefix}readme.txt", b"words")
    assert load(path=str(archive), **OPTIONS).fingerprint == load(path=str(plain), **OPTIONS).fingerprint


def test_fingerprint_follows_seed_pixels_and_size(plain, tmp_path):
    base = load(path=str(plain), **OPTIONS).fingerprint
    assert load(path=str(plain), **OPTIONS | {"data_seed": 1}).fingerprint != base
    assert load(path=str(plain), **OPTIONS | {"storage_size": 48}).fingerprint != base
    other = write_classes(tmp_path / "tiles")
    changed = picture([0, 0], 17, 31).copy()
    changed[:6, :6] ^= 128
    Image.fromarray(changed).save(other / "field" / "field00.png")
    assert load(path=str(other), **OPTIONS).fingerprint != base


def test_mixed_kinds_of_images(mixed):
    data = load(path=str(mixed), **OPTIONS)
    assert len(names_of(data)) == 60
    resized = {
        seed: np.asarray(Image.fromarray(picture(seed, 20, 20)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        for seed in (1, 2, 4, 5)
    }
    gray = image_of(data, "field/gray.png")
    assert (gray == gray[..., :1]).all()
    # Alpha is dropped, not blended: an almost transparent image keeps its colors.
    np.testing.assert_array_equal(image_of(data, "field/alpha.png"), resized[2])
    assert np.abs(image_of(data, "lake/cmyk.jpg").astype(int) - resized[4]).mean() < 12
    assert np.abs(image_of(data, "town/palette.png").astype(int) - resized[5]).mean() < 12
    text = "\n".join(data.notes)
    assert "1 16-bit or float images: values" in text and "percentile" in text
    assert "1 images: CMYK converted to RGB" in text and "gray made RGB" in text and "alpha" in text


def test_value_range_as_configured(mixed):
    data = load(path=str(mixed), **OPTIONS | {"value_range": (0, 40 * 255)})
    assert data.value_range == (0, 40 * 255)
    expected = np.asarray(Image.fromarray(picture(3, 20, 20)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(image_of(data, "lake/deep.tif"), expected)
    assert any("values 0..10200 became 0..255 (as configured)" in note for note in data.notes)


def damage(root):
    whole = io.BytesIO()
    Image.fromarray(picture(9, 64, 64)).save(whole, "JPEG")
    (root / "town" / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (root / "town" / "words.jpg").write_text("this is no image")
    return root


def test_unreadable_images_are_refused_by_name(mixed):
    with pytest.raises(InputError) as error:
        load(path=str(damage(mixed)), **OPTIONS)
    message = str(error.value)
    assert "town/cut.jpg" in message and "town/words.jpg" in message and "2 unreadable" in message
    assert "dataset.path" in message and "\n" not in message


def test_unreadable_images_are_skipped_by_name(mixed, tmp_path):
    options = OPTIONS | {"on_error": "skip", "cache_dir": tmp_path / "cache"}
    damage(mixed)
    for _ in range(2):  # decoded, then from the cache
        data = load(path=str(mixed), **options)
        assert len(names_of(data)) == 60 and not {"town/cut.jpg", "town/words.jpg"} & names_of(data)
        assert any("town/cut.jpg" in note and "town/words.jpg" in note for note in data.notes)
    with pytest.raises(InputError, match="town/words.jpg"):  # the cache does not hide what is refused
        load(path=str(mixed), **options | {"on_error": "refuse"})


def test_at_most_ten_names_are_listed(plain, tmp_path):
    root = write_classes(tmp_path / "many", count=15)
    for i in range(13):
        (root / "town" / f"bad{i:02d}.png").write_bytes(b"")
    with pytest.raises(InputError, match="13 unreadable.*bad00.*bad09.*and 3 more") as error:
        load(path=str(root), **OPTIONS)
    assert "bad10" not in str(error.value)


@pytest.mark.parametrize("channels, planar", [(2, "contig"), (5, "contig"), (13, "contig"), (13, "separate")])
def test_band_counts_that_are_no_color_image_are_named(tmp_path, channels, planar):
    root = write_classes(tmp_path / "bands", count=4)
    bands = picture(0, 20, 20, 3)[..., np.arange(channels) % 3]
    bands = bands if planar == "contig" else np.moveaxis(bands, -1, 0)
    tifffile.imwrite(root / "lake" / "bands.tif", bands, photometric="minisblack", planarconfig=planar)
    with pytest.raises(InputError, match=rf"lake/bands.tif \({channels} channels"):
        load(path=str(root), **OPTIONS)


def test_several_pages_are_named(tmp_path):
    root = write_classes(tmp_path / "pages", count=4)
    tifffile.imwrite(root / "lake" / "pages.tif", np.zeros((7, 20, 20), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"lake/pages.tif \(7 pages"):
        load(path=str(root), **OPTIONS)


def test_own_split_folders_are_kept(tmp_path):
    root = tmp_path / "own"
    for top, count in (("Train", 6), ("val", 2), ("test", 3)):
        write_classes(root / top, ("a", "b"), count)
    # The same pictures in three splits would be dropped: make them differ.
    for s, top in enumerate(("Train", "val", "test")):
        for file in sorted((root / top).rglob("*.png")):
            Image.fromarray(picture([s, len(file.name), *file.name.encode()], 20, 20)).save(file)
    data = load(path=str(root), **OPTIONS)
    assert data.classes == ("a", "b")
    assert {name.split("/")[0] for name in data.train.names} == {"Train"} and len(data.train) == 12
    assert {name.split("/")[0] for name in data.validation.names} == {"val"} and len(data.validation) == 4
    assert {name.split("/")[0] for name in data.test.names} == {"test"} and len(data.test) == 6
    for file in (root / "val").rglob("*.png"):
        file.unlink()
    data = load(path=str(root), **OPTIONS)
    assert {name.split("/")[0] for name in data.validation.names} == {"Train"} and len(data.test) == 6
    for file in [*(root / "test").rglob("*.png")]:
        file.rename(root / "test" / f"{file.parent.name}-{file.name}")
    with pytest.raises(InputError, match="the images of test lie in none.*unlabeled_dir"):
        load(path=str(root), **OPTIONS)
    shutil.rmtree(root / "test")
    write_classes(root / "extra", ("a", "b"), 2)
    with pytest.raises(InputError, match="both split folders"):
        load(path=str(root), **OPTIONS)


def test_a_class_may_be_called_train(tmp_path):
    data = load(path=str(write_classes(tmp_path / "vehicles", ("train", "bus"), 10)), **OPTIONS)
    assert data.classes == ("bus", "train") and len(data.train) == 14


def test_cache_starts_at_once_and_notices_change_and_damage(plain, tmp_path, monkeypatch):
    root = write_classes(tmp_path / "tiles")
    lines = []
    options = OPTIONS | {"cache_dir": tmp_path / "cache", "log": lines.append}
    first = load(path=str(root), **options)
    (folder,) = (tmp_path / "cache" / "decoded").iterdir()
    arrays = [f"{name}.npy" for name in ("digests", "hashes", "images", "labels", "rows")]
    assert {path.name for path in folder.iterdir()} == {*arrays, "index.json"}

    def never(data):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("kdjax.data.decode.open_image", never)
        assert load(path=str(root), **options).fingerprint == first.fingerprint
    assert not lines

    for name, change in (
        ("images.npy", lambda data: data[:-1000] + bytes(1000)),
        ("images.npy", lambda data: b""),
        ("images.npy", lambda data: data[:-5]),
        ("hashes.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("labels.npy", lambda data: data[:-4] + data[-8:-4][::-1]),
        ("rows.npy", lambda data: b""),
        ("index.json", lambda data: data[:50]),
        ("index.json", lambda data: b"[]"),
    ):
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        lines.clear()
        assert load(path=str(root), **options).fingerprint == first.fingerprint
        assert len(lines) == 1 and "damaged" in lines[0] and str(folder) in lines[0]
    json.loads((folder / "index.json").read_text())

    Image.fromarray(picture(77, 20, 20)).save(root / "lake" / "lake00.png")
    assert load(path=str(root), **options).fingerprint != first.fingerprint
    assert [path for path in (tmp_path / "cache" / "decoded").iterdir() if path.name.startswith(".")] == []


def test_zip_members_cannot_point_outside(plain, tmp_path):
    for name in ("../lake/x.png", "/lake/x.png", "lake/../../x.png", "C:/lake/x.png", "..\\lake\\x.png"):
        path = tmp_path / "evil.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(InputError, match="points outside"):
            load(path=str(path), **OPTIONS)


def test_damaged_and_bomb_members_are_named(plain, tmp_path, monkeypatch):
    path = pack(plain, tmp_path / "tiles.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("lake/lake05.png")
    data[member.header_offset + 100] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"1 unreadable image: lake/lake05.png \(damaged in the archive"):
        load(path=str(path), **OPTIONS)
    monkeypatch.setattr("kdjax.data.decode.MAX_FILE_BYTES", 900)
    with pytest.raises(InputError, match="unreadable.*would unpack to more"):
        load(path=str(path), **OPTIONS)
    monkeypatch.undo()
    monkeypatch.setattr("kdjax.data.decode.MAX_PIXELS", 25 * 23)
    with pytest.raises(InputError, match="unreadable.*pixels is more than"):
        load(path=str(plain), **OPTIONS)


def test_bad_input_is_one_clear_line(plain, tmp_path):
    (tmp_path / "words.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    one = write_classes(tmp_path / "one", ("only",), 3)
    single = write_classes(tmp_path / "single", ("a", "b"), 5)
    for file in sorted((single / "b").iterdir())[1:]:
        file.unlink()
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.fromarray(picture(0, 9, 9)).save(flat / "x.png")
    cases = [
        ({"path": str(tmp_path / "absent")}, "dataset.path: /.*absent does not exist: correct the path"),
        ({"path": None}, "dataset.path"),
        ({"path": str(tmp_path / "words.zip")}, "dataset.path: .*neither a directory nor a readable zip"),
        ({"path": str(tmp_path / "empty")}, "dataset.path: .*no image files"),
        ({"path": str(flat)}, "no class folders"),
        ({"path": str(one)}, r"only one class \(only\)"),
        ({"path": str(single)}, "class 'b' has 1 image"),
        ({"image_size": 31}, "dataset.image_size is 31: give a whole number of at least 32 and at most 4096"),
        ({"storage_size": 7}, "dataset.storage_size is 7: give a whole number of at least 32 and at most 4096"),
        ({"test_fraction": 1.0}, "dataset.test_fraction is 1.0: must be above 0 and below 1"),
        ({"test_fraction": float("nan")}, "dataset.test_fraction is nan: give a finite number"),
        ({"validation_fraction": 0}, "dataset.validation_fraction is 0: must be above 0 and below 1"),
        ({"label_fraction": 0}, "dataset.label_fraction is 0: must be above 0 and at most 1"),
        ({"label_fraction": 1.5}, "dataset.label_fraction is 1.5: must be above 0 and at most 1"),
        ({"unlabeled": "hide"}, "dataset.unlabeled is 'hide': choose one of keep, drop"),
        ({"unlabeled": "drop", "unlabeled_dir": str(plain)}, "dataset.unlabeled is 'drop'"),
        ({"source": "web"}, "dataset.source is 'web': choose one of demo, folder, tfds"),
        ({"on_error": "ignore"}, "dataset.on_error is 'ignore': choose one of refuse, skip"),
        ({"value_range": (5, 5)}, "dataset.value_range"),
        ({"value_range": (1,)}, "dataset.value_range"),
        ({"tfds_splits": ("train",)}, "dataset.tfds_splits"),
        ({"unlabeled_dir": str(tmp_path / "absent")}, "dataset.unlabeled_dir: .*does not exist"),
        ({"splits": str(tmp_path / "absent.json")}, "dataset.splits: .*cannot be read"),
    ]
    for change, pattern in cases:
        with pytest.raises(InputError, match=pattern) as error:
            load(**OPTIONS | {"path": str(plain)} | change)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("archive", [False, True])
def test_files_that_are_no_images_by_name_are_noted(plain, tmp_path, archive):
    path = shutil.copytree(plain, tmp_path / "tiles")
    for name in ("glacier/1.webp", "glacier/2.webp", "field/notes.txt", "field/.hidden.txt", "README"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"-")
    if archive:
        path = pack(path, tmp_path / "tiles.zip")
    data = load(path=str(path), **OPTIONS)
    note = next(note for note in data.notes if "left out that are not" in note)
    assert note.startswith("4 files") and "2 .webp" in note and "1 .txt" in note and "1 without suffix" in note
    assert "glacier" not in data.classes
    more = load(path=str(plain), **OPTIONS | {"unlabeled_dir": str(path)})
    assert any("unlabeled tiles: 4 files left out" in note for note in more.notes)


@pytest.mark.parametrize("preview", ["preview.png", "top/preview.png"])
def test_an_image_beside_wrapped_classes_hides_no_class(plain, tmp_path, preview):
    shutil.copytree(plain, tmp_path / "tiles" / "top")
    shutil.copy(next(plain.glob("*/*.png")), tmp_path / "tiles" / preview)
    data = load(path=str(tmp_path / "tiles"), **OPTIONS)
    assert data.fingerprint == load(path=str(plain), **OPTIONS).fingerprint
    assert any(preview in note and "outside class folders" in note for note in data.notes)


def test_a_name_that_is_not_utf_8_is_refused(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "tiles")
    with open(os.fsencode(tmp_path) + b"/tiles/field/caf\xe9.png", "wb") as file:
        file.write(next(plain.glob("*/*.png")).read_bytes())
    with pytest.raises(InputError, match="caf.*is not UTF-8: rename it"):
        load(path=str(tmp_path / "tiles"), **OPTIONS)


def test_stray_images_are_noted(plain, tmp_path):
    root = write_classes(tmp_path / "tiles", count=5)
    Image.fromarray(picture(0, 9, 9)).save(root / "preview.png")
    data = load(path=str(root), **OPTIONS)
    assert len(names_of(data)) == 15 and any("preview.png" in note for note in data.notes)


def test_links_are_followed_without_end(tmp_path):
    root = write_classes(tmp_path / "tiles", count=5)
    (root / "field" / "again").symlink_to(root, target_is_directory=True)
    assert len(names_of(load(path=str(root), **OPTIONS))) == 15
