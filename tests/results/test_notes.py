"""The sentences below the table, against figures by hand."""

import numpy as np
import pytest
from helpers.run_results import TOP1, parts

from kdjax.results import document, notes, tables


def said(**given):
    return notes.table_notes(document.build(**{**parts(), **given}))


def test_figures_of_unfinished_students_are_marked():
    student = parts()["student"]
    assert "NOT FINAL" not in " ".join(said(student=student | {"step": 8, "total_steps": 8}))
    assert "NOT FINAL" not in " ".join(said())
    found = said(student=student | {"step": 6, "total_steps": 8})
    assert found[0] == "NOT FINAL: the students are at step 6 of 8."


@pytest.mark.parametrize(
    ("count", "words"), [(1, "One seed proves nothing"), (2, "takes 3 seeds"), (3, "Wilson's form")]
)
def test_what_the_seeds_can_show_is_said(count, words):
    top1 = {name: values[:count] for name, values in TOP1.items()}
    found = " ".join(notes.table_notes(document.build(**parts(top1, seeds=tuple(range(count))))))
    every = ("One seed proves nothing", "takes 3 seeds", "Wilson's form")
    assert [one for one in every if one in found] == [words]
    assert ("p: two-sided" in found) == (count > 2) and "one split and one teacher" in found


def test_without_spread_it_is_not_said_that_seeds_are_too_few():
    some = {**TOP1, "kl": [0.8, 0.8, 0.8]}
    for top1 in (some, {name: [0.8] * 3 for name in TOP1}):
        found = " ".join(notes.table_notes(document.build(**parts(top1))))
        assert "takes 3 seeds" not in found and "Identical seeds have no spread, and so no interval." in found
    assert "all alike" not in " ".join(said())


def test_against_which_arm_is_said_where_there_is_a_choice():
    given = parts({**TOP1, "labeled_alone": [0.7, 0.7, 0.8]})
    given["arms"]["labeled_alone"]["val_top1"] = [0.9] * 3
    found = notes.table_notes(document.build(**given))
    assert (
        "Gains are over labeled_alone: of student_alone and labeled_alone, which use no teacher, none does better "
        "on validation."
    ) in found
    assert any("paired t-test against labeled_alone" in one and "over 4 arms" in one for one in found)
    assert not any("Gains are over" in one for one in said())
    without = {name: one for name, one in given["arms"].items() if name.endswith("alone")}
    assert not any("Gains are over" in one for one in notes.table_notes(document.build(**{**given, "arms": without})))


def test_a_baseline_that_was_passed_over_for_its_failed_seeds_is_said():
    given = parts({**TOP1, "student_alone": [0.8, 0.82, None], "labeled_alone": [0.5, 0.52, 0.54]})
    given["arms"]["student_alone"]["val_top1"] = [0.9, 0.9, None]
    assert (
        "Gains are over labeled_alone: of student_alone and labeled_alone, which use no teacher, it lost the fewest "
        "seeds. With the seeds that succeeded student_alone did better on validation, so a gain over labeled_alone "
        "does not show that distillation helps."
    ) in notes.table_notes(document.build(**given))


def test_settings_that_differ_from_those_of_the_baseline_are_told():
    given = parts()
    for arm in given["arms"].values():
        arm |= {"learning_rate": 1e-3, "weight_decay": 0.01}
    assert not any("more than their losses" in note for note in notes.table_notes(document.build(**given)))
    given["arms"]["kl"] |= {"learning_rate": 3e-3, "class_weights": [0.5, 1.0, 2.25, 1.0]}
    for name in ("cosine", "kl_cosine"):
        given["arms"][name] |= {"labeled_only": True}
    out = document.build(**given)
    expected = (
        "Some arms differ from student_alone in more than their losses, which may explain a gain as well: kl with "
        "learning_rate 0.003 and 0.001, class_weights 0.5, 1, 2.25, … and none; cosine and kl_cosine with labeled_only "
        "True and False."
    )
    assert expected in notes.table_notes(out) and expected in " ".join(tables.table(out).split())
    del given["arms"]["student_alone"]
    assert not any("more than their losses" in note for note in notes.table_notes(document.build(**given)))


