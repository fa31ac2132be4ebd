"""Teacher logits are computed once, and never trusted when damaged or made for other data."""

import json

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.objective.outputs import Outputs
from kdjax.teacher import store
from kdjax.teacher.store import LogitsFolder, cached_folder, existing_folder, tree_digest, view_name

ROWS, CLASSES = 7, 3
PARTS = {"teacher": "a", "size": 64, "examples": "x", "augmentation": {"scale": 1}, "data_seed": 0}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store, "SHARD", 4)


class Teacher:
    """Counts what it is asked; its logits tell view and example apart."""

    def __init__(self, view):
        self.view, self.asked = view, []

    def __call__(self, start, end):
        self.asked.append((start, end))
        return Outputs(self.all(self.view)[start:end])

    @staticmethod
    def all(view):
        return np.arange(ROWS * CLASSES, dtype=np.float32).reshape(ROWS, CLASSES) + 100 * view


def folder(path, said=None, **parts):
    return cached_folder(path, {**PARTS, **parts}, CLASSES, (lambda line: None) if said is None else said.append)


def test_a_shard_is_computed_once(tmp_path):
    teacher = Teacher(2)
    assert folder(tmp_path).missing("view-0002", ROWS) == [(0, 4), (4, 7)]
    np.testing.assert_array_equal(folder(tmp_path).read(view_name(2), ROWS, teacher).logits, Teacher.all(2))
    assert teacher.asked == [(0, 4), (4, 7)]
    np.testing.assert_array_equal(folder(tmp_path).read(view_name(2), ROWS, teacher).logits, Teacher.all(2))
    assert teacher.asked == [(0, 4), (4, 7)] and folder(tmp_path).missing("view-0002", ROWS) == []


@pytest.mark.parametrize("damage", ["bit", "torn", "no digest"])
def test_a_damaged_shard_is_computed_again_and_said(tmp_path, damage):
    place = folder(tmp_path)
    place.read("test", ROWS, Teacher(0))
    path = place.folder / "test-0000004.npy"
    content = path.read_bytes()
    if damage == "no digest":
        path.with_suffix(".sha256").unlink()
    else:
        path.write_bytes(content[:-4] + b"\0\0\0\1" if damage == "bit" else content[:50])
    said, teacher = [], Teacher(0)
    np.testing.assert_array_equal(folder(tmp_path, said).read("test", ROWS, teacher).logits, Teacher.all(0))
    assert teacher.asked == [(4, 7)] and any(str(path) in line for line in said)
    assert path.read_bytes() == content


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path):
    def stops(start, end):
        if start:
            raise KeyboardInterrupt
        return Outputs(Teacher.all(0)[start:end])

    with pytest.raises(KeyboardInterrupt):
        folder(tmp_path).read("view-0000", ROWS, stops)
    teacher = Teacher(0)
    folder(tmp_path).read("view-0000", ROWS, teacher)
    assert teacher.asked == [(4, 7)]


def test_another_fingerprint_is_another_folder_and_the_difference_is_said(tmp_path):
    first, said = folder(tmp_path), []
    assert folder(tmp_path, said, size=96).folder != first.folder
    assert any("differs in size" in line for line in said)
    assert json.loads((first.folder / "parts.json").read_text())["size"] == 64


def test_named_folders_serve_where_the_data_agree(tmp_path):
    made = folder(tmp_path)
    made.read("view-0000", ROWS, Teacher(0))
    found = existing_folder(str(made.folder), "distill.logits", {**PARTS, "teacher": "someone else"}, CLASSES, print)
    np.testing.assert_array_equal(found.read("view-0000", ROWS).logits, Teacher.all(0))
    with pytest.raises(InputError, match="lacks view-0001: compute it with its teacher, or lower distill.views"):
        found.read("view-0001", ROWS)
    for part in ("examples", "augmentation", "data_seed"):
        with pytest.raises(InputError, match=f"its {part} is .*, needed 5"):
            existing_folder(str(made.folder), "distill.logits", {**PARTS, part: 5}, CLASSES, print)
    with pytest.raises(InputError, match="no parts.json"):
        existing_folder(str(tmp_path), "teacher.ensemble", PARTS, CLASSES, print)


