"""A teacher of another run is taken where it fits, and refused with the reason where it does not."""

import hashlib
import json

import pytest
from helpers.teacher_run import dataset, write_teacher

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.run import other_run, record
from kdjax.run.checks import validate
from kdjax.run.teacher_source import given_field


@pytest.fixture
def config(tmp_path):
    return write_teacher(tmp_path)


def test_the_same_teacher_is_taken(config):
    validate(config)
    other_run.check_config(config)
    other_run.check_data(config, dataset(), print)
    (other,) = other_run.borrowed_runs(config)
    assert other_run.total_steps(other) == 12 and other_run.weights(other) == "elsewhere.safetensors"
    config.teacher.image_size = config.dataset.image_size  # what 0 means
    other_run.check_config(config)


def test_labels_that_the_teacher_knew_and_the_students_do_not_are_told(config, tmp_path):
    said = []
    other_run.check_data(config, dataset(hidden=("a/1", "b/1", "a/2")), said.append)  # a/2 was validation there
    assert said == [f"teacher.workdir: the teacher of {tmp_path} was trained with 2 labels that are hidden here"]
    path = tmp_path / "splits.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"label_hidden": ["a/1", "b/1"]}))
    other_run.check_data(config, dataset(hidden=("a/1", "b/1")), lambda line: pytest.fail(line))
    path.write_text(whole)
    there = json.loads((tmp_path / "config.json").read_text())
    there["teacher"]["fit"] = "nothing"  # it was trained elsewhere
    (tmp_path / "config.json").write_text(json.dumps(there))
    other_run.check_data(config, dataset(hidden=("a/1", "b/1")), lambda line: pytest.fail(line))


def test_labels_that_the_teacher_knew_are_recognized_by_content(config, tmp_path):
    """The tiles may have other names here, which says nothing about the labels."""
    path = tmp_path / "splits.json"
    splits = json.loads(path.read_text())
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in splits["train"]]
    written = {"digests": {"train": [digest[: record.DIGITS] for digest in digests]}}
    path.write_text(json.dumps({**splits, **written, "label_hidden": splits["train"][:1]}))
    renumbered = {f"new/{number}": digest for number, digest in enumerate(digests)}
    said = []
    other_run.check_data(config, dataset(hidden=tuple(renumbered), digests=renumbered), said.append)
    labels = len(digests) - 1
    assert said == [f"teacher.workdir: the teacher of {tmp_path} was trained with {labels} labels that are hidden here"]


def test_a_run_older_than_a_field_had_its_default(config, tmp_path):
    there = json.loads((tmp_path / "config.json").read_text())
    del there["teacher"]["select"]
    (tmp_path / "config.json").write_text(json.dumps(there))
    other_run.check_config(config)
    config.teacher.select = "last"
    with pytest.raises(InputError, match="teacher.select is 'last' here and 'best'"):
        other_run.check_config(config)


@pytest.mark.parametrize(("field", "value"), [("model", "vgg16_bn"), ("width", 0.5), ("epochs", 3), ("image_size", 96)])
def test_another_teacher_is_refused_with_the_field(config, field, value):
    config.teacher[field] = value
    with pytest.raises(InputError, match=f"teacher.{field} is {value!r} here"):
        other_run.check_config(config)


@pytest.mark.parametrize(
    ("field", "value", "there"),
    [
        ("sampling", "balanced", "uniform"),
        ("class_weights", ("balanced",), r"\[\]"),
        ("class_weights", (1, 2), r"\[\]"),
    ],
)
def test_a_teacher_for_which_classes_counted_otherwise_is_refused(config, tmp_path, field, value, there):
    config.dataset.update({field: value})
    with pytest.raises(
        InputError, match=f"dataset.{field} is .* here, and the teacher of .* was trained with '?{there}"
    ):
        other_run.check_config(config)
    config.teacher.workdir = None
    config.teacher.ensemble = (f"workdir={tmp_path}",)  # the way out that the message names
    other_run.check_config(config)
    config.teacher.ensemble = ()
    config.teacher.workdir = str(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    document["dataset"][field] = value
    (tmp_path / "config.json").write_text(json.dumps(document))
    other_run.check_config(config)


def test_of_a_teacher_that_was_not_trained_classes_did_not_count(config, tmp_path):
    document = json.loads((tmp_path / "config.json").read_text())
    document["teacher"]["fit"] = config.teacher.fit = "nothing"
    (tmp_path / "config.json").write_text(json.dumps(document))
    config.dataset.sampling = "balanced"
    other_run.check_config(config)


@pytest.mark.parametrize("side", ["validation", "test"])
@pytest.mark.parametrize("name", ["b/1", "tile"])
def test_a_teacher_that_saw_the_images_to_measure_is_refused(config, side, name):
    with pytest.raises(InputError, match=f"1 of this run's {side} images, such as {name}"):
        other_run.check_data(config, dataset(**{side: (name, "a/9")}), print)


def test_a_teacher_selected_on_the_test_images_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="was selected on 1 of this run's test images, such as a/2"):
        other_run.check_data(config, dataset(validation=("a/3",), test=("a/2", "b/3")), print)
    there = json.loads((tmp_path / "config.json").read_text())
    there["teacher"]["select"] = "last"  # then no image chose anything
    (tmp_path / "config.json").write_text(json.dumps(there))
    other_run.check_data(config, dataset(validation=("a/3",), test=("a/2", "b/3")), print)
    there["teacher"]["fit"] = "head"  # but the penalty of a head
    (tmp_path / "config.json").write_text(json.dumps(there))
    with pytest.raises(InputError, match="was selected on 1 of this run's test images, such as a/2"):
        other_run.check_data(config, dataset(validation=("a/3",), test=("a/2", "b/3")), print)


