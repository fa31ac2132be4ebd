"""Folders as people make them: which are classes, which are splits, which are neither."""

import shutil
import struct
import unicodedata
import zipfile

import pytest
from helpers.tiles import OPTIONS, names_of, pack, picture, write_classes
from PIL import Image

from kdjax.data import load
from kdjax.errors import InputError

NFC, NFD = (unicodedata.normalize(form, "Forêt") for form in ("NFC", "NFD"))


def note_of(data, words):
    (note,) = [note for note in data.notes if words in note]
    return note


def parts(root, *tops, classes=("field", "lake"), count=6):
    """Class folders in each of `tops`, no picture twice."""
    for k, top in enumerate(tops):
        for j, name in enumerate(classes):
            (root / top / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture([k, j, i], 20, 20)).save(root / top / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "tops",
    [
        ("seg_train", "seg_test"), ("training_set", "test_set"), ("fold0", "fold1", "fold2"), ("Fold 1", "Fold 2"),
        ("val", "test"), ("train2017", "val2017"), ("split1", "split2"), ("dev", "eval"), ("images", "previews"),
        ("train_images", "test_images"), ("trainset", "testset"), ("part-1", "part-2"), ("field", "test_set"),
    ],
)  # fmt: skip
def test_folders_that_may_be_splits_are_a_question(tmp_path, tops):
    root = parts(tmp_path / "tiles", *tops)
    with pytest.raises(InputError, match="are these parts of a data set, not classes") as error:
        load(path=str(root), **OPTIONS)
    assert "\n" not in str(error.value) and "train, val and test" in str(error.value)
    with pytest.raises(InputError, match="are these parts of a data set"):
        load(path=str(pack(root, tmp_path / "tiles.zip", "wrapped/")), **OPTIONS)


def test_class_folders_in_a_container_beside_other_images_are_a_question(tmp_path):
    """The classes would be "Images" and "figures"."""
    parts(tmp_path / "tiles", "Images")
    write_classes(tmp_path / "tiles", ("figures",), 6)
    with pytest.raises(InputError, match="holds Images: are these parts of a data set, not classes"):
        load(path=str(tmp_path / "tiles"), **OPTIONS)


@pytest.mark.parametrize("odd", ["test", "seg_test", "fold0", "extra"])
def test_a_folder_of_class_folders_beside_classes_is_a_question(tmp_path, odd):
    root = parts(write_classes(tmp_path / "tiles", ("field", "lake"), 6), odd, classes=("Field", "pond"), count=1)
    with pytest.raises(InputError, match=f"holds {odd}: are these parts of a data set, not classes"):
        load(path=str(root), **OPTIONS)


@pytest.mark.parametrize("odd", ["test", "seg_test", "val", "fold0"])
def test_one_flat_split_folder_beside_classes_is_a_question(tmp_path, odd):
    root = write_classes(tmp_path / "tiles", ("field", "lake", odd), 4)
    with pytest.raises(InputError, match=f"holds {odd}: are these parts .*rename a class of such a name"):
        load(path=str(root), **OPTIONS)


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "raw", "masks"])
def test_a_folder_of_folders_that_is_called_like_no_class_is_a_question(tmp_path, name):
    root = parts(write_classes(tmp_path / "tiles", ("field", "lake"), 6), name, classes=("north", "south"), count=2)
    with pytest.raises(InputError, match=f"holds {name}: are these parts of a data set"):
        load(path=str(root), **OPTIONS)


def test_a_container_with_a_name_before_it_is_a_question(tmp_path):
    root = parts(write_classes(tmp_path / "tiles", ("figures",), 6), "eurosat_rgb")
    with pytest.raises(InputError, match="holds eurosat_rgb: are these parts"):
        load(path=str(root), **OPTIONS)


@pytest.mark.parametrize("side", ["test", "Val"])
def test_splits_within_classes_are_refused(tmp_path, side):
    root = parts(tmp_path / "tiles", "forest", "river", classes=("train", side), count=2)
    with pytest.raises(InputError, match=f"split folders inside classes, as forest/{side}: .* as {side}/forest, or"):
        load(path=str(root), **OPTIONS)


def test_folders_within_classes_are_told(tmp_path):
    root = parts(tmp_path / "tiles", "north", "south", classes=("forest", "river"))
    found = note_of(load(path=str(root), **OPTIONS), "have subfolders")
    assert found == "2 classes have subfolders, whose names are ignored: north (forest, river)"
    plain = write_classes(tmp_path / "plain", ("field", "lake"), 8)
    assert not any("subfolders" in note for note in load(path=str(plain), **OPTIONS).notes)
    (plain / "lake" / "rejected").mkdir()
    (plain / "lake" / "lake00.png").rename(plain / "lake" / "rejected" / "lake00.png")
    found = note_of(load(path=str(plain), **OPTIONS), "subfolders")
    assert found == "1 class has subfolders, whose names are ignored: lake (rejected)"
    for image in (plain / "lake").glob("*.png"):
        image.rename(plain / "lake" / "rejected" / image.name)
    whole = load(path=str(plain), **OPTIONS)
    assert whole.classes == ("field", "lake") and not any("subfolders" in note for note in whole.notes)


