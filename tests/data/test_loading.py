"""`load` and `check`: the section of a config, fields in place of its own, what is refused before any data is read."""

import numpy as np
import pytest
from helpers.tiles import OPTIONS, SIDE, write_classes

from kdjax import config, data
from kdjax.data.dataset import Pool
from kdjax.data.meaning import Meaning
from kdjax.data.sources import SOURCES
from kdjax.errors import InputError


def test_a_section_single_fields_and_defaults_give_the_same(tmp_path):
    root = str(write_classes(tmp_path / "tiles"))
    section = config.base().dataset
    section.path, section.image_size, section.storage_size = root, SIDE, SIDE
    expected = data.load(section, data_seed=0, cache_dir=None)
    assert data.load(dict(section), data_seed=0, cache_dir=None).fingerprint == expected.fingerprint
    assert data.load(path=root, **OPTIONS).fingerprint == expected.fingerprint
    defaults = data.load(path=root, data_seed=0, cache_dir=None)
    assert defaults.train.images.shape[1:] == (72, 72, 3)
    other = data.load(section, data_seed=0, cache_dir=None, storage_size=40)
    assert other.train.images.shape[1:] == (40, 40, 3) and section.storage_size == SIDE


def test_a_field_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="dataset.storagesize: there is no such field, choose from augment"):
        data.load(data_seed=0, cache_dir=None, storagesize=40)
    with pytest.raises(InputError, match="data_seed: -1 must not be negative"):
        data.load(source="demo", data_seed=-1, cache_dir=None)


BAD = [
    ("source", "web"), ("source", None), ("path", 5), ("image_size", 31), ("image_size", 4097), ("image_size", 64.0),
    ("image_size", True), ("storage_size", 31), ("storage_size", "72"), ("test_fraction", 0), ("test_fraction", 1),
    ("test_fraction", "half"), ("test_fraction", float("nan")), ("validation_fraction", None), ("label_fraction", 0),
    ("label_fraction", 1.01), ("label_fraction", True), ("unlabeled", "hide"), ("on_error", "ignore"),
    ("tfds_splits", ("a", "b")), ("tfds_splits", "abc"), ("tfds_splits", (1, 2, 3)), ("value_range", (1, 1)),
    ("value_range", (1, float("inf"))), ("value_range", ("0", "1")), ("value_range", 7), ("value_range", "ab"),
    ("demo_classes", 0), ("demo_train", -5), ("demo_test", 1.5), ("builder", "eurosat"), ("splits", 3),
    ("tfds_splits", ("a", "b", "c")), ("demo_train", 5), ("demo_classes", 4),
]  # fmt: skip


@pytest.mark.parametrize("field, value", BAD)
def test_each_wrong_field_is_named_in_one_line(field, value):
    section = dict(config.base().dataset, path="tiles") | {field: value}
    with pytest.raises(InputError, match=f"^dataset.{field}") as error:
        data.check(section)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source, field, value, reader",
    [
        ("folder", "tfds_splits", ("train", "val", "test"), "tfds"), ("folder", "demo_test", 7, "demo"),
        ("tfds", "demo_validation", 7, "demo"), ("demo", "tfds_splits", ("train", "val", "test"), "tfds"),
        ("demo", "test_fraction", 0.5, "folder"), ("demo", "validation_fraction", 0.5, "folder"),
        ("demo", "path", "tiles", "folder"),
    ],
)  # fmt: skip
def test_a_field_that_the_source_does_not_read_is_refused(source, field, value, reader):
    section = dict(config.base().dataset, source=source)
    data.check(section | {"tfds_splits": []})
    with pytest.raises(InputError, match=f"^dataset.{field} is .*does not read it: set dataset.source={reader}, or"):
        data.check(section | {field: value})


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"block_km": 50.0}, "dataset.block_km is 50, but only dataset.split_by='place' reads it: set that too"),
        ({"splits": "s.json", "test_fraction": 0.5}, "dataset.test_fraction is 0.5, but dataset.splits names the"),
        ({"splits": "s.json", "validation_fraction": 0.5}, "dataset.validation_fraction is 0.5, but dataset.splits"),
        ({"fold": (0, 4), "test_fraction": 0.5}, "dataset.test_fraction is 0.5, but dataset.fold decides how large"),
    ],
)
def test_a_field_that_another_makes_useless_is_refused(fields, said):
    section = dict(config.base().dataset, source="folder")
    with pytest.raises(InputError, match=f"^{said}.* out$"):
        data.check(section | fields)
    data.check(
        section | {field: value for field, value in fields.items() if field not in ("block_km", "fold", "splits")}
    )
    data.check(section | {"split_by": "place", "block_km": 50.0})


def test_every_default_passes():
    data.check(config.base().dataset)


