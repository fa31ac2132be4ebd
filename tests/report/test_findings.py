"""What the report finds, against plain loops."""

import numpy as np
import pytest
from helpers.report_material import random_logits

from kdjax.report import findings
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


def test_the_risk_of_the_surest_answers_against_loops():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 200)
    logits = random_logits(rng, labels, 1, 3)[0]
    logits[::7] = logits[0]  # as sure as each other
    found = findings.risk_over_coverage(logits, labels, points=181)
    np.testing.assert_allclose(found[:, 0], np.arange(20, 201) / 2)
    sure, right = logits.max(-1), logits.argmax(-1) == labels
    for threshold in np.unique(sure):
        answered = sure >= threshold
        if (count := int(answered.sum())) >= 20:
            assert found[count - 20, 1] == pytest.approx(100 * (1 - right[answered].mean()))
    assert found[-1, 1] == pytest.approx(100 * (1 - right.mean()))


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
    assert findings.first_examples(np.array([-1, 1, 0, 1, 3]), [0, 1, 2, 3]) == [2, 1, 4]
