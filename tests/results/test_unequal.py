"""Where classes are unequal, macro recall comes first: its figures, its comparisons, and the words about it."""

import csv
import io

import numpy as np
import pytest
from helpers.run_results import TOP1, parts
from scipy import stats

from kdjax.report.summary import finding
from kdjax.results import comparison, document, intervals, metrics, notes, tables

COUNTS = {"train": [60, 8, 30], "val": [20, 20, 20], "test": [40, 8, 12]}
MACRO = {
    "student_alone": [0.50, 0.53, 0.51],
    "kl": [0.60, 0.66, 0.61],
    "cosine": [0.52, 0.51, 0.55],
    "kl_cosine": [0.58, 0.69, 0.65],
}


def given(counts=COUNTS, config=None):
    """A made-up run whose macro recalls are not its top-1, and in which the baselines are of two minds."""
    made = parts({**TOP1, "labeled_alone": TOP1["student_alone"]}, **({"config": config} if config else {}))
    made["dataset"]["class_counts"] = counts
    made["teacher"]["test"]["macro_recall"] = 0.7
    for name, arm in made["arms"].items():
        macro = MACRO.get(name, [0.4, 0.4, 0.4])
        arm["test"] = [{**one, "macro_recall": value} for one, value in zip(arm["test"], macro, strict=True)]
        arm["val_top1"] = [0.9 if name == "labeled_alone" else 0.5] * 3
        arm["val_macro_recall"] = [0.5 if name == "labeled_alone" else 0.6] * 3
    return made


@pytest.mark.parametrize(
    ("train", "test", "judged"),
    [
        ([9, 3], [5, 5], "top1"),  # three times is not more than three times
        ([10, 3], [5, 5], "macro_recall"),
        ([10, 3], [0, 0], "macro_recall"),  # there are no test images
        ([5, 5], [10, 3], "top1"),  # it decides what steps are chosen by, in which test images have no say
        (None, None, "top1"),  # an older version counted nothing
    ],
)
def test_more_than_three_times_is_unequal(train, test, judged):
    counts = {"class_counts": {"train": train, "val": [1, 99], "test": test}} if train else {}
    assert comparison.judged_by(counts) == judged


def test_macro_recall_is_the_mean_over_the_classes_that_there_are():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(90, 4)), rng.choice([-1, 0, 1, 3], 90, p=[0.1, 0.7, 0.15, 0.05])
    right = logits.argmax(1) == labels
    expected = np.mean([right[labels == label].mean() for label in (0, 1, 3)])
    assert metrics.classification(logits, labels)["macro_recall"] == pytest.approx(expected, rel=1e-12)
    assert metrics.classification(logits, np.full(90, -1))["macro_recall"] is None


def test_comparisons_are_of_macro_recall_as_they_are_of_top1():
    out = document.build(**given())["arms"]
    raw = {name: stats.ttest_rel(MACRO[name], MACRO["student_alone"]).pvalue for name in ("kl", "cosine", "kl_cosine")}
    raw["labeled_alone"] = stats.ttest_rel([0.4] * 3, MACRO["student_alone"]).pvalue
    for name, values in MACRO.items():
        found = out[name]["macro_recall"]
        assert found["test"] == values
        assert {key: found[key] for key in ("mean", "std", "ci95")} == intervals.accuracies(values)
        if name != "student_alone":
            difference = np.subtract(values, MACRO["student_alone"])
            assert found["minus_alone"]["mean"] == pytest.approx(difference.mean())
    # Holm: the largest of four is not multiplied.
    largest = max(raw, key=raw.get)
    smallest = min(raw, key=raw.get)
    assert out[largest]["macro_recall"]["p_vs_alone"] == pytest.approx(raw[largest])
    assert out[smallest]["macro_recall"]["p_vs_alone"] == pytest.approx(4 * raw[smallest])
    # Of top-1 the same arm is the baseline, chosen by macro recall on validation.
    assert out["student_alone"]["minus_alone"] is None and out["labeled_alone"]["minus_alone"]["mean"] == 0
    equal = document.build(**given({**COUNTS, "train": [9, 9, 9], "test": [9, 9, 9]}))["arms"]
    assert equal["labeled_alone"]["minus_alone"] is None and equal["student_alone"]["minus_alone"] is not None


