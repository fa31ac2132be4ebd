"""Teacher logits are computed once, and never trusted when damaged."""

import numpy as np
import pytest

from kdjax.teacher_logits import cached_pass, tree_digest

SHAPE = (5, 3)


class Teacher:
    """Counts its views; its logits tell view and example apart."""

    def __init__(self):
        self.views = []

    def __call__(self, view):
        self.views.append(view)
        return np.arange(15, dtype=np.float32).reshape(SHAPE) + 100 * view


def run(folder, views, said=None, **parts):
    teacher = Teacher()
    log = (lambda line: None) if said is None else said.append
    parts = {"teacher": "a", "size": 64, **parts}
    return teacher, cached_pass(folder, parts, views=views, shape=SHAPE, compute_view=teacher, log=log)


def test_a_view_is_computed_once_and_more_views_add_to_it(tmp_path):
    teacher, first = run(tmp_path, 2)
    assert teacher.views == [0, 1] and first.forward_images == 10
    np.testing.assert_array_equal(first.logits, np.stack([Teacher()(0), Teacher()(1)]))
    teacher, second = run(tmp_path, 3)
    assert teacher.views == [2] and second.forward_images == 5 and second.folder == first.folder
    teacher, third = run(tmp_path, 3)
    assert teacher.views == [] and third.forward_images == 0
    np.testing.assert_array_equal(third.logits[:2], first.logits)


def test_a_damaged_view_is_computed_again_and_said(tmp_path):
    _, first = run(tmp_path, 2)
    path = first.folder / "view-0001.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    said = []
    teacher, second = run(tmp_path, 2, said)
    assert teacher.views == [1] and any(str(path) in line for line in said)
    np.testing.assert_array_equal(second.logits, first.logits)


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path):
    def stops(view):
        if view == 1:
            raise KeyboardInterrupt
        return Teacher()(view)

    with pytest.raises(KeyboardInterrupt):
        cached_pass(tmp_path, {"teacher": "a", "size": 64}, views=3, shape=SHAPE, compute_view=stops, log=print)
    teacher, _ = run(tmp_path, 3)
    assert teacher.views == [1, 2]


def test_another_fingerprint_is_another_folder_and_the_difference_is_said(tmp_path):
    run(tmp_path, 1)
    said = []
    teacher, _ = run(tmp_path, 1, said, size=96)
    assert teacher.views == [0] and any("differs in size" in line for line in said)


def test_digest_sees_values_names_and_dtypes():
    tree = {"a": np.zeros(3, np.float32), "b": np.ones(2)}
    others = [{**tree, "a": np.float32([0, 0, 1])}, {"a": tree["a"], "c": tree["b"]}, {**tree, "a": np.zeros(3)}]
    assert tree_digest(tree) == tree_digest({name: one.copy() for name, one in tree.items()})
    assert len({tree_digest(tree), *map(tree_digest, others)}) == 4
