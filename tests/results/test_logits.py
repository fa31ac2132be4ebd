"""evaluation/logits.npz is read whole, or refused in one line."""

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.results import logits

SHAPES = {"teacher_test": (4, 3), "student_test": (None, 2, 4, 3)}


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"teacher_test": rng.normal(size=(4, 3)), "student_test": rng.normal(size=(5, 2, 4, 3))}
    np.savez(tmp_path / "logits.npz", **arrays)
    return tmp_path / "logits.npz"


def refused(path, match):
    with pytest.raises(InputError, match=f"logits.npz.*{match}.*: evaluate again") as caught:
        logits.read(path, SHAPES, "evaluate again")
    assert "\n" not in str(caught.value)


def test_arrays_come_back(path):
    found = logits.read(path, SHAPES, "x")
    np.testing.assert_array_equal(found["student_test"], np.load(path)["student_test"])
    assert found["teacher_test"].dtype == np.float64


def test_logits_of_another_evaluation_are_refused(path):
    digest = logits.digest(dict(np.load(path)))
    assert set(logits.read(path, SHAPES, "x", digest)) == set(SHAPES)
    changed = dict(np.load(path))
    changed["student_test"] = changed["student_test"].copy()
    changed["student_test"][4, 1, 3, 2] += 1e-9
    np.savez(path, **changed)
    with pytest.raises(InputError, match=r"logits.npz is not of the evaluation that wrote results.json: again"):
        logits.read(path, SHAPES, "again", digest)
    renamed = {name.replace("test", "validation"): array for name, array in changed.items()}
    assert logits.digest(renamed) != logits.digest(changed)
    assert logits.digest({**changed, "other": changed["teacher_test"]}) != logits.digest(changed)
    assert logits.digest({**changed, "teacher_test": changed["teacher_test"].T}) != logits.digest(changed)


def test_damage_is_refused(path):
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = bytearray(whole)
    flipped[middle] ^= 255
    for content in (b"", b"PK", b"garbage", whole[:middle], bytes(flipped)):
        path.write_bytes(content)
        refused(path, "cannot be read")
    path.unlink()
    refused(path, "cannot be read")
    with path.open("wb") as file:
        np.save(file, np.zeros(3))  # one array, no archive
    refused(path, "cannot be read")


def test_other_arrays_are_refused(path):
    np.savez(path, teacher_test=np.zeros((4, 3)))
    refused(path, "no array student_test")
    for shape in ((5, 2, 4), (5, 1, 4, 3), (5, 2, 4, 4)):
        np.savez(path, teacher_test=np.zeros((4, 3)), student_test=np.zeros(shape))
        refused(path, "student_test has the shape")
    np.savez(path, teacher_test=np.array([object()]), student_test=np.zeros((5, 2, 4, 3)))
    refused(path, "cannot be read")
