"""The students of another run are taken as a teacher where they fit, and their own teachers count."""

import json
from types import SimpleNamespace

import pytest
from helpers.teacher_run import dataset, write_teacher

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.run import other_run
from kdjax.run import run as runs
from kdjax.run.checks import validate
from kdjax.run.teacher_source import given_field


@pytest.fixture
def config(tmp_path):
    return write_teacher(tmp_path)


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
    (other,) = other_run.borrowed_runs(students)
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


def test_arms_that_were_not_trained_had_no_teacher(students, grandparents, tmp_path):
    program = tmp_path / "distill" / "program.json"
    program.write_text(json.dumps({**json.loads(program.read_text()), "arms": ["student_alone"]}))
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
    assert (
        other_run.hidden_labels(other_run.borrowed_runs(students), hidden) == 3
    )  # not 3 + 2, and not the larger of both


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
    assert [(other.section, other.arm) for other in other_run.borrowed_runs(students)] == [
        ("teacher", ""),
        ("student", "kl"),
    ]
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
    for name in ("_network", "bands_of", "with_file_statistics"):
        monkeypatch.setattr(runs, name, lambda *_: None)
    run = SimpleNamespace(config=config, dataset=SimpleNamespace(train=range(9)), log=print)
    found = runs.other_networks(run, other)
    assert found.arm_names == ("kl", "labeled_alone")