def test_flat_split_folders_are_a_question(tmp_path):
    root = write_classes(tmp_path / "tiles", ("training_set", "test_set"), 6)
    with pytest.raises(InputError, match="test_set, training_set: are these parts"):
        load(path=str(root), **OPTIONS)
    write_classes(tmp_path / "known", ("train", "val", "other"), 6)
    with pytest.raises(InputError, match="train, val: are these parts"):
        load(path=str(tmp_path / "known"), **OPTIONS)
    parts(tmp_path / "intel", "seg_train", "seg_test")
    write_classes(tmp_path / "intel", ("seg_pred",), 6)
    with pytest.raises(InputError, match="are these parts"):
        load(path=str(tmp_path / "intel"), **OPTIONS)


@pytest.mark.parametrize(
    "classes", [("train", "bus"), ("train_station", "test_track"), ("images", "forest"), ("validated", "partly_cloudy")]
)
def test_classes_may_have_such_names(tmp_path, classes):
    assert load(path=str(write_classes(tmp_path / "tiles", classes, 8)), **OPTIONS).classes == tuple(sorted(classes))


@pytest.mark.parametrize("folders", [("2019", "2020"), ("train", "tram"), ("forest", "river")])
@pytest.mark.parametrize("classes", [("north", "south"), ("sea_images", "land_images")])
def test_classes_may_have_folders_of_one_name(tmp_path, classes, folders):
    root = parts(tmp_path / "tiles", *classes, classes=folders)
    data = load(path=str(root), **OPTIONS)
    assert data.classes == tuple(sorted(classes)) and len(names_of(data)) == 24


def test_a_class_may_have_a_folder_of_its_own_name_and_others_none(tmp_path):
    root = parts(write_classes(tmp_path / "tiles", ("lake", "town"), 6), "forest", classes=("forest", "2020"))
    assert load(path=str(root), **OPTIONS).classes == ("forest", "lake", "town")


def test_a_folder_that_holds_all_others_is_said_to_be_no_class(tmp_path):
    """One class with folders of years looks like a wrapper with two classes: only a person can tell."""
    parts(tmp_path / "tiles", "forest", classes=("2019", "2020"))
    data = load(path=str(tmp_path / "tiles"), **OPTIONS)
    assert data.classes == ("2019", "2020")
    assert note_of(data, "not taken for a class") == "forest holds every folder, so it is not taken for a class"
    data = load(path=str(pack(tmp_path / "tiles", tmp_path / "tiles.zip", "deep/down/")), **OPTIONS)
    assert note_of(data, "not taken for a class").startswith("deep/down/forest holds")
    data = load(path=str(tmp_path / "tiles" / "forest"), **OPTIONS)
    assert not any("no class" in note for note in data.notes)


def test_the_log_lists_classes_with_counts_of_each_split(tmp_path):
    root = write_classes(tmp_path / "tiles", count=20)
    assert note_of(load(path=str(root), **OPTIONS), "classes with") == (
        "3 classes with training/validation/test images: field 14/2/4, lake 14/2/4, town 14/2/4"
    )
    data = load(path=str(root), **OPTIONS, label_fraction=0.5)
    assert note_of(data, "classes with") == (
        "3 classes with training/validation/test images: field 7/1/4, lake 7/1/4, town 7/1/4; "
        "21 training images without a label"
    )
    assert note_of(data, "fewer than 10 labeled training images of field (7), lake (7), town (7)").startswith("warning")
    assert note_of(data, "fewer than 5 labeled validation images of field (1)")


@pytest.mark.parametrize("archive", [False, True])
def test_thumbnails_and_system_folders_are_passed_over_and_counted(tmp_path, archive):
    path = write_classes(tmp_path / "tiles", count=8)
    plain = load(path=str(path), **OPTIONS)
    image = (path / "lake" / "lake00.png").read_bytes()
    junk = [
        "@eaDir/field/SYNOPHOTO_THUMB_M.jpg", "lake/@eaDir/lake00.png/SYNOPHOTO_THUMB_XL.jpg",
        "__MACOSX/field/._field00.png", ".ipynb_checkpoints/a-checkpoint.png", "lake/.ipynb_checkpoints/b.png",
        "lake/Thumbs.db", "desktop.ini", "$RECYCLE.BIN/x.png", "System Volume Information/y.png", ".hidden.png",
        "lake/._lake00.png", "town/.thumbnails/z.png", "town/thumbnails/1.png",
    ]  # fmt: skip
    for name in junk:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(image)
    if archive:
        path = pack(path, tmp_path / "tiles.zip")
    data = load(path=str(path), **OPTIONS)
    assert data.fingerprint == plain.fingerprint
    note = note_of(data, "hidden files, thumbnails and system files left out")
    assert note.startswith(f"{len(junk)} ") and "in @eaDir" in note


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("prefix", ["", "deep/down/"])
def test_class_folders_without_an_image_are_named(tmp_path, archive, prefix):
    root = tmp_path / "tiles"
    write_classes(root / prefix, count=8)
    (root / prefix / "swamp").mkdir()
    (root / prefix / "glacier" / "2020").mkdir(parents=True)
    (root / prefix / "glacier" / "a.webp").write_bytes(b"RIFF")
    if archive:
        with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as packed:
            for file in sorted(root.rglob("*")):
                packed.write(file, file.relative_to(root).as_posix())
        root = tmp_path / "tiles.zip"
    data = load(path=str(root), **OPTIONS)
    assert note_of(data, "not classes") == "2 folders without an image are not classes: glacier, swamp"
    assert data.classes == ("field", "lake", "town")