def of_two_minds(alone=0.6, labeled=0.5):
    """Of one family the first trial is better by top-1 on validation, the second by macro recall."""
    made = given(config={"data_seed": 0, "seeds": (0, 1, 2)})
    for name, top1, macro in (("cosine", 0.9, 0.3), ("kl_cosine", 0.4, 0.8)):
        made["arms"][name] |= {"family": "soft", "val_top1": [top1] * 3, "val_macro_recall": [macro] * 3}
    for name, macro in (("student_alone", alone), ("labeled_alone", labeled)):
        made["arms"][name]["val_macro_recall"] = [macro] * 3
    return document.build(**made)


def test_trials_are_selected_by_what_the_run_is_judged_by():
    assert of_two_minds()["selected"]["soft"] == "kl_cosine"
    assert document.combine([of_two_minds()] * 2)["selected"]["soft"] == ["kl_cosine"] * 2


def test_over_splits_gains_are_over_the_baseline_that_is_best_in_the_mean_of_all():
    arms = document.combine([of_two_minds(0.9, 0.6), of_two_minds(0.1, 0.6)])["arms"]
    assert arms["labeled_alone"]["minus_alone"] is None and arms["student_alone"]["minus_alone"] is not None


def test_baselines_that_lost_seeds_and_did_better_are_judged_as_the_run_is():
    arm = lambda top1, macro: {"weights": {"ce": 1.0}, "val_top1": top1, "val_macro_recall": macro}
    arms = {"alone": arm([0.9, 0.9], [0.5, 0.5]), "other": arm([0.1, None], [0.8, None])}
    assert comparison.better_baselines(arms, "alone", "macro_recall") == ["other"]
    assert comparison.better_baselines(arms, "alone", "top1") == []


def test_the_bootstrap_draws_within_the_classes():
    labels = np.repeat([0, 1, 2], [900, 90, 60])
    rng = np.random.default_rng(1)
    b = rng.random((2, len(labels))) < 0.6
    a = b | (rng.random((2, len(labels))) < np.array([0.1, 0.5, 0.8])[labels])
    difference = a.mean(0) - b.mean(0)
    found = intervals.paired_bootstrap(a, b, labels)
    within = [difference[labels == label] for label in range(3)]
    center = np.mean([one.mean() for one in within])
    assert found["difference"] == pytest.approx(center) and abs(center - difference.mean()) > 0.05
    # A mean of independent means: their variances add up.
    half = 1.96 * np.sqrt(sum(one.var() / len(one) for one in within)) / 3
    assert found["ci95"] == pytest.approx([center - half, center + half], abs=4e-3)
    assert intervals.paired_bootstrap(a, b, 0 * labels) == intervals.paired_bootstrap(a, b)
    # A class of one image is in every draw.
    single = intervals.paired_bootstrap(np.array([[True, True]]), np.array([[False, True]]), np.array([0, 1]))
    assert single == {"difference": 0.5, "ci95": [0.5, 0.5]}


def test_a_document_holds_that_bootstrap():
    made, labels = given(), np.repeat([0, 1, 2], [40, 8, 12])
    rng = np.random.default_rng(0)
    for arm in made["arms"].values():
        arm["correct"] = rng.random((3, 60)) < 0.6
    kl = document.build(**made, labels=labels)["arms"]["kl"]
    pair = made["arms"]["kl"]["correct"], made["arms"]["student_alone"]["correct"]
    assert kl["macro_recall"]["bootstrap"] == intervals.paired_bootstrap(*pair, labels)
    assert kl["bootstrap"] == intervals.paired_bootstrap(*pair)
    flat = " ".join(notes.table_notes(document.build(**made, labels=labels)))
    assert (
        "Points of macro recall over student_alone, and 95 % interval of a paired bootstrap over the test images of"
        in flat
    )