def test_a_baseline_of_the_labeled_images_is_told_by_itself():
    given = parts()
    given["arms"]["student_alone"] |= {"labeled_only": True}
    told = notes.table_notes(document.build(**given))
    expected = "student_alone sees the labeled images only, so a gain over it includes what the other images teach."
    assert expected in told and not any("more than their losses" in note for note in told)
    for arm in given["arms"].values():
        arm |= {"labeled_only": True}
    assert not any("labeled images only" in note for note in notes.table_notes(document.build(**given)))


def test_symmetries_are_said_with_their_means():
    given = parts()
    given["arms"]["kl"]["symmetries_top1"] = [0.8, None, 0.9]
    (found,) = (one for one in notes.table_notes(document.build(**given)) if "symmetries" in one)
    assert found.endswith(f"kl 85.00 ± {100 * np.std([0.8, 0.9], ddof=1):.2f} %.")


def test_one_image_is_worth_its_points():
    for tested, points in ((400, "0.25"), (2700, "0.037")):
        dataset = parts()["dataset"] | {"splits": {"train": 1, "val": 1, "test": tested}}
        assert f"{tested} test images: one of them is {points} points of top-1." in said(dataset=dataset)


def test_the_teacher_is_compared_and_counted():
    found = said()
    assert "The teacher was run on 4800 images for all students together." in found
    gaps = "student_alone -18.00, kl -13.33, cosine -17.33, kl_cosine -10.00"
    assert f"Student minus teacher, points of test top-1: {gaps}." in found
    teacher = parts()["teacher"] | {"forward_images": None}
    assert not any("The teacher was run" in one for one in said(teacher=teacher))


STUDENT = {"params": 2_000_000, "macs": 10_000_000, "activation_bytes": 500_000}
TEACHER = {"params": 14_000_000, "macs": 1_000_000_000, "activation_bytes": 2_000_000, "head": "average"}
HEADS = {"average": {"params": 14_000_000}, "fc": {"params": 134_000_000}}
ACTIVATIONS = " Activations: the largest input and output of one layer together, float32, one image."
RATIOS = "100 times the multiply-adds (1 G to 10 M), 4 times the bytes of activations (2 M to 500 k)."


def test_compression_is_said_with_and_without_the_hidden_layers():
    assert notes.compression({**TEACHER, "heads": HEADS}, STUDENT) == (
        f"Teacher to student: 7 times the parameters (14 M to 2 M), {RATIOS}{ACTIVATIONS} With VGG16's fully connected "
        "head the teacher would have 134 M parameters, 67 times the student's."
    )
    assert notes.compression({**TEACHER, "params": 134_000_000, "head": "fc", "heads": HEADS}, STUDENT) == (
        f"Teacher to student: 67 times the parameters (134 M to 2 M), {RATIOS}{ACTIVATIONS} Without its fully "
        "connected head the teacher would have 14 M parameters, 7 times the student's."
    )
    assert notes.compression({"params": None, "macs": None}, STUDENT) == "The size of the teacher is not known."
    large = {"params": 5_000_000_000, "macs": None, "head": "average", "heads": {"fc": {"params": 6_000_000_000}}}
    assert notes.compression(large, STUDENT) == (
        "Teacher to student: 2 500 times the parameters (5 G to 2 M). With VGG16's fully connected head the teacher "
        "would have 6 G parameters, 3 000 times the student's."
    )


def test_compression_is_the_last_note_of_the_table():
    expected = (
        "Teacher to student: 9.13 times the parameters (3.69 M to 404 k), "
        "31.8 times the multiply-adds (178 M to 5.6 M)."
    )
    assert said()[-1] == expected
    assert expected in " ".join(tables.table(document.build(**parts())).split())
