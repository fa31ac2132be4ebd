"""What a results.json must hold to be read: those of every version so far do, and each field is looked at."""

import json
from pathlib import Path

import pytest
from helpers.run_results import parts

from kdjax.errors import InputError
from kdjax.results import document, schema

DOCUMENTS = Path(__file__).parents[2] / "docs" / "results"
SECTIONS = {"dataset", "teacher", "student", "arms", "config"}


def test_the_documents_of_earlier_versions_are_read():
    found = [json.loads(path.read_bytes()) for path in sorted(DOCUMENTS.glob("*.json"))]
    runs = [one for one in found if isinstance(one, dict) and one.keys() >= SECTIONS]
    assert len(runs) >= 37 and [schema.flaw(one) for one in runs] == [None] * len(runs)
    others = [one for one in found if not (isinstance(one, dict) and one.keys() >= SECTIONS)]
    assert others and {schema.flaw(one) for one in others} == {""}


def changed(path, value):
    """A document with one value that is another; ... leaves it out."""
    made = json.loads(json.dumps(document.build(**parts())))
    *sections, field = path.split(".")
    held = made
    for name in sections:
        held = held[name]
    held[field] = value
    if value is ...:
        del held[field]
    return made


@pytest.mark.parametrize("value", [..., None, 3, [], "x"])
@pytest.mark.parametrize(
    "path", ["dataset.splits", "teacher.test", "arms.kl", "arms.kl.weights", "arms.kl.macro_recall"]
)
def test_a_section_that_is_none_is_named(path, value):
    left_out = value is ... and path in (
        "arms.kl",
        "arms.kl.macro_recall",
    )  # a run may have fewer arms, an old one this
    assert schema.flaw(changed(path, value)) == (None if left_out else path)


def test_a_run_may_have_no_teacher():
    assert schema.flaw(changed("teacher", None)) is None
    assert {schema.flaw(changed("teacher", value)) for value in (..., [], 3)} == {""}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("dataset.name", [..., None, 3]),
        ("dataset.classes", [..., "abc", [1]]),
        ("dataset.class_counts", [3, {"train": 3}, {"train": [-1]}, {"test": ["many"]}]),
        ("dataset.splits.test", [..., -1, 2.5, True]),
        ("teacher.model", [..., None]),
        ("teacher.test.top1", [..., "high", float("nan"), 90.0]),
        ("student.params", [..., "many", -1]),
        ("student.width", ["wide", float("inf")]),
        ("config.student", [[], 3, None]),
        ("arms", [{}, []]),
        ("arms.kl.weights", [{"kl": "much"}, {"kl": None}]),
        ("arms.kl.seeds", [..., 3, [[0], 1, 2], [0, 0, 1], ["a", "b", "c"]]),
        ("arms.kl.test_top1", [..., 0.5, [0.5], ["a", "b", "c"], [0.5, 0.5, 75.0]]),
        ("arms.kl.val_top1", [..., [], [0.1, True, 0.2]]),
        ("arms.kl.val_macro_recall", [0.5, [0.5]]),
        ("arms.kl.val_nll", ["low", [0.5]]),
        ("arms.kl.mean", [..., "good", float("inf"), 75.0, -0.1]),
        ("arms.kl.std", ["x"]),
        ("arms.kl.ci95", ["x", [1], [None, None]]),
        ("arms.kl.family", [[], None]),
        ("arms.kl.learning_rate", ["high", None, [0.1], float("inf")]),
        ("arms.kl.weight_decay", ["high", True]),
        ("arms.kl.labeled_only", ["yes", 1]),
        ("arms.kl.class_weights", ["balanced", ["balanced"], 2.0]),
        ("arms.kl.macro_recall.test", [..., [0.5]]),
        ("selected", [3, {"kl": "nobody"}, {"kl": []}]),
        ("environment", [3]),
    ],
)
def test_a_value_that_is_none_is_named(path, values, tmp_path):
    for value in values:
        made = changed(path, value)
        found = schema.flaw(made)
        assert found == path if path != "arms" or value == {} else found == ""
    (tmp_path / "results.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match=r"results.json is not the results.json of a run.*: evaluate it again"):
        document.read(tmp_path / "results.json", "evaluate it again")


def test_unequal_classes_need_macro_recall():
    made = changed("dataset.class_counts", {"train": [90, 20, 20], "val": [4, 4, 4], "test": [4, 4, 4]})
    assert schema.flaw(made) == "arms.student_alone.val_macro_recall"
    for arm in made["arms"].values():
        arm["val_macro_recall"] = arm["val_top1"]
    assert schema.flaw(made) is None
    del made["arms"]["kl"]["macro_recall"]
    assert schema.flaw(made) == "arms.kl.macro_recall"
    del made["teacher"]["test"]["macro_recall"]
    assert schema.flaw(made) == "teacher.test.macro_recall"