def test_an_array_of_other_shape_is_not_taken(tmp_path):
    made = folder(tmp_path)
    made.read("view-0000", ROWS, Teacher(0))
    assert LogitsFolder(made.folder, made.parts, CLASSES + 1, print).missing("view-0000", ROWS) == [(0, 4), (4, 7)]


def test_digest_sees_values_names_and_dtypes():
    tree = {"a": np.zeros(3, np.float32), "b": np.ones(2)}
    others = [{**tree, "a": np.float32([0, 0, 1])}, {"a": tree["a"], "c": tree["b"]}, {**tree, "a": np.zeros(3)}]
    assert tree_digest(tree) == tree_digest({name: one.copy() for name, one in tree.items()})
    assert len({tree_digest(tree), *map(tree_digest, others)}) == 4


class Featured(Teacher):
    """The same, with features."""

    def __call__(self, start, end):
        logits = super().__call__(start, end).logits
        return Outputs(logits, self.features()[start:end])

    @staticmethod
    def features():
        return np.random.default_rng(0).random((ROWS, 6), np.float32) * 6


def test_features_lie_beside_the_logits_and_are_computed_where_asked_for(tmp_path):
    first, second = Featured(0), Featured(0)
    assert folder(tmp_path).read("view-0000", ROWS, first).features is None  # not asked for, not stored
    assert not list(folder(tmp_path).folder.glob("*.features.npy"))
    assert folder(tmp_path).missing("view-0000", ROWS) == []
    assert folder(tmp_path).missing("view-0000", ROWS, features=True) == [(0, 4), (4, 7)] == first.asked
    made = folder(tmp_path).read("view-0000", ROWS, second, features=True)
    assert second.asked == first.asked and made.features.dtype == np.float16
    read = folder(tmp_path).read("view-0000", ROWS, features=True)
    np.testing.assert_array_equal(read.features, made.features)
    np.testing.assert_array_equal(read.logits, Teacher.all(0))
    assert folder(tmp_path).read("view-0000", ROWS).features is None
    (folder(tmp_path).folder / "view-0000-0000004.features.npy").write_bytes(b"")
    assert folder(tmp_path).missing("view-0000", ROWS, features=True) == [(4, 7)]


def test_half_precision_does_no_harm_to_a_cosine(tmp_path):
    exact = Featured.features()
    stored = folder(tmp_path).read("view-0000", ROWS, Featured(0), features=True).features
    stored = np.asarray(stored, np.float64)
    student = np.random.default_rng(1).random((ROWS, 6))
    distance = lambda a, b: 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.abs(distance(exact, student) - distance(stored, student)).max() < 3e-4


def test_features_that_half_precision_cannot_hold_are_refused(tmp_path):
    for value in (1e5, np.nan):
        large = lambda start, end, value=value: Outputs(Teacher.all(0)[start:end], np.full((end - start, 2), value))
        with pytest.raises(InputError, match="more than half precision holds"):
            folder(tmp_path).read("view-0000", ROWS, large, features=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused_and_not_stored(tmp_path, value):
    broken = Teacher.all(0)
    broken[5, 1] = value
    said = r"teacher resnet18 \(a\) gives logits that are not finite for view-0000, first of image 5"
    place = folder(tmp_path, model="resnet18")
    with pytest.raises(InputError, match=said):
        place.read("view-0000", ROWS, lambda start, end: Outputs(broken[start:end]))
    assert place.missing("view-0000", ROWS) == [(4, 7)]
    place._store("view-0000", 4, Outputs(broken[4:]))  # as earlier versions did
    for compute in (Teacher(0), None):
        with pytest.raises(InputError, match=said + ".*choose another teacher"):
            place.read("view-0000", ROWS, compute)
    np.testing.assert_array_equal(place.read("view-0000", ROWS, finite=False).logits, broken)
