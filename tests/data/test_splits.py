"""Splits: stratified, seeded, duplicates on one side, reusable; hidden labels; unlabeled tiles."""

import hashlib
import json
import pathlib
import shutil
import unicodedata

import numpy as np
import pytest
from helpers.tiles import OPTIONS, names_of, picture, pool_of, write_classes
from PIL import Image

from kdjax.data import load, splits
from kdjax.errors import InputError

UC_MERCED = pathlib.Path(__file__).parents[2] / "../shared/data/uc_merced.zip"


def assign(labels, digests=None, sides=None, seed=0, test_fraction=0.2, validation_fraction=0.1, classes="abcdefgh"):
    count = len(labels)
    names = [f"image{i}" for i in range(count)]
    digests = digests or [str(i) for i in range(count)]
    classes = classes[: max(labels) + 1]
    result = splits.assign(
        pool_of(names, labels, digests, sides or [""] * count, classes),
        seed=seed,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
    )
    return result, names


def test_every_example_is_on_one_side_and_classes_keep_their_share():
    labels = [0] * 100 + [1] * 50 + [2] * 10
    result, _ = assign(labels)
    together = np.concatenate([result.train, result.validation, result.test])
    assert sorted(together) == list(range(160))
    counts = [
        np.bincount(np.array(labels)[part], minlength=3).tolist()
        for part in (result.train, result.validation, result.test)
    ]
    assert counts == [[72, 36, 7], [8, 4, 1], [20, 10, 2]]


def test_an_example_without_a_label_is_dropped_where_a_held_out_one_is_identical():
    labels = [0] * 40 + [-1] * 40  # each labeled example has its like among the others
    result, names = assign(labels, digests=[str(i % 40) for i in range(80)])
    held = {*result.test, *result.validation}
    assert len(held) == 8 + 3 and not held & {i % 40 for i in result.train}
    assert sorted(result.train) == [i for i in range(80) if i % 40 not in held]