def test_the_table_begins_with_macro_figures_and_says_why():
    out = document.build(**given())
    header, rows = tables.table_rows(out)
    assert header[4:] == [
        "T", "macro recall %", "95% interval", "p (Holm)", "top-1 %", "NLL", "ECE %", "params", "MACs",
    ]  # fmt: skip
    by_name = {row[0]: row for row in rows}
    assert by_name["teacher vgg16_bn"][5] == "70.00" and by_name["teacher vgg16_bn"][8] == "90.00"
    assert by_name["kl"][5] == "62.33 ± 3.21" and by_name["kl"][8] == "76.67"
    said = notes.table_notes(out)
    assert said[0].startswith(
        "Classes are unequal, 8 to 60 labeled training images and 8 to 40 labeled test images per class, so macro "
        "recall (balanced accuracy), the mean over the classes, comes first"
    )
    assert said[1] == (
        "400 test images: one of them is 0.83 points of macro recall in the largest class and 4.17 in the smallest."
    )
    few = notes.table_notes(document.build(**given({**COUNTS, "test": [20, 20, 20]})))
    assert "60 labeled training images and 20 labeled test images per class" in few[0]
    assert few[1] == "400 test images: one of them is 1.67 points of macro recall."
    flat = " ".join(said)
    assert "points of test macro recall: student_alone -18.67" in flat and "points of top-1" not in flat
    for text in (tables.table(out), tables.markdown(out)):
        assert "Classes are unequal" in text and "macro recall %" in text
    assert max(map(len, tables.table(out).splitlines())) < 120
    equal = document.build(**given({**COUNTS, "train": [9, 9, 9], "test": [9, 9, 9]}))
    assert "test top-1 %" in tables.table_rows(equal)[0] and "unequal" not in tables.table(equal)


def test_the_csv_begins_with_them_too():
    read = lambda out: list(csv.DictReader(io.StringIO(tables.comma_separated(out))))
    rows = read(document.build(**given()))
    names = list(rows[0])
    start = names.index("val_macro_recall")
    assert names[start : start + 5] == [
        "val_macro_recall",
        "val_top1",
        "test_macro_recall",
        "test_macro_f1",
        "test_top1",
    ]
    row = next(row for row in rows if (row["arm"], row["seed"]) == ("kl", "1"))
    assert [float(row[name]) for name in names[start : start + 3]] == [0.6, 0.5, 0.66]


def test_the_report_begins_with_them_too():
    said = finding(document.build(**given()))
    assert "is right on 62.33 % of the 400 test images, averaged over the classes (macro recall), student_alone" in said
    assert "on 51.33 %, the teacher on 70.00 %." in said and "the difference is +11.00 points" in said


def test_over_splits_they_are_compared_too():
    runs = [
        document.build(**given(counts, {"data_seed": seed, "seeds": (0, 1, 2)}))
        for seed, counts in enumerate((COUNTS, {**COUNTS, "train": [9, 9, 9], "test": [9, 9, 9]}, COUNTS))
    ]  # unequal on two of three
    out = document.combine(runs)
    assert out["measure"] == "macro_recall" and out["teacher"]["test_macro_recall"] == [0.7] * 3
    assert out["arms"]["kl"]["test_macro_recall"] == pytest.approx([np.mean(MACRO["kl"])] * 3)
    assert out["arms"]["student_alone"]["minus_alone"] is None
    text = tables.over_splits(out)
    assert "test macro recall %" in text
    assert "Classes are unequal, so macro recall (balanced accuracy), the mean over the classes, takes the place" in (
        " ".join(text.split())
    )
    assert "unequal" not in tables.over_splits(document.combine(runs[1:2]))
