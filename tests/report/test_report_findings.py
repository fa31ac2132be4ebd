"""What the report finds, against plain loops, and how it draws and words it."""

import numpy as np
import pytest
from helpers.report_material import random_logits

from kdjax.report import charts, findings, summary
from kdjax.results import metrics


def test_calibration_bins_are_those_of_the_calibration_error():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 200)
    logits = random_logits(rng, labels, 1, 3)
    bins = findings.calibration(logits, labels)
    assert sum(one.count for one in bins) == 200
    error = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / 200
    assert error == pytest.approx(metrics.classification(logits[0], labels)["ece"], abs=1e-12)
    pooled = findings.calibration(np.concatenate([logits, logits]), labels)
    assert [one.count for one in pooled] == [2 * one.count for one in bins]
    assert [one.accuracy for one in pooled] == pytest.approx([one.accuracy for one in bins])


def test_confusions_against_loops():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, 50)
    logits = random_logits(rng, labels, 3, 2)
    predicted = logits.argmax(-1)
    counted = {}
    for network in range(3):
        for image in range(50):
            key = (labels[image], predicted[network, image])
            counted.setdefault(key, []).append(image)
    matrix = findings.confusion(logits, labels)
    assert all(matrix[true, other] == len(counted.get((true, other), ())) for true in range(4) for other in range(4))
    pairs = findings.confused_pairs(predicted, labels)
    wrong = {key: images for key, images in counted.items() if key[0] != key[1]}
    assert {(one.true, one.predicted): one.mistakes for one in pairs} == {key: len(v) for key, v in wrong.items()}
    assert [one.mistakes for one in pairs] == sorted((one.mistakes for one in pairs), reverse=True)
    for one in pairs:
        images = wrong[one.true, one.predicted]
        assert dict(zip(one.images, one.networks, strict=True)) == {image: images.count(image) for image in images}
        assert list(one.networks) == sorted(one.networks, reverse=True)


def test_hardest_and_suspects_against_loops():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 400)
    teacher, students = random_logits(rng, labels, 1, 1)[0], random_logits(rng, labels, 2, 1)
    losses = [-(students[0, i, labels[i]] + students[1, i, labels[i]]) / 2 for i in range(400)]
    order = sorted(range(400), key=lambda i: -losses[i])
    found = findings.hardest(students, labels, 7)
    assert [image for image, _ in found] == order[:7]
    assert [loss for _, loss in found] == pytest.approx([losses[i] for i in order[:7]])
    expected = {}
    for i in range(400):
        named = {int(one[i].argmax()) for one in (teacher, *students)}
        if len(named) == 1 and labels[i] not in named:
            (other,) = named
            expected[i] = (other, np.mean([np.exp(one[i, other]) for one in (teacher, *students)]))
    found = findings.suspect_labels(teacher, students, labels)
    assert expected and {image: (other, pytest.approx(p)) for image, other, p in found} == expected
    assert [p for *_, p in found] == sorted((p for *_, p in found), reverse=True)


def test_votes_and_examples():
    assert findings.votes(np.array([2, 0, 2, 1, 0, 2])) == [(2, 3), (0, 2), (1, 1)]
    assert findings.one_of_each(np.array([-1, 1, 0, 1, 3]), [0, 1, 2, 3]) == [2, 1, 4]


def gain(mean, ci95=None, p=None, boot=None):
    """results.json with an arm that differs from the student alone by `mean`."""
    arm = lambda top1, **more: {
        "weights": {"ce": 1.0, "kl": 0.0}, "val_top1": [0.5, 0.5], "test_top1": [top1, top1], "mean": top1,
        "minus_alone": None, "p_vs_alone": None, "bootstrap": None, **more,
    }  # fmt: skip
    taught = arm(0.8 + mean, minus_alone={"mean": mean, "ci95": ci95}, p_vs_alone=p, bootstrap=boot and {"ci95": boot})
    taught["weights"] = {"ce": 1.0, "kl": 1.0}
    return {
        "arms": {"student_alone": arm(0.8), "kl": taught},
        "dataset": {"splits": {"test": 100}},
        "teacher": {"test": {"top1": 0.9}},
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.05, [0.01, 0.09], 0.03), "distillation helps"),
        ((-0.05, [-0.09, -0.01], 0.03), "distillation harms"),
        ((0.05, [-0.01, 0.11], 0.2), "contains 0: these seeds do not show"),
        ((0.05, [0.01, 0.09], 0.08), "weak evidence"),
        ((0.05, None, None, [0.01, 0.09]), "one seed proves nothing"),
    ],
)
def test_the_finding_carries_its_uncertainty(arguments, said):
    text = summary.finding(gain(*arguments))
    assert said in text and "80.00 %" in text and "the teacher on 90.00 %" in text
    assert f"{100 * arguments[0]:+.2f} points".replace("-", "−") in text


def test_the_leading_arm_is_chosen_on_validation_among_the_taught():
    found = gain(-0.1)
    found["arms"]["student_alone"]["val_top1"] = [0.9, 0.9]
    assert summary.leading_arm(found) == "kl"
    found["arms"]["other"] = {**found["arms"]["kl"], "val_top1": [0.6, None], "mean": 0.1}
    assert summary.leading_arm(found) == "other"
    found["arms"]["other"]["mean"] = None
    assert summary.leading_arm(found) == "kl"


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0, 15, False),
        (56, 98.2, False),
        (0.98, 0.981, False),
        (0.0053, 41.2, True),
        (1.1, 1.7, True),
        (2.2e6, 1.5e7, True),
    ],
)
def test_ticks_are_few_round_values_inside(low, high, log):
    ticks = charts.Axis(low, high, 0, 100, log).ticks(5)
    assert 2 <= len(ticks) <= 10 and ticks == sorted(set(ticks))
    assert all(low <= one <= high and float(f"{one:.4g}") == pytest.approx(one) for one in ticks)


def test_a_curve_is_the_mean_of_the_seeds_that_came_to_the_end():
    lines = (np.array([[1, 2.0], [2, 1.0]]), np.array([[1, 4.0], [2, 3.0]]), np.array([[1, 90.0]]))
    one = charts.Series("kl", "s0", lines)
    np.testing.assert_array_equal(one.mean, [[1, 3], [2, 2]])
    drawn = charts.curves([one], alt="losses", log=True)
    assert drawn.count("<path") == 4 and "log scale" in drawn
    assert "log scale" not in charts.curves([charts.Series("kl", "s0", (lines[0] - 1,))], alt="", log=True)


def test_places_on_an_axis():
    assert charts.Axis(0, 10, 40, 240).place(2.5) == pytest.approx(90)
    assert charts.Axis(1, 100, 200, 0, log=True).place(10) == pytest.approx(100)
