"""The pass over the teacher's views as part of a run: what it counts, where it may end, and whose they are."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax.errors import InputError, Preempted
from kdjax.objective.outputs import Outputs
from kdjax.runtime import preemption
from kdjax.teacher import store
from kdjax.teacher.store import LogitsFolder, cached_folder
from kdjax.teacher.targets import Source, Targets
from kdjax.teacher.teacher import Teacher

IMAGES = np.zeros((37, 8, 8, 3), np.uint8)
SAID = []
"""What was logged."""


def opened(tmp_path, name="numbers", images="0"):
    """The targets of a run in `tmp_path`, whose teacher's logits tell of which example and view they are."""
    views = lambda images, examples, view: Outputs(np.stack([examples, 0 * examples, 0 * examples + view], 1))
    workdir = tmp_path / "run"
    workdir.mkdir(exist_ok=True)
    log = SAID.append
    folder = cached_folder(tmp_path / "cache", {"examples": images, "teacher": name}, 3, log)
    return Targets((Source(folder, Teacher({"teacher": name}, views, clean=None)),), workdir, workdir, log)


def recorded(tmp_path):
    return json.loads((tmp_path / "run" / "teacher_logits.json").read_text())["views"]


def test_a_pass_ends_between_shards_when_asked_to(tmp_path, monkeypatch):
    targets, answers = opened(tmp_path), iter([False, True])
    monkeypatch.setattr(preemption, "requested", lambda: next(answers))
    with pytest.raises(Preempted, match="shards computed so far"):
        targets.views(IMAGES, 2)
    monkeypatch.setattr(preemption, "requested", lambda: False)
    logits, count = np.asarray(targets.views(IMAGES, 2).logits), len(IMAGES)
    np.testing.assert_array_equal(logits[:, :, 0], [range(count)] * 2)
    np.testing.assert_array_equal(logits[:, :, 2], [[0] * count, [1] * count])
    record = recorded(tmp_path)
    assert record["forward_images"] == record["started_images"] == 2 * count  # nothing was computed twice


def test_the_count_is_of_the_views_that_are_asked_for(tmp_path):
    targets, count = opened(tmp_path), len(IMAGES)
    targets.views(IMAGES, 2)
    assert recorded(tmp_path)["forward_images"] == 2 * count
    targets.views(IMAGES, 2)  # again, from disk: the count stays what this run asked for
    assert recorded(tmp_path)["forward_images"] == recorded(tmp_path)["started_images"] == 2 * count
    targets.views(IMAGES, 3)  # another configuration, of which two views are there already
    assert recorded(tmp_path)["forward_images"] == recorded(tmp_path)["started_images"] == count
    assert recorded(tmp_path)["images"] == {f"view-{view:04d}": count for view in range(3)}


def test_who_follows_a_run_knows_what_that_run_computed(tmp_path):
    targets = opened(tmp_path)
    targets.views(IMAGES, 1)
    (tmp_path / "run" / "evaluation").mkdir()
    follower = dataclasses.replace(targets, results_dir=tmp_path / "run" / "evaluation")
    assert follower.record()["views"]["forward_images"] == len(IMAGES)


def begin(tmp_path):
    """The run's first checkpoint."""
    (tmp_path / "run" / "distill" / "checkpoints" / "3").mkdir(parents=True)


def test_a_run_that_has_begun_refuses_another_teacher(tmp_path):
    opened(tmp_path, "other").check()  # nothing has begun
    first = opened(tmp_path)
    first.views(IMAGES, 1)
    first.pin()
    begin(tmp_path)
    opened(tmp_path).check()
    with pytest.raises(
        InputError, match=f"distilled from the teacher outputs {first.sources[0].folder.fingerprint}, but"
    ):
        opened(tmp_path, "other").check()


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_run_goes_on_with_the_ensemble_that_it_began_with(tmp_path, names):
    sources = tuple(opened(tmp_path, name).sources[0] for name in names)
    targets = dataclasses.replace(opened(tmp_path), sources=sources)
    targets.pin()
    begin(tmp_path)
    targets.check()


def test_students_that_have_ended_are_measured_on_images_that_are_decoded_otherwise(tmp_path):
    """The teacher is the same: nobody could put it back. Students in training would learn of other images."""
    first = opened(tmp_path)
    first.views(IMAGES, 1)
    first.pin()
    begin(tmp_path)
    SAID.clear()
    opened(tmp_path, images="1").check(ended=True)
    assert any("the teacher is the same, but its images are decoded differently" in line for line in SAID)
    with pytest.raises(InputError, match="the same teacher on images that were decoded differently: put the images"):
        opened(tmp_path, images="1").check(ended=False)
    with pytest.raises(InputError, match="put that teacher back"):
        opened(tmp_path, "other", images="1").check(ended=True)


def test_a_run_from_before_there_were_fingerprints_refuses_another_teacher(tmp_path):
    opened(tmp_path).views(IMAGES, 1)  # its record names the folder alone
    begin(tmp_path)
    opened(tmp_path).check()
    with pytest.raises(InputError, match="put that teacher back"):
        opened(tmp_path, "other").check()