def test_an_empty_class_folder_of_a_split_is_named(tmp_path):
    root = parts(tmp_path / "tiles", "train", "test")
    (root / "train" / "swamp").mkdir()
    assert note_of(load(path=str(root), **OPTIONS), "not classes").endswith("not classes: train/swamp")


def without_flag(path):
    """The archive as macOS writes it: names in UTF-8, no flag that says so."""
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            flags = struct.unpack_from("<H", data, at + place)[0]
            struct.pack_into("<H", data, at + place, flags & ~0x800)
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    return path


def test_names_in_an_archive_are_utf_8_where_they_can_be(tmp_path):
    root = write_classes(tmp_path / "tiles", ("Straße", "河流"), 8)
    expected = load(path=str(root), **OPTIONS)
    for path in (pack(root, tmp_path / "flag.zip"), without_flag(pack(root, tmp_path / "none.zip"))):
        data = load(path=str(path), **OPTIONS)
        assert data.classes == ("Straße", "河流") and data.fingerprint == expected.fingerprint
    # Old Windows archives hold names in code page 437.
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for file in sorted(root.rglob("*.png")):
            name = file.relative_to(root).as_posix().replace("Straße", "Stra?e").replace("河流", "See")
            archive.writestr(name, file.read_bytes())
    data = (tmp_path / "old.zip").read_bytes().replace(b"Stra?e", "Straße".encode("cp437"))
    (tmp_path / "old.zip").write_bytes(data)
    assert load(path=str(tmp_path / "old.zip"), **OPTIONS).classes == ("See", "Straße")


def test_one_class_in_two_spellings_of_unicode(tmp_path):
    """Train was copied from Linux, test from a Mac."""
    for top, name, seed in (("train", NFC, 0), ("test", NFD, 1)):
        for k, folder in enumerate((name, "lake")):
            (tmp_path / "tiles" / top / folder).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(picture([seed, k, i], 20, 20)).save(tmp_path / "tiles" / top / folder / f"{i}.png")
    data = load(path=str(tmp_path / "tiles"), **OPTIONS)
    assert data.classes == (NFC, "lake") and len(data.test) == 12
    assert all(unicodedata.is_normalized("NFC", name) for name in names_of(data))
    # Side by side they are two folders that look like one.
    root = write_classes(tmp_path / "both", (NFC, NFD, "lake"), 4)
    with pytest.raises(InputError, match="two folders called Forêt, spelled differently in Unicode: merge them"):
        load(path=str(root), **OPTIONS)


@pytest.mark.parametrize("pair", [("Forest", "forest"), ("lake", "lake "), ("ﬁeld", "field")])
def test_classes_that_look_alike_are_refused(tmp_path, pair):
    root = write_classes(tmp_path / "tiles", (*pair, "town"), 4)
    with pytest.raises(InputError, match="merge them, or rename one"):
        load(path=str(root), **OPTIONS)


def test_split_folders_with_classes_in_other_case_are_refused(tmp_path):
    root = parts(tmp_path / "tiles", "train", classes=("Forest", "Lake"))
    shutil.copytree(parts(tmp_path / "more", "test", classes=("forest", "lake")) / "test", root / "test")
    with pytest.raises(InputError, match="has the classes 'Forest' and 'forest'"):
        load(path=str(root), **OPTIONS)


@pytest.mark.parametrize("name", ["for\x1b[31mest", "two\nlines", "la\u202eke"])
@pytest.mark.parametrize("of", ["a class", "an image"])
def test_names_with_control_characters_are_refused(tmp_path, name, of):
    root = write_classes(tmp_path / "tiles", ("lake", "town"), 4)
    (root / "lake" / "lake00.png").rename(root / "lake" / f"{name}.png")
    if of == "a class":
        (root / "lake" / f"{name}.png").rename(root / "lake" / "0.png")
        (root / "lake").rename(root / name)
    with pytest.raises(InputError, match="dataset.path: .*holds control characters: rename it") as error:
        load(path=str(root), **OPTIONS)
    assert str(error.value).isprintable()


def test_names_of_any_script_are_taken(tmp_path):
    """A narrow space, as macOS puts into names of screenshots; a joiner, as Persian needs."""
    root = write_classes(tmp_path / "tiles", ("می\u200cرود", "town"), 8)
    (root / "town" / "town00.png").rename(root / "town" / "10.00\u202fPM.png")
    assert "town/10.00\u202fPM.png" in names_of(load(path=str(root), **OPTIONS))
