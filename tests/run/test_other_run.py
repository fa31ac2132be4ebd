"""A teacher of another run is taken where it fits, and refused with the reason where it does not."""

import json
from types import SimpleNamespace

import pytest

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.run import other_run
from kdjax.run import run as runs
from kdjax.run.checks import validate
from kdjax.run.given import given_field


@pytest.fixture
def config(tmp_path):
    """A configuration that names a run of the same teacher, in tmp_path."""
    there = base()
    there.teacher.weights = "elsewhere.safetensors"
    (tmp_path / "teacher").mkdir()
    (tmp_path / "config.json").write_text(there.to_json())
    splits = {"train": ["a/1", "b/1"], "validation": ["a/2"], "test": ["a/3", "b/3"], "unlabeled": ["tile"]}
    (tmp_path / "splits.json").write_text(json.dumps({**splits, "classes": ["a", "b"]}))
    (tmp_path / "teacher" / "program.json").write_text('{"arms_at_once": null, "steps": 12}')
    here = base()
    here.teacher.workdir = str(tmp_path)
    return here


def dataset(classes=("a", "b"), validation=("a/2",), test=("a/3", "b/3"), value_range=(), hidden=()):
    return SimpleNamespace(
        classes=classes,
        validation=SimpleNamespace(names=validation),
        test=SimpleNamespace(names=test),
        value_range=value_range,
        members={"label_hidden": hidden},
    )


def test_the_same_teacher_is_taken(config):
    validate(config)
    other_run.check_config(config)
    other_run.check_data(config, dataset(), print)
    (other,) = other_run.named(config)
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


def test_data_that_share_no_name_with_the_teachers_are_told(config):
    said = []
    other_run.check_data(config, dataset(validation=("x/2",), test=("x/3",)), said.append)
    assert len(said) == 1 and "under other names" in said[0] and "1 of 1 test images" in said[0]
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


@pytest.fixture
def students(config, tmp_path):
    """A configuration that names the students of that run."""
    (tmp_path / "distill").mkdir()
    program = {"steps": 12, "seeds": [0], "arms": ["student_alone", "kl"], "projection": None}
    (tmp_path / "distill" / "program.json").write_text(json.dumps(program))
    config.teacher.workdir, config.teacher.students = None, str(tmp_path)
    return config


@pytest.mark.parametrize(("given", "arm"), [("{}", ""), ("{}:kl", "kl"), ("{}/", "")])
def test_students_of_all_arms_or_one_are_named(students, tmp_path, given, arm):
    students.teacher.students = given.format(tmp_path)
    assert given_field(students) == "teacher.students"
    (other,) = other_run.named(students)
    assert (other.workdir, other.arm) == (tmp_path, arm)
    other_run.check_config(students)
    assert other_run.trained_students(other)["steps"] == 12


def test_students_that_do_not_fit_are_refused(students, tmp_path):
    students.teacher.students = f"{tmp_path}:cosine"
    with pytest.raises(InputError, match="has no arm 'cosine'; it has student_alone, kl"):
        other_run.check_config(students)
    students.teacher.students = f"{tmp_path}:"
    with pytest.raises(InputError, match="names no arm after the colon"):
        other_run.check_config(students)
    students.teacher.students = str(tmp_path)
    students.teacher.image_size = 96
    with pytest.raises(InputError, match="teacher.students: teacher.image_size is 96 here and 64 in"):
        other_run.check_config(students)
    students.teacher.image_size = 0
    with pytest.raises(InputError, match="was selected on 1 of this run's test images, such as a/2"):
        other_run.check_data(students, dataset(validation=(), test=("a/2",)), print)
    with pytest.raises(InputError, match="trained on 1 of this run's validation images, such as b/1"):
        other_run.check_data(students, dataset(validation=("b/1",)), print)
    (tmp_path / "distill" / "program.json").unlink()
    with pytest.raises(InputError, match="distill/program.json is not there.*a run that has trained its students"):
        other_run.check_config(students)


@pytest.mark.parametrize(
    ("teacher", "arm", "refused"),
    [
        ({"select": "best"}, "", True),
        ({"select": "best"}, ":kl", True),
        ({"select": "best"}, ":student_alone", False),  # which had no teacher
        ({"select": "last"}, "", False),
        ({"select": "last", "fit": "head"}, "", True),
        ({"select": "best", "onnx": "a.onnx", "onnx_gives": "embeddings"}, "", True),
        ({"select": "best", "onnx": "a.onnx"}, "", False),
    ],
)
def test_students_of_a_teacher_that_the_test_images_chose_are_refused(students, tmp_path, teacher, arm, refused):
    there = json.loads((tmp_path / "config.json").read_text())
    there["student"]["select"] = "last"
    there["teacher"] |= teacher
    (tmp_path / "config.json").write_text(json.dumps(there))
    students.teacher.students = f"{tmp_path}{arm}"
    swapped = dataset(validation=("a/3",), test=("a/2", "b/3"))
    if not refused:
        other_run.check_data(students, swapped, print)
        return
    with pytest.raises(InputError, match="was selected on 1 of this run's test images, such as a/2"):
        other_run.check_data(students, swapped, print)