def test_a_run_that_has_not_begun_may_choose_another_teacher(tmp_path):
    first = opened(tmp_path)
    first.views(IMAGES, 1)
    first.pin()
    other = opened(tmp_path, "other")
    other.check()
    other.views(IMAGES, 1)  # counted for this teacher, not for the one before
    assert recorded(tmp_path)["folders"] == [str(other.sources[0].folder.folder)]
    assert recorded(tmp_path)["forward_images"] == recorded(tmp_path)["started_images"] == len(IMAGES)
    other.pin()
    begin(tmp_path)
    other.check()
    with pytest.raises(InputError, match="put that teacher back"):
        opened(tmp_path).check()


def test_a_folder_of_logits_of_any_name_goes_on_with_a_run_from_before_there_were_fingerprints(tmp_path):
    made = opened(tmp_path)
    made.views(IMAGES, 1)
    folder = made.sources[0].folder
    named = LogitsFolder(folder.folder.rename(tmp_path / "mine"), folder.parts, 3, made.log)
    given = dataclasses.replace(made, sources=(Source(named, None),))
    (tmp_path / "run" / "teacher_logits.json").unlink()
    given.views(IMAGES, 1)
    begin(tmp_path)
    given.check()
    with pytest.raises(InputError, match="put that teacher back"):
        opened(tmp_path).check()


def test_a_damaged_record_is_named(tmp_path):
    targets = opened(tmp_path)
    begin(tmp_path)
    (tmp_path / "run" / "teacher_logits.json").write_text("{")
    with pytest.raises(InputError, match="teacher_logits.json"):
        targets.check()


def test_of_several_teachers_the_mean_is_taken_and_each_is_counted(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path, "other")
    one.views(IMAGES, 1)  # which lies there when both are asked
    moved = Teacher(
        {"teacher": "other"}, lambda *asked: Outputs(other.sources[0].teacher.views(*asked).logits + 4), None
    )
    both = dataclasses.replace(one, sources=(*one.sources, Source(other.sources[0].folder, moved)))
    (tmp_path / "run" / "teacher_logits.json").unlink()
    logits = np.asarray(both.views(IMAGES, 2).logits)
    np.testing.assert_array_equal(logits[1], np.stack([np.arange(37), 0 * np.arange(37), np.ones(37)], 1) + 2)
    assert recorded(tmp_path)["forward_images"] == 3 * len(IMAGES)
    assert both.digests == ["numbers", "other"] and both.network is None


def test_what_a_folder_beside_a_teacher_lacks_is_told_before_that_computes(tmp_path):
    given, other = opened(tmp_path), opened(tmp_path, "other")
    given.views(IMAGES, 1)
    idle = Teacher({"teacher": "other"}, lambda *asked: pytest.fail("it was asked"), None)
    both = (Source(other.sources[0].folder, idle), Source(given.sources[0].folder, None))
    with pytest.raises(InputError, match="lacks view-0001: compute it with its teacher, or lower distill.views"):
        dataclasses.replace(given, sources=both).views(IMAGES, 2)


def test_students_do_not_learn_from_logits_that_are_not_finite_but_are_measured_beside_them(tmp_path):
    made = opened(tmp_path)
    fails = lambda images, *_: np.full((len(images), 3), np.nan, np.float32)
    broken = Teacher({"teacher": "numbers"}, lambda *asked: Outputs(fails(asked[1])), clean=fails)
    targets = dataclasses.replace(made, sources=(Source(made.sources[0].folder, broken),))
    with pytest.raises(InputError, match="not finite for view-0000, first of image 0"):
        targets.views(IMAGES, 1)
    assert np.isnan(targets.clean({"test": IMAGES[:6]})["test"]).all()


def test_a_folder_without_logits_of_the_test_images_leaves_the_teacher_unmeasured(tmp_path):
    """Such as a run leaves that only began to distil. Another teacher beside it does not make the mean known."""
    made, lines = opened(tmp_path), []
    images = {"validation": IMAGES[:5], "test": IMAGES[:6]}
    made.views(IMAGES, 1)
    given = dataclasses.replace(made, sources=(Source(made.sources[0].folder, None),), log=lines.append)
    said = given.clean(images)
    assert {name: one.shape for name, one in said.items()} == {"validation": (5, 3), "test": (6, 3)}
    assert all(np.isnan(one).all() for one in said.values()) and "not measured" in lines[0]
    knows = Teacher({"teacher": "other"}, None, clean=lambda images: np.ones((len(images), 3), np.float32))
    other = Source(opened(tmp_path, "other").sources[0].folder, knows)
    both = dataclasses.replace(given, sources=(*given.sources, other))
    assert np.isnan(both.clean(images)["test"]).all()
    (tmp_path / "run" / "teacher_logits.json").unlink()
    assert (dataclasses.replace(given, sources=(other,)).clean(images)["test"] == 1).all()


def test_each_shard_of_plain_images_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 4)
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    corner = lambda images: np.asarray(images)[:, 0, 0].astype(np.float32)
    made = opened(tmp_path)
    teacher = Teacher({"teacher": "numbers"}, views=None, clean=corner)
    targets = dataclasses.replace(made, sources=(Source(made.sources[0].folder, teacher),))
    np.testing.assert_array_equal(targets.clean({"test": images})["test"], corner(images))
