"""What a configuration says of its teacher."""

import json
import os
import pwd

import ml_collections
import pytest

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.run.checks import expand_paths, validate
from kdjax.run.teacher_source import GivenTeacher, given_field, given_teachers, gives_features


def given(**fields):
    config = base()
    for name, value in fields.items():
        section = config.distill if name == "logits" else config.teacher
        section[name] = value
    return config


def test_members_of_an_ensemble_are_named_by_kind():
    config = given(ensemble=("workdir=runs/a", "students=runs/b:kl", "onnx=x=1.onnx", "logits=~/c"))
    expand_paths(config)
    kinds = [(one.kind, one.place, one.field) for one in given_teachers(config)]
    assert kinds[:3] == [
        ("workdir", "runs/a", "teacher.ensemble"),
        ("students", "runs/b:kl", "teacher.ensemble"),
        ("onnx", "x=1.onnx", "teacher.ensemble"),
    ]
    assert kinds[3][1].startswith("/") and kinds[3][1].endswith("/c")
    assert given_field(config) == "teacher.ensemble"


def test_the_home_of_another_user_is_found_in_an_ensemble_too():
    name, home = next((one.pw_name, one.pw_dir) for one in pwd.getpwall() if one.pw_dir.count("/") > 1)
    config = given(ensemble=(f"workdir=~{name}/run", "onnx=a=~b.onnx", "onnx=~/c.onnx"))
    expand_paths(config)
    own = os.path.expanduser("~")
    assert config.teacher.ensemble == (f"workdir={home}/run", "onnx=a=~b.onnx", f"onnx={own}/c.onnx")


@pytest.mark.parametrize("member", ["runs/a", "run=runs/a", "onnx=", 3])
def test_what_names_no_teacher_is_refused(member):
    with pytest.raises(InputError, match="teacher.ensemble: .* names no teacher: give 'workdir=RUN'"):
        validate(given(ensemble=(member,)))


def test_arrays_and_single_teachers_are_one_list():
    assert given_teachers(base()) == ()
    assert given_teachers(given(students="a:kl")) == (GivenTeacher("students", "a:kl", "teacher.students"),)
    assert given_teachers(given(logits=("a", "b"))) == tuple(GivenTeacher("logits", x, "distill.logits") for x in "ab")


def test_a_configuration_that_was_read_back_is_as_good():
    """From JSON it has lists in place of tuples."""
    validate(ml_collections.ConfigDict(json.loads(base().to_json())))


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({}, True),
        ({"workdir": "a"}, True),
        ({"students": "a"}, False),
        ({"onnx": "a"}, False),
        ({"onnx": "a", "onnx_gives": "embeddings"}, True),
        ({"ensemble": ("workdir=a",)}, False),
        ({"logits": ("a",)}, False),
    ],
)
def test_which_teachers_have_features(fields, features):
    assert gives_features(given(**fields)) is features


FILE = {"onnx": __file__}
NORMALIZED = {"onnx_input": "normalized", **FILE}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fit": "some"}, "teacher.fit"),
        ({"fit": "head"}, "give teacher.weights"),
        ({"weights": "none.safetensors"}, "teacher.weights: no file none.safetensors: give a .safetensors file or a "),
        ({"fit": "nothing", "students": "a"}, "teacher.students gives the teacher"),
        ({"bands": ("nir",), "students": "a"}, "teacher.students has its own"),
        ({"fit": "head", "weights": "a/b", "head": "fc"}, "teacher.head is 'fc'"),
        ({"classes": ("a", "b")}, "teacher.classes names the logits"),
        ({"onnx": "none.onnx"}, "teacher.onnx: no file none.onnx: give an ONNX file"),
        ({"ensemble": ("onnx=none.onnx",)}, "teacher.ensemble: no file none.onnx"),
        ({"ensemble": ("logits=none",)}, "teacher.ensemble: none is not a folder of teacher logits"),
        ({"onnx_input": "normalized", **FILE}, "teacher.onnx_mean is"),
        ({"onnx_mean": (0.5, 0.5, 0.5), **FILE}, "only then"),
        ({"onnx_mean": (0, 0, 0), "onnx_std": (1, 1, 0), **NORMALIZED}, "onnx_std.* must be above 0"),
        ({"onnx_mean": (0, 0), "onnx_std": (1, 1), **NORMALIZED}, "three numbers"),
        ({"onnx_mean": (123.7, 116.3, 103.5), "onnx_std": (58.0, 57.0, 57.0), **NORMALIZED}, "so divide by 255"),
        ({"onnx_gives": "embeddings"}, "teacher.onnx_gives is 'embeddings', but no ONNX file is given"),
        ({"onnx_layout": "NCHW"}, "no ONNX file is given"),
        ({"ensemble": ("workdir=a", "workdir=a/")}, "teacher.ensemble names a/ twice"),
        ({"logits": ("a", "./a")}, "distill.logits names ./a twice"),
        ({"ensemble": ("students=a:kl", "students=./a:kl")}, "teacher.ensemble names ./a:kl twice"),
        ({"ensemble": ("students=a", "students=./a:kl")}, "names a and ./a:kl: the students of both would"),
        ({"ensemble": ("students=a:kl", "students=a")}, "names a:kl and a: the students of both would"),
        ({"onnx_gives": "embeddings", "classes": ("a",), "onnx": __file__}, "has no classes"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        validate(given(**fields))


@pytest.mark.parametrize("kind", ["workdir", "onnx", "logits", "students"])
def test_one_place_has_one_name_however_it_is_written(tmp_path, kind, monkeypatch):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    monkeypatch.chdir(tmp_path)
    for again in (str(tmp_path / "place"), "link"):
        with pytest.raises(InputError, match=f"teacher.ensemble names {again} twice"):
            given_teachers(given(ensemble=(f"{kind}=place", f"{kind}={again}")))


def test_students_of_two_arms_or_runs_may_be_one_teacher():
    members = ("students=a:kl", "students=a:cosine", "students=b", "workdir=a", "logits=a")
    assert len(given_teachers(given(ensemble=members))) == len(members)