@pytest.mark.parametrize("side", ["train", "unlabeled"])
def test_a_teacher_that_saw_the_images_under_other_names_is_refused(config, tmp_path, side):
    """The same tiles, numbered in another order."""
    path = tmp_path / "splits.json"
    there = json.loads(path.read_text())
    digests = {one: [hashlib.sha256(name.encode()).hexdigest() for name in there[one]] for one in record.IMAGES}
    written = {one: [digest[: record.DIGITS] for digest in those] for one, those in digests.items()}
    path.write_text(json.dumps({**there, "digests": written}))
    seen = {"a/8": digests[side][0]}
    said = []
    for sides in ({"test": ("a/3", "a/8")}, {"validation": ("a/2", "a/8")}):
        with pytest.raises(InputError, match=f"trained on 1 of this run's {next(iter(sides))} images, such as a/8"):
            other_run.check_data(config, dataset(**sides, digests=seen), said.append)
    assert said == []
    other_run.check_data(config, dataset(test=("b/9",), digests={"b/9": digests["test"][1]}), said.append)
    assert said == []  # that run tested on it, too


def test_data_that_share_no_name_with_the_teachers_are_told(config):
    said = []
    other_run.check_data(config, dataset(validation=("x/2",), test=("x/3",)), said.append)
    assert len(said) == 1 and "in another form" in said[0] and "1 of 1 test images" in said[0]
    other_run.check_data(config, dataset(), said.append)
    assert len(said) == 1
    other_run.check_data(config, dataset(test=("a/3", "x/3", "x/4")), said.append)
    assert len(said) == 2 and "2 of 3 test images" in said[1]


def test_a_teacher_of_pixels_that_were_mapped_otherwise_is_refused(config, tmp_path):
    """Red, green and blue of 16 bits: what is black and white was chosen by each data set of its own."""
    place = tmp_path / "splits.json"
    for theirs in (None, [], [0.0, 3000.0]):  # of an earlier version, of bytes, the same
        place.write_text(json.dumps({**json.loads(place.read_text()), "value_range": theirs}))
        other_run.check_data(config, dataset(value_range=(0.0, 3000.0)), print)
    with pytest.raises(
        InputError, match=r"maps the values \[0.0, 3000.0\], this run \[12.0, 5000.0\]: set dataset.val"
    ):
        other_run.check_data(config, dataset(value_range=(12.0, 5000.0)), print)


def test_other_classes_are_refused(config):
    with pytest.raises(InputError, match="classes"):
        other_run.check_data(config, dataset(classes=("b", "a")), print)


@pytest.mark.parametrize("name", ["config.json", "teacher/program.json"])
def test_a_directory_without_a_teacher_is_refused(config, tmp_path, name):
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is not there"):
        other_run.check_config(config)


def test_only_one_teacher_may_be_given(config):
    assert given_field(config) == "teacher.workdir" and given_field(base()) is None
    config.teacher.onnx = "teacher.onnx"
    with pytest.raises(InputError, match="teacher.workdir and teacher.onnx are set"):
        validate(config)
    config.teacher.onnx, config.splits = None, 2
    with pytest.raises(InputError, match="teacher.workdir belongs to one split"):
        validate(config)


def test_the_seed_of_the_last_split_is_a_seed_too():
    config = base()
    config.dataset.source, config.data_seed, config.splits = "demo", 2**31 - 2, 2
    validate(config)
    config.splits = 3
    with pytest.raises(InputError, match="data_seed is 2147483646, and of the last of 3 splits 2147483648: lower it"):
        validate(config)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"onnx": __file__, "classes": ("a", "b")}, "teacher.onnx"),
        ({"fit": "nothing", "weights": "owner/name"}, "teacher.fit='nothing'"),
        ({"onnx": __file__, "onnx_gives": "embeddings"}, None),  # each split fits a head of its own
        ({"fit": "head", "weights": "owner/name"}, None),
    ],
)
def test_a_teacher_that_may_have_seen_any_test_image_is_none_of_several_splits(fields, field):
    config = base()
    config.dataset.source = "demo"
    config.teacher.update(fields)
    validate(config)
    config.splits = 2
    if field is None:
        validate(config)
        return
    with pytest.raises(InputError, match=f"splits is 2, but {field} gives each split the same teacher, which may have"):
        validate(config)