@pytest.fixture
def grandparents(students, tmp_path):
    """The teacher of `students` were the students of another run, in `first`: no image chose any but those of that."""
    first = tmp_path / "first"
    (first / "distill").mkdir(parents=True)
    (first / "distill" / "program.json").write_text((tmp_path / "distill" / "program.json").read_text())
    splits = {"train": ["x/1", "x/2"], "validation": ["a/3"], "test": ["x/3"], "classes": ["a", "b"]}
    (first / "splits.json").write_text(json.dumps(splits))
    there = json.loads((tmp_path / "config.json").read_text())
    there["student"]["select"] = there["teacher"]["select"] = "last"
    (first / "config.json").write_text(json.dumps({**there, "student": {**there["student"], "select": "best"}}))
    there["teacher"] |= {"students": str(first), "select": "best"}  # which that run does not read
    (tmp_path / "config.json").write_text(json.dumps(there))
    return first


def test_what_the_teachers_teacher_saw_counts(students, grandparents, tmp_path):
    with pytest.raises(InputError, match=r"first was selected on 1 of this run's test images, such as a/3"):
        other_run.check_data(students, dataset(), print)
    other_run.check_data(students, dataset(validation=("a/3",), test=("a/2", "b/3")), lambda line: pytest.fail(line))
    with pytest.raises(InputError, match=r"first trained on 1 of this run's validation images, such as x/1"):
        other_run.check_data(students, dataset(validation=("x/1",), test=("b/3",)), print)
    students.teacher.students = f"{tmp_path}:student_alone"  # which had no teacher
    other_run.check_data(students, dataset(), lambda line: pytest.fail(line))


def test_of_two_arms_of_a_run_one_may_have_had_a_teacher(students, grandparents, tmp_path):
    gone = tmp_path / "gone"
    for folder, teacher in (
        (
            tmp_path,
            {"students": None, "ensemble": [f"students={grandparents}:{arm}" for arm in ("student_alone", "kl")]},
        ),
        (grandparents, {"students": str(gone), "ensemble": []}),
    ):
        there = json.loads((folder / "config.json").read_text())
        there["teacher"] |= teacher
        (folder / "config.json").write_text(json.dumps(there))
    said = []
    other_run.check_data(students, dataset(validation=("a/3",), test=("a/2", "b/3")), said.append)
    assert len(said) == 1 and f"{grandparents} learned from {gone}, which is not there" in said[0]


def test_hidden_labels_that_the_teachers_teacher_knew_are_told(students, grandparents, tmp_path):
    said, hidden = [], dataset(test=("b/3",), hidden=("x/1", "x/2", "b/1", "c/1"))
    other_run.check_data(students, hidden, said.append)
    assert said == [f"teacher.students: the teacher of {tmp_path} was trained with 3 labels that are hidden here"]
    students.teacher.students, students.teacher.ensemble = None, (f"students={tmp_path}", f"students={grandparents}")
    assert other_run.hidden_labels(other_run.named(students), hidden) == 3  # not 3 + 2, and not the larger of both


def test_a_teachers_teacher_that_is_gone_is_told(students, grandparents):
    (grandparents / "splits.json").unlink()
    said = []
    other_run.check_data(students, dataset(), said.append)
    assert len(said) == 1 and f"learned from {grandparents}, which is not there" in said[0]


def test_students_give_no_features(students):
    students.distill.arms = ("student_alone", "kl_features")
    with pytest.raises(InputError, match="arms.kl_features.features_cosine compares features, and teacher.students"):
        validate(students)


def test_members_of_an_ensemble_are_as_their_own_runs_say(students, tmp_path):
    students.teacher.students = None
    students.teacher.ensemble = (f"workdir={tmp_path}", f"students={tmp_path}:kl")
    students.teacher.model = "resnet18"  # which no member need be
    assert [(other.section, other.arm) for other in other_run.named(students)] == [("teacher", ""), ("student", "kl")]
    other_run.check_config(students)
    with pytest.raises(InputError, match="teacher.ensemble: .* trained on 1 of this run's validation images"):
        other_run.check_data(students, dataset(validation=("b/1",)), print)
    students.dataset.storage_size = 48
    with pytest.raises(InputError, match="takes images of 64 px, but dataset.storage_size is 48"):
        other_run.check_config(students)


def test_students_with_the_baseline_that_joined_by_itself_are_a_teacher(config, tmp_path, monkeypatch):
    there = base()
    there.arms = {"kl": there.arms.kl}
    other = SimpleNamespace(
        section="student", field="teacher.students", workdir=tmp_path, config=lambda: json.loads(there.to_json()),
        folder=tmp_path / "distill",
    )  # fmt: skip
    trained = {"seeds": [0], "projection": None, "steps": 3, "arms": ["kl", "labeled_alone"]}
    monkeypatch.setattr(other_run, "trained_students", lambda other: trained)
    monkeypatch.setattr(runs, "Learner", lambda **fields: SimpleNamespace(**fields))
    for name in ("_network", "taken", "frozen"):
        monkeypatch.setattr(runs, name, lambda *_: None)
    run = SimpleNamespace(config=config, dataset=SimpleNamespace(train=range(9)), log=print)
    found = runs.other_networks(run, other)
    assert [(arm.name, arm.labeled_only) for arm in found.arms] == [("kl", False), ("labeled_alone", True)]
