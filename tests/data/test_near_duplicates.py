"""Nearly identical images: kept on one side of a split, or counted."""

import json

import numpy as np
import pytest
from helpers.tiles import OPTIONS, picture, sides, write_classes
from PIL import Image

from kdjax.data import load, near_duplicates


def test_near_duplicates_stay_on_one_side(tmp_path):
    root = write_classes(tmp_path / "tiles")
    for number in range(0, 20, 2):  # each second picture is the one before, turned and a little darker
        image = np.asarray(Image.open(root / "lake" / f"lake{number:02d}.png"))
        Image.fromarray((image[::-1] * 0.9).astype(np.uint8)).save(root / "lake" / f"lake{number + 1:02d}.png")
    for seed in range(3):
        data = load(path=str(root), group_near_duplicates=True, **{**OPTIONS, "data_seed": seed})
        side = sides(data)
        assert all(side[f"lake/lake{n:02d}.png"] == side[f"lake/lake{n + 1:02d}.png"] for n in range(0, 20, 2))
        assert any("10 pairs of near-duplicates" in note for note in data.notes)


def test_near_duplicates_across_sides_are_counted_once(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "tiles")
    options = {**OPTIONS, "cache_dir": tmp_path / "cache"}
    data = load(path=str(root), **options)
    assert not any("nearly the same" in note for note in data.notes)
    held, kept = data.test.names[0], data.train.names[0]
    image = np.asarray(Image.open(root / kept))
    Image.fromarray((image[::-1] * 0.9).astype(np.uint8)).save(root / held)
    told = load(path=str(root), **options)
    assert held in told.test.names and kept in told.train.names
    expected = "1 of 12 test images are nearly the same as a training image"
    assert any(expected in note for note in told.notes)
    monkeypatch.setattr("kdjax.data.near_duplicates.closest", None)  # the second time it is read
    assert load(path=str(root), **options).notes == told.notes
    monkeypatch.undo()
    monkeypatch.setattr("kdjax.data.near_duplicates.LEAST", 1.01)  # another question has another answer
    assert not any("nearly the same" in note for note in load(path=str(root), **options).notes)


def test_a_damaged_or_impossible_count_of_near_duplicates_is_counted_again(tmp_path):
    root = write_classes(tmp_path / "tiles", count=5)
    options = {**OPTIONS, "path": str(root), "cache_dir": tmp_path / "cache"}
    expected = load(**options).notes
    (file,) = (tmp_path / "cache" / "near_duplicates").iterdir()
    good = file.read_bytes()
    for content in (b'{"cou', b"\xff", b"[3]", b"{}", b'{"count": 999}', b'{"count": -1}', b'{"count": true}'):
        file.write_bytes(content)
        assert load(**options).notes == expected and file.read_bytes() == good


@pytest.mark.parametrize("grouped", [False, True])
def test_unlabeled_tiles_nearly_the_same_as_held_out_ones_are_counted_or_dropped(tmp_path, grouped):
    root = write_classes(tmp_path / "tiles")
    options = {**OPTIONS, "path": str(root), "group_near_duplicates": grouped}
    plain = load(**options)
    (tmp_path / "more").mkdir()
    for side in ("train", "validation", "test"):
        for number, name in enumerate(getattr(plain, side).names[:2]):
            image = np.asarray(Image.open(root / name))
            Image.fromarray((image[::-1] * 0.9).astype(np.uint8)).save(tmp_path / "more" / f"{side}{number}.png")
    Image.fromarray(picture([50, 0], 20, 20)).save(tmp_path / "more" / "other.png")
    found = load(**options, unlabeled_dir=str(tmp_path / "more"))
    added = {name.removeprefix("unlabeled:") for name in found.members["unlabeled"]}
    dropped = {f"{side}{number}.png" for side in ("validation", "test") for number in range(2)}
    assert added == {"train0.png", "train1.png", "other.png"} | (set() if grouped else dropped)
    told = [note for note in found.notes if "nearly the same" in note]
    if grouped:
        assert told == ["4 unlabeled tiles dropped: nearly the same as a validation or test image"]
    else:
        assert told == [
            "2 of 12 test images are nearly the same as a training image; dataset.group_near_duplicates=True keeps "
            "such images on one side"
        ]


def test_near_duplicates_of_a_test_split_that_is_given_are_counted_without_advice(tmp_path):
    """Such a split cannot be drawn otherwise: the field would be refused."""
    root = write_classes(tmp_path / "tiles")
    document = load(path=str(root), **OPTIONS).splits_document()
    image = np.asarray(Image.open(root / document["train"][0]))
    Image.fromarray((image[::-1] * 0.9).astype(np.uint8)).save(root / document["test"][0])
    (tmp_path / "splits.json").write_text(json.dumps(document))
    found = load(path=str(root), splits=str(tmp_path / "splits.json"), **OPTIONS)
    assert "1 of 12 test images are nearly the same as a training image" in found.notes


def test_near_duplicates_are_found_however_far_they_lie_apart(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3)).astype(np.uint8)
    images[8] = images[0]
    monkeypatch.setattr(near_duplicates, "_IMAGES_AT_ONCE", 4)
    assert near_duplicates.pairs(near_duplicates.thumbnails(images)) == [(0, 8)]