def test_seeds_differ_and_repeat():
    labels = [0] * 50 + [1] * 50
    first, again, other = (assign(labels, seed=seed)[0].test.tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert 2 < len(set(first) & set(other)) + 3 and len(set(first) & set(other)) < 15


def test_the_order_of_the_files_does_not_matter():
    names = [f"n{i}" for i in range(40)]
    labels = np.arange(40) % 2
    back = np.arange(40)[::-1]
    options = dict(test_fraction=0.25, validation_fraction=0.2, seed=3)
    one = splits.assign(pool_of(names, labels, names, [""] * 40, "ab"), **options)
    names_back = [names[i] for i in back]
    two = splits.assign(pool_of(names_back, labels[back], names_back, [""] * 40, "ab"), **options)
    assert {names[i] for i in one.test} == {names[back[i]] for i in two.test}


def test_small_classes_keep_a_training_example():
    result, _ = assign([0] * 20 + [1] * 2 + [2] * 3)
    assert sorted(np.bincount(np.array([0] * 20 + [1] * 2 + [2] * 3)[result.train])) == [1, 1, 14]
    assert {20, 21} & set(result.test) and {22, 23, 24} & set(result.test) and {22, 23, 24} & set(result.validation)
    assert any("no validation example of: b" in note for note in result.notes)
    with pytest.raises(InputError, match="class 'b' has 1 image: training and test need at least one each"):
        assign([0] * 20 + [1])
    with pytest.raises(InputError, match=r"class 'b' has 3 images \(all identical\)"):
        assign([0] * 20 + [1] * 3, digests=[str(i) for i in range(20)] + ["same"] * 3)


@pytest.mark.parametrize("seed", range(5))
def test_identical_images_stay_together(seed):
    labels = [0] * 30 + [1] * 30
    digests = [str(i // 3) for i in range(60)]
    digests[59] = digests[0]  # across classes too
    result, _ = assign(labels, digests, seed=seed)
    sides = [{digests[i] for i in part} for part in (result.train, result.validation, result.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert sum(map(len, (result.train, result.validation, result.test))) == 60
    said = "1 pixel-identical groups carry different labels, as image0 and image59"
    assert any(said in note for note in result.notes)
    # Groups of three cannot always meet the fraction, but must come near.
    assert abs(len(result.test) - 12) <= 3


def test_official_splits_are_kept_and_cleaned():
    sides = ["train"] * 20 + ["validation"] * 6 + ["test"] * 6
    labels = [i % 2 for i in range(32)]
    digests = [str(i) for i in range(32)]
    digests[0] = digests[30]  # train = test
    digests[1] = digests[21]  # train = validation
    digests[22] = digests[31]  # validation = test
    result, _ = assign(labels, digests, sides)
    assert result.train.tolist() == list(range(2, 20))
    assert result.validation.tolist() == [20, 21, 23, 24, 25]
    assert result.test.tolist() == list(range(26, 32))
    assert "2 images dropped from train" in result.notes[0] and "1 images dropped from validation" in result.notes[1]
    # The dropped one was of another class.
    assert "1 pixel-identical groups carry different labels, as image22 and image31" in result.notes[2]


def test_missing_official_splits_are_carved_from_train():
    sides = ["train"] * 40 + ["test"] * 10
    result, _ = assign([i % 2 for i in range(50)], sides=sides)
    assert result.test.tolist() == list(range(40, 50)) and len(result.validation) == 4 and len(result.train) == 36
    sides = ["train"] * 40 + ["validation"] * 10
    result, _ = assign([i % 2 for i in range(50)], sides=sides)
    assert result.validation.tolist() == list(range(40, 50)) and len(result.test) == 8


def test_a_class_absent_from_official_train_is_refused():
    with pytest.raises(InputError, match="class 'b' has no training example"):
        assign([0, 0, 0, 0, 1, 0, 1, 0], sides=["train"] * 4 + ["validation"] * 2 + ["test"] * 2)


def test_unlabeled_examples_stay_in_train_only():
    labels = [0, 1] * 10 + [-1, -1, -1]
    sides = ["train"] * 16 + ["validation"] * 2 + ["test"] * 2 + ["train", "validation", "test"]
    result, _ = assign(labels, sides=sides)
    assert 20 in result.train and 21 not in result.validation and 22 not in result.test


@pytest.mark.parametrize("fold", [(), (0, 4), (1, 4)])
def test_a_group_without_any_label_is_in_train(fold):
    """With another split it could not be used at all."""
    labels = np.array([0, 1] * 20 + [-1] * 40)
    groups = np.r_[np.arange(40) // 2, 20 + np.arange(40) // 2]
    labels[4] = -1  # its group has a label
    pool = pool_of([f"n{i:03d}" for i in range(80)], labels, list(map(str, range(80))), [""] * 80, "ab")
    found = splits.assign_groups(pool, groups, test_fraction=0.2, validation_fraction=0.1, fold=fold, seed=0)
    assert set(range(40, 80)) <= set(found.train)
    assert len(found.test) == pytest.approx(10 if fold else 8, abs=2) and (labels[found.test] >= 0).all()


def test_images_that_are_two_classes_at_once_are_named_however_they_are_split(tmp_path):
    root = write_classes(tmp_path / "tiles")
    (root / "town" / "town07.png").write_bytes((root / "lake" / "lake03.png").read_bytes())
    said = "warning: 1 pixel-identical groups carry different labels, as lake/lake03.png and town/town07.png"
    first = load(path=str(root), **OPTIONS)
    (tmp_path / "splits.json").write_text(json.dumps(first.splits_document()))
    for fields in ({}, {"fold": (0, 3)}, {"splits": str(tmp_path / "splits.json")}):
        assert any(note.startswith(said) for note in load(path=str(root), **fields, **OPTIONS).notes)
    # A file may put one of them into train, from where it is dropped, and the other into test.
    document = {
        "train": ["lake/lake03.png", *(f"{name}/{name}00.png" for name in ("field", "lake", "town"))],
        "validation": ["lake/lake01.png"],
        "test": ["town/town07.png"],
    }
    (tmp_path / "splits.json").write_text(json.dumps(document))
    notes = load(path=str(root), splits=str(tmp_path / "splits.json"), **OPTIONS).notes
    assert any(note.startswith("1 images dropped from train") for note in notes)
    assert any(note.startswith(said) for note in notes)


@pytest.fixture
def tiles(tmp_path):
    return write_classes(tmp_path / "tiles")


def test_splits_json_can_be_used_again(tiles, tmp_path):
    first = load(path=str(tiles), **OPTIONS)
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(first.splits_document()))
    again = load(path=str(tiles), **OPTIONS | {"data_seed": 99, "splits": str(path)})
    assert again.fingerprint == first.fingerprint
    # Also from a run that hid labels: its file holds the whole split.
    part = load(path=str(tiles), **OPTIONS | {"label_fraction": 0.3})
    path.write_text(json.dumps(part.splits_document()))
    assert load(path=str(tiles), **OPTIONS | {"splits": str(path)}).fingerprint == first.fingerprint
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as editors on Windows save it
    assert (
        load(path=str(tiles), **OPTIONS | {"splits": str(path), "label_fraction": 0.3}).fingerprint == part.fingerprint
    )


def test_a_splits_file_may_spell_names_as_a_mac_does(tmp_path):
    root = write_classes(tmp_path / "tiles", ("forêt", "lake"), 10)
    first = load(path=str(root), **OPTIONS)
    path = tmp_path / "splits.json"
    path.write_text(
        unicodedata.normalize("NFD", json.dumps(first.splits_document(), ensure_ascii=False)), encoding="utf-8"
    )
    assert load(path=str(root), **OPTIONS | {"splits": str(path)}).fingerprint == first.fingerprint


def test_bad_splits_files_are_refused(tiles, tmp_path):
    good = load(path=str(tiles), **OPTIONS).splits_document()
    first = good["train"][0]
    cases = [
        ("no json", "is not JSON"),
        ("[]", "must hold"),
        ("{}", 'needs a list of names under "train"'),
        (good | {"test": []}, 'under "test"'),
        (good | {"test": [1]}, 'under "test"'),
        (good | {"test": good["test"] + ["lake/nowhere.png"]}, 'names 1 images under "test".*lake/nowhere.png'),
        (good | {"test": good["test"] + [first]}, f"lists {first} twice"),
        (good | {"train": [name for name in good["train"] if "lake" not in name]}, "class 'lake' has no training"),
    ]
    path = tmp_path / "splits.json"
    for content, pattern in cases:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError, match=pattern):
            load(path=str(tiles), **OPTIONS | {"splits": str(path)})
    path.write_text(json.dumps(good | {"train": good["train"][1:]}))
    fewer = load(path=str(tiles), **OPTIONS | {"splits": str(path)})
    assert len(names_of(fewer)) == 59 and any(f"left out: {first}" in note for note in fewer.notes)


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_splits_file_may_hold_out_labeled_images_alone(tmp_path, side):
    names, labels = [f"image{i}" for i in range(8)], [0, 1] * 4
    document = {"train": names[:4], "validation": names[4:6], "test": names[6:]}
    (tmp_path / "splits.json").write_text(json.dumps(document))
    again = lambda: splits.reuse(str(tmp_path / "splits.json"), pool_of(names, labels, names, [""] * 8, "ab"))
    again()
    labels[names.index(document[side][0])] = -1
    with pytest.raises(InputError, match=f"puts {document[side][0]} in a held-out split, but it has no label"):
        again()


def test_a_side_of_a_splits_file_that_copies_leave_empty_is_filled_there(tiles, tmp_path):
    good = load(path=str(tiles), **OPTIONS).splits_document()
    copies = []
    for name in good["test"]:
        copy = f"{name.rsplit('.', 1)[0]}_copy.png"
        Image.open(tiles / name).save(tiles / copy)
        copies.append(copy)
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(good | {"validation": copies}))
    with pytest.raises(InputError, match='^the validation split is empty: name images under "validation" in .*json'):
        load(path=str(tiles), **OPTIONS | {"splits": str(path)})


def test_a_splits_file_may_name_images_that_are_skipped(tiles, tmp_path):
    document = load(path=str(tiles), **OPTIONS).splits_document()
    name = document["train"][0]
    (tiles / name).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(document))
    options = OPTIONS | {"path": str(tiles), "splits": str(path), "on_error": "skip"}
    data = load(**options)
    assert data.train.names == tuple(document["train"][1:]) and data.test.names == tuple(document["test"])
    assert any(note.endswith(f'splits.json names under "train" cannot be read: {name}') for note in data.notes)
    (tiles / name).unlink()
    with pytest.raises(InputError, match=f"that the data set does not have: {name}"):
        load(**options)


def test_label_fraction_is_nested_and_spares_the_test_split(tiles):
    whole = load(path=str(tiles), **OPTIONS)
    kept_before: set[str] = set()
    valid_before: set[str] = set()
    for fraction in (0.01, 0.1, 0.34, 0.5, 0.99, 1.0):
        data = load(path=str(tiles), **OPTIONS | {"label_fraction": fraction})
        assert data.train.names == whole.train.names and data.test.names == whole.test.names
        np.testing.assert_array_equal(data.test.labels, whole.test.labels)
        kept = {name for name, label in zip(data.train.names, data.train.labels, strict=True) if label >= 0}
        assert kept >= kept_before and set(data.validation.names) >= valid_before
        kept_before, valid_before = kept, set(data.validation.names)
        labeled = data.train.labels >= 0
        np.testing.assert_array_equal(data.train.labels[labeled], whole.train.labels[labeled])
        assert np.bincount(data.train.labels[labeled], minlength=3).tolist() == [max(1, round(fraction * 14))] * 3
        assert np.bincount(data.validation.labels, minlength=3).tolist() == [max(1, round(fraction * 2))] * 3
        hidden = set(data.splits_document()["label_hidden"])
        assert hidden == (set(whole.train.names) - kept) | (set(whole.validation.names) - valid_before)
    assert data.fingerprint == whole.fingerprint


def test_unlabeled_images_can_be_dropped(tiles):
    kept = load(path=str(tiles), **OPTIONS | {"label_fraction": 0.34})
    dropped = load(path=str(tiles), **OPTIONS | {"label_fraction": 0.34, "unlabeled": "drop"})
    labeled = [i for i, label in enumerate(kept.train.labels) if label >= 0]
    assert 0 < len(labeled) < len(kept.train)
    assert dropped.train.names == tuple(kept.train.names[i] for i in labeled)
    np.testing.assert_array_equal(dropped.train.labels, kept.train.labels[labeled])
    np.testing.assert_array_equal(dropped.train.images, kept.train.images[labeled])
    assert dropped.validation.names == kept.validation.names and dropped.test.names == kept.test.names
    assert dropped.splits_document() == kept.splits_document()
    assert f"{len(kept.train) - len(labeled)} training images without a label are left out" in dropped.notes


def test_unlabeled_tiles_join_train_unless_they_are_held_out(tiles, tmp_path):
    whole = load(path=str(tiles), **OPTIONS)
    more = tmp_path / "more" / "deep" / "down"
    more.mkdir(parents=True)
    for i in range(7):
        Image.fromarray(picture([50, i], 20, 21)).save(more / f"extra{i}.png")
    for k, name in enumerate((whole.test.names[0], whole.validation.names[0])):
        # Another file format: other bytes, the same pixels.
        Image.open(tiles / name).save(more / f"copy{k}.bmp")
    Image.open(tiles / whole.train.names[0]).save(more / "trained.bmp")
    data = load(path=str(tiles), **OPTIONS | {"unlabeled_dir": str(tmp_path / "more")})
    added = data.train.names[len(whole.train) :]
    assert data.train.names[: len(whole.train)] == whole.train.names
    assert added == tuple(
        f"unlabeled:deep/down/{name}" for name in [f"extra{i}.png" for i in range(7)] + ["trained.bmp"]
    )
    assert (data.train.labels[len(whole.train) :] == -1).all() and data.train.labels.dtype == np.int32
    assert any("2 unlabeled tiles dropped" in note for note in data.notes)
    assert data.splits_document()["unlabeled"] == list(added)
    assert data.test.names == whole.test.names and data.fingerprint != whole.fingerprint
    hashes = [hashlib.sha256(np.asarray(image).tobytes()).digest() for image in data.train.images]
    assert [one.tobytes() for one in data.train.image_hashes()] == hashes
    assert data.digests.keys() == {*names_of(data)} and data.digests[added[-1]] == data.digests[whole.train.names[0]]


def test_digests_know_an_image_by_another_name_and_size(tiles, tmp_path):
    data = load(path=str(tiles), **OPTIONS)
    for name in data.digests:
        place = tmp_path / "renamed" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiles / name, place.with_stem(f"other_{place.stem}"))
    renamed = load(**OPTIONS | {"path": str(tmp_path / "renamed"), "storage_size": 40, "data_seed": 1})
    assert len(set(data.digests.values())) == len(data.digests) == len(names_of(data))
    assert {name.replace("other_", ""): digest for name, digest in renamed.digests.items()} == data.digests


@pytest.mark.slow
@pytest.mark.skipif(not UC_MERCED.exists(), reason="../shared/data/uc_merced.zip is not there")
def test_uc_merced_keeps_its_identical_aeroplanes_on_one_side(tmp_path):
    """The published set holds airplane01 and airplane02 with the same pixels."""
    for seed in range(3):
        data = load(**OPTIONS | {"path": str(UC_MERCED), "data_seed": seed, "cache_dir": tmp_path})
        assert len(data.classes) == 21 and len(names_of(data)) == 2100
        assert (len(data.train), len(data.validation), len(data.test)) == (1512, 168, 420)
        pair = {"airplane/airplane01.jpg", "airplane/airplane02.jpg"}
        assert any(pair <= set(split.names) for split in (data.train, data.validation, data.test))
        assert np.bincount(data.test.labels).tolist() == [20] * 21
