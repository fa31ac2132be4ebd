"""Splits: what seeds change, and identical images that a splits file puts on two sides."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers.tiles import OPTIONS, pool_of, write_classes

from kdjax.data import load, splits


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("tiles"))


def test_another_seed_keeps_other_labels(tiles, tmp_path):
    """On one and the same split, so that only the choice of labels can differ."""
    whole = load(path=str(tiles), **OPTIONS)
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(whole.splits_document()))
    options = OPTIONS | {"splits": str(path), "label_fraction": 0.5}
    first, again, other = (load(path=str(tiles), **options | {"data_seed": seed}) for seed in (1, 1, 2))
    assert first.train.names == other.train.names
    kept = [data.train.labels >= 0 for data in (first, again, other)]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert kept[0].sum() == kept[2].sum() and np.any(kept[0] != kept[2])
    assert first.fingerprint != other.fingerprint  # logits and figures of one are none of the other


def test_a_seed_draws_the_same_images_and_labels_in_every_version():
    """Figures of earlier versions are compared with those of later ones."""
    names = [f"image{i}" for i in range(40)]

    def drawn(purpose):
        return sorted(range(40), key=lambda i: hashlib.sha256(f"{purpose}/3/{names[i]}".encode()).digest())

    found = splits.assign(
        pool_of(names, [0] * 40, names, [""] * 40, "a"), test_fraction=0.2, validation_fraction=0.25, seed=3
    )
    order = drawn("split")
    assert found.test.tolist() == sorted(order[:8]) and found.validation.tolist() == sorted(order[8:16])
    for side in ("train", "validation"):
        kept = splits.hide_labels(side, names, np.zeros(40, int), 0.25, 3)
        assert np.flatnonzero(kept).tolist() == sorted(drawn(f"labels-{side}")[:10])


@pytest.mark.parametrize(("side", "stays"), [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_a_splits_file_cannot_put_one_image_on_two_sides(tiles, tmp_path, side, stays):
    """Training gives way to validation and test, validation to test."""
    folder = shutil.copytree(tiles, tmp_path / "tiles")
    document = load(path=str(tiles), **OPTIONS).splits_document()
    original = next(name for name in document[stays] if name.startswith("lake"))
    twin = "lake/twin.png"
    shutil.copy(folder / original, folder / twin)
    document[side] = [*document[side], twin]
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(document))
    data = load(path=str(folder), **OPTIONS | {"splits": str(path)})
    assert original in getattr(data, stays).names
    assert not any(twin in split.names for split in (data.train, data.validation, data.test))
    assert any("identical" in note for note in data.notes), data.notes