@pytest.mark.parametrize("fields", [{}, {"unlabeled": "drop"}, {"fold": (0, 4)}, {"unlabeled_dir": True}])
def test_overlap_is_test_images_over_the_training_images_that_have_a_label_hidden_or_not(tmp_path, fields):
    """As `results.intervals.summary` has it: neither validation images nor tiles of unlabeled_dir count."""
    root = write_classes(tmp_path / "tiles")
    if "unlabeled_dir" in fields:
        fields = {"unlabeled_dir": str(write_classes(tmp_path / "more", ("x", "y", "z", "spare")))}
    whole = data.load(path=str(root), **{**fields, "unlabeled_dir": None}, **OPTIONS)
    loaded = data.load(path=str(root), label_fraction=0.25, **fields, **OPTIONS)
    assert int((loaded.train.labels >= 0).sum()) < 15
    assert loaded.overlap == pytest.approx(len(whole.test) / len(whole.train))


@pytest.mark.parametrize("label_fraction", [1.0, 0.25])
def test_with_overlap_the_spread_over_splits_gives_the_variance_of_their_mean(tmp_path, label_fraction):
    """If a gain depends on the image alone, the truth has a closed form; labels that are hidden change nothing in it.

    With independent gains of variance 1 and c_i(s) = 1 / test images where image i is tested on split s, the variance
    of the mean over splits is the sum over images of the squared mean of c_i, and the expected sample variance (n - 1)
    is the sum over images of the sample variance of c_i.
    """
    root, options = write_classes(tmp_path / "tiles"), {**OPTIONS, "validation_fraction": 0.07}
    splits = []
    for seed in range(8):
        splits.append(data.load(path=str(root), label_fraction=label_fraction, **{**options, "data_seed": seed}))
    names = sorted({name for side in ("train", "validation", "test") for name in splits[0].members[side]})
    shares = np.array([[(name in split.test.names) / len(split.test) for name in names] for split in splits])
    truth, spread = (shares.mean(0) ** 2).sum(), shares.var(0, ddof=1).sum()
    assert (1 / len(splits) + splits[0].overlap) * spread == pytest.approx(truth, rel=0.25)


@pytest.mark.parametrize("redrawn, overlap", [(True, 0), (False, None)])
def test_a_source_says_itself_what_another_seed_would_give(monkeypatch, redrawn, overlap):
    """And the range of its values: nothing in `load` knows the source by its name."""
    images = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), np.uint8)

    def source(section, context):
        context.log(f"seed {context.data_seed}")
        return Pool(
            "made", ("a", "b"), images, np.arange(12, dtype=np.int32) % 2, tuple("abcdefghijkl"),
            tuple("abcdefghijkl"), ("train",) * 8 + ("validation",) * 2 + ("test",) * 2, ("a note",),
            Meaning((3.0, 9.0), ("16-bit",)), redrawn,
        )  # fmt: skip

    monkeypatch.setitem(SOURCES, "made", source)
    lines = []
    found = data.load(source="made", data_seed=4, cache_dir=None, log=lines.append)
    assert lines == ["seed 4"] and found.overlap == overlap and found.value_range == (3, 9) and "a note" in found.notes
    np.testing.assert_array_equal(found.test.images, images[10:])


def test_examples_that_never_had_a_label_are_not_counted_among_labels(monkeypatch):
    labels = np.array([0, 1] * 8 + [-1] * 8, np.int32)
    names = tuple(f"n{i:02d}" for i in range(24))
    images = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    pool = Pool("made", ("a", "b"), images, labels, names, names, ("",) * 24)
    monkeypatch.setitem(SOURCES, "made", lambda section, context: pool)
    options = {**OPTIONS, "source": "made", "label_fraction": 0.5}
    kept, dropped = data.load(**options), data.load(**options, unlabeled="drop")
    assert "label_fraction 0.5: 4 of 10 training labels and 2 of 2 validation examples are kept" in kept.notes
    assert len(kept.members["train"]) == 10 + 8 and set(names[16:]) < set(kept.members["train"])
    # Labels that are put away can be had back, others cannot.
    assert dropped.members["train"] == tuple(name for name in kept.members["train"] if name not in names[16:])
    assert dropped.members["label_hidden"] == kept.members["label_hidden"] and len(dropped.train) == 4


def test_a_fraction_that_the_splits_of_a_folder_leave_unused_is_told(tmp_path):
    for image in sorted(write_classes(tmp_path / "tiles" / "train", ("field", "lake"), 12).glob("*/*0[0-3].png")):
        held = tmp_path / "tiles" / "test" / image.parent.name / image.name
        held.parent.mkdir(parents=True, exist_ok=True)
        image.rename(held)
    options = {**OPTIONS, "path": str(tmp_path / "tiles")}
    told = data.load(**options, test_fraction=0.5, validation_fraction=0.25)
    assert [note for note in told.notes if "not used" in note] == [
        "warning: dataset.test_fraction 0.5 is not used: tiles has a test split of its own"
    ]
    assert len(told.validation) == 4
    assert not any("not used" in note for note in data.load(**options).notes)
