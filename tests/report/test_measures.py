"""The sections of figures: what is drawn, under which name, with which numbers."""

import dataclasses
import json
import re

import numpy as np
import pytest
from helpers.report_material import ARMS, CLASSES, PARITY, material

from kdjax.objective.terms import TERMS
from kdjax.report import measures
from kdjax.report.markup import joined


def written(parts):
    return str(joined(*parts))


def panels(parts):
    """Alternative texts of the charts by heading."""
    found = re.findall(r"<h3>(.*?)</h3>.*?aria-label=\"(.*?)\"", written(parts), re.S)
    return dict(found)


def test_every_term_that_was_measured_has_a_curve_under_its_title():
    given = material()
    found = panels(measures.curves(given))
    titles = ["Weighted sum of the terms", *(TERMS[term].title for term in ("ce", "kl", "cosine"))]
    assert list(found) == [*titles, "Validation top-1, %", "The teacher&#x27;s cross-entropy, nats"]
    lines = given.records["distill"]
    for arm in ARMS:
        last = np.mean([lines[-2]["students"][f"{arm}/{seed}"]["kl"] for seed in (0, 1)])
        assert f"{arm} ends at {last:.3g}" in found[TERMS["kl"].title]
        assert f"{arm} ends at 60" in found["Validation top-1, %"]  # 0.2 an epoch, in percent


def test_a_seed_that_failed_ends_there_and_is_not_in_the_mean():
    """It keeps the variables that it had, and is measured on."""
    given = material(seeds=(0, 1, 2), failed=(("kl", 2),))
    for record in given.records["distill"]:
        lost = record["students"]["kl/2"]
        if record["kind"] == "validation":
            lost["top1"] = 0.05
        elif record["epoch"] > 1:
            record["students"]["kl/2"] = dict.fromkeys(lost)
    assert "kl ends at 60;" in panels(measures.curves(given))["Validation top-1, %"]
    (curve,) = (one for one in measures._series(given.records["distill"], {"kl": "s0"}, {"kl/2"})["validation", "top1"])
    assert [len(line) for line in curve.lines] == [3, 3] and [len(line) for line in curve.failed] == [1]
    said = "A seed that failed is drawn up to there, and is not in the mean."
    assert said in written(measures.curves(given)) and said not in written(measures.curves(material()))


@pytest.mark.parametrize(
    ("select", "said"),
    [
        (None, "Validation: 20 images, which choose the step of each student."),
        ("best", "Validation: 20 images, which choose the step of each student."),
        ("last", "Validation: 20 images; each student is that of its last step."),
    ],
)
def test_the_caption_says_what_validation_is_for(select, said):
    given = material()
    if select:
        given.results["config"]["student"] = {"select": select}
    assert said in written(measures.curves(given))


def with_arm(given, name, validation):
    """The same material with one more arm without a teacher, a copy of the student alone."""
    results = json.loads(json.dumps(given.results))
    results["arms"][name] = {**results["arms"]["student_alone"], "val_top1": validation}
    rows = [number for number, (arm, _) in enumerate(given.students) if arm == "student_alone"]
    more = lambda side: dataclasses.replace(side, students=np.concatenate([side.students, side.students[rows]]))
    return dataclasses.replace(
        given, results=results, students=[*given.students, *((name, given.students[row][1]) for row in rows)],
        test=more(given.test), validation=more(given.validation),
    )  # fmt: skip


def test_the_caption_of_curves_names_the_arms_whose_terms_with_the_teacher_are_not_measured():
    given = with_arm(material(), "labeled_alone", [0.5] * 2)
    every, but = "A term is drawn for every student, even if its weight is 0", "but terms that compare with the teacher"
    assert f"{every}. Validation" in written(measures.curves(given))
    for name in ("labeled_alone", "kl"):  # one that learns from the teacher sees the views that the teacher has seen
        given.results["arms"][name]["labeled_only"] = True
    assert f"{every}, {but} are not measured for labeled_alone. " in written(measures.curves(given))
    for name in ("kl", "kl_cosine"):
        del given.results["arms"][name]
    assert f"{every}. Validation" in written(measures.curves(given))  # there is no such term


@pytest.mark.parametrize(("validation", "baseline"), [(0.9, "labeled_alone"), (0.1, "student_alone")])
def test_recall_compares_teacher_baseline_and_leading_arm(validation, baseline):
    given = with_arm(material(), "labeled_alone", [validation] * 2)
    text = written(measures.classes(given))
    assert f"Recall of each class for teacher, {baseline}, kl_cosine;" in text


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ((), "{fewest} to {most} images per class, so one image is up to {worth:.1f} points."),
        (("town",), "so one image is up to {worth:.1f} points. The test images have none of town."),
        (("field", "sea"), "so one image is up to {worth:.1f} points. The test images have none of field and sea."),
        (("field", "forest", "sea"), "{most} images per class, so one image is up to {worth:.1f} points. "
         "The test images have none of field, forest and sea."),
    ],
)  # fmt: skip
def test_what_an_image_is_worth_is_that_of_the_classes_that_have_some(without, said):
    given = material()
    kept = np.array([CLASSES[label] not in without for label in given.test.labels])
    test = dataclasses.replace(
        given.test, labels=given.test.labels[kept], images=given.test.images[kept],
        teacher=given.test.teacher[kept], students=given.test.students[:, kept],
    )  # fmt: skip
    counts = [int((test.labels == label).sum()) for label in set(test.labels.tolist())]
    expected = said.format(fewest=min(counts), most=max(counts), worth=100 / min(counts))
    text = written(measures.classes(dataclasses.replace(given, test=test)))
    assert expected in text and ("have none" in text) == bool(without)


def test_where_classes_are_unequal_validation_is_drawn_by_what_chooses_the_step():
    given = material()
    given.results["dataset"]["class_counts"] = {"train": [10, 90, 90, 90], "val": [5] * 4, "test": [15] * 4}
    for arm in given.results["arms"].values():
        arm["val_macro_recall"] = arm["val_top1"]
    for record in [*given.records["distill"], *given.records["teacher"]]:
        for measured in record["students"].values() if record["kind"] == "validation" else ():
            measured["macro_recall"] = measured["top1"] / 2
    found = panels(measures.curves(given))
    assert "kl ends at 30" in found["Validation macro recall, %"] and "Validation top-1, %" not in found
    for record in given.records["distill"]:  # of an earlier version
        for measured in record["students"].values():
            measured.pop("macro_recall", None)
    assert "kl ends at 60" in panels(measures.curves(given))["Validation top-1, %"]


def test_where_classes_are_unequal_macro_recall_is_drawn_over_cost():
    given = material(seeds=(0, 1, 2), parity=PARITY)
    given.results["dataset"]["class_counts"] = {"train": [10, 90, 90, 90], "val": [5] * 4, "test": [15] * 4}
    for arm in given.results["arms"].values():
        arm["val_macro_recall"] = arm["val_top1"]
    found = panels(measures.cost(given))
    assert list(found)[:3] == [
        "Macro recall over parameters", "Macro recall over multiply-adds", "Top-1 over latency, exported kl",
    ]  # fmt: skip
    mean = given.results["arms"]["kl"]["macro_recall"]["mean"]
    teacher = given.results["teacher"]["test"]["macro_recall"]
    assert mean != given.results["arms"]["kl"]["mean"]
    said = found["Macro recall over parameters"]
    assert said.startswith("Test macro recall over") and f"kl {100 * mean:.2f} % at" in said
    assert f"teacher {100 * teacher:.2f} % at" in said and "macro recall, %" in written(measures.cost(given))


def test_recall_is_that_of_the_logits():
    given = material(seeds=(0,))
    text = re.sub(r"<svg.*?</svg>", "", written(measures.classes(given)), flags=re.S)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", text)
    table = {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in rows}
    networks = [given.test.teacher, *given.test.students]
    for number, name in enumerate(CLASSES):
        chosen = given.test.labels == number
        recalls = [100 * np.mean(one[chosen].argmax(-1) == number) for one in networks]
        assert table[name] == [str(chosen.sum()), *(f"{one:.1f}" for one in recalls)]


def test_accuracies_and_intervals_over_cost():
    given = material(seeds=(0, 1, 2), parity=PARITY)
    found = panels(measures.cost(given))
    arms = given.results["arms"]
    teacher = given.results["teacher"]["test"]["top1"]
    for heading, cost in (("Top-1 over parameters", (1.47e7, 2.25e6)), ("Top-1 over multiply-adds", (1.25e9, 2.45e7))):
        assert f"teacher {100 * teacher:.2f} % at {cost[0]:.3g}" in found[heading]
        for name, arm in arms.items():
            assert f"{name} {100 * arm['mean']:.2f} % at {cost[1]:.3g}" in found[heading]
    assert "student.int8.onnx 68.00 % at 0.9" in found["Top-1 over latency, exported kl"]
    assert written(measures.cost(given)).count('class="bar ') == 2 * len(arms)  # the teacher has no interval
    assert 'class="bar ' not in written(measures.cost(material(seeds=(0, 1))))  # nor have two seeds
    rows = re.findall(r"<tr><th scope=\"row\">(student\..*?)</th>(.*?)</tr>", written(measures.cost(given)))
    assert {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in rows} == {
        "student.onnx": ["0.90", "70.00", "100.00", "1.40", "35.20"],
        "student.int8.onnx": ["0.30", "68.00", "90.00", "0.90", "15.50"],
        "student.stablehlo": ["0.90", "–", "–", "–", "–"],
    }
    assert "onnxruntime 1.32 on one" in written(measures.cost(given))
    both = PARITY | {"machine": PARITY["machine"] | {"ai_edge_litert": "2.3.0"}}
    assert "onnxruntime 1.32 and ai-edge-litert 2.3.0 on one" in written(measures.cost(material(parity=both)))


def test_the_temperature_of_each_file_and_what_it_does():
    told = lambda temperature, before, after: (
        {"temperature": temperature}
        | {
            when: dict(zip(("nll", "ece"), values, strict=True))
            for when, values in (("before", before), ("after", after))
        }
    )
    trust = {"student.onnx": told(1.25, (0.5, 0.0625), (0.4375, 0.03)), "a<b": told(0.7, (None, None), (None, None))}
    said = written(measures.cost(material(parity=PARITY | {"trust": trust}))).partition("Calibration of")[2]
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", said)
    assert {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in rows} == {
        "student.onnx": ["1.250", "0.500", "0.438", "6.25", "3.00"],
        "a&lt;b": ["0.700", "-", "-", "–", "–"],
    }
    assert "Calibration of" not in written(measures.cost(material(parity=PARITY)))  # of an earlier version


def test_calibration_errors_are_means_over_the_seeds():
    given = material(seeds=(0, 1, 2), failed=(("kl", 1),))
    headings = re.findall(r"<h3>(.*?)</h3>", written(measures.calibration(given)))
    expected = [f"teacher, ECE {100 * given.results['teacher']['test']['ece']:.2f} %"]
    for name, arm in given.results["arms"].items():
        errors = [one["ece"] for one in arm["test_metrics"] if one]
        assert len(errors) == (2 if name == "kl" else 3)
        expected.append(f"{name}, ECE {100 * np.mean(errors):.2f} %")
    assert headings == [*expected, "Risk over coverage", "Error, %"]
