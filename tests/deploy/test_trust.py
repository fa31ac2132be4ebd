"""Calibration, prediction sets and "unknown" against what is known of made-up networks."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kdjax.deploy import trust as trusting
from kdjax.deploy.trust import Trust, fit, measure

CLASSES = 8


def made(count, seed, sharpness=2.0, boast=1.0):
    """Logits whose softmax is the truth, times `boast`; and labels drawn from that truth."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(count, CLASSES))
    labels = np.array([rng.choice(CLASSES, p=row) for row in softmax(logits, axis=1)])
    return boast * logits, labels


@pytest.mark.parametrize("boast", [0.4, 1.0, 3.0])
def test_the_temperature_takes_back_what_the_network_boasts(boast):
    logits, labels = made(6000, 1, boast=boast)
    found = fit(logits, labels)
    assert found.temperature == pytest.approx(boast, rel=0.06)
    for other in (0.9, 1.1):  # it is the minimum
        worse, best = (-log_softmax(logits / t, axis=1)[np.arange(6000), labels].mean() for t in (
            found.temperature * other, found.temperature))  # fmt: skip
        assert best < worse
    np.testing.assert_allclose(found.probabilities(logits), softmax(logits / found.temperature, axis=1), atol=1e-12)
    told = measure(found, *made(6000, 2, boast=boast))
    assert told["after"]["ece"] < 0.03 and told["after"]["nll"] <= told["before"]["nll"] + 1e-3
    if boast == 3.0:
        assert told["before"]["ece"] > 0.15


def test_sets_hold_the_true_class_as_often_as_asked_in_the_mean_over_splits():
    """Of a network of any quality: the guarantee is distribution-free. One that is mostly right has small sets."""
    for sharpness in (0.5, 2.0, 6.0):
        coverage, sizes = {level: [] for level in trusting.LEVELS}, []
        for seed in range(60):
            found = fit(*made(150, seed, sharpness, boast=2.0))
            logits, labels = made(300, 1000 + seed, sharpness, boast=2.0)
            for level in trusting.LEVELS:
                held = found.sets(found.probabilities(logits), level)
                coverage[level].append(held[np.arange(300), labels].mean())
                sizes.append(held.sum(1).mean())
        for level, found in coverage.items():
            assert np.mean(found) >= level - 3 * np.std(found) / np.sqrt(60)
            if sharpness == 0.5:  # scores are nearly continuous there, so that the sets are no larger than needed
                assert np.mean(found) <= level + 1 / 151 + 0.02
        assert np.mean(sizes) < {0.5: 8, 2.0: 4.5, 6.0: 1.7}[sharpness]


def test_a_set_is_what_a_loop_says():
    found = Trust(1.0, {0.9: 0.62}, 0.0, 0.0)
    probabilities = softmax(np.random.default_rng(0).normal(size=(50, CLASSES)) * 2, axis=1)
    for row, held in zip(probabilities, found.sets(probabilities, 0.9), strict=True):
        expected, before = np.zeros(CLASSES, bool), 0.0
        for k in np.argsort(-row):
            expected[k] = before <= 0.62
            before += row[k]
        np.testing.assert_array_equal(held, expected)


def test_with_too_few_images_a_set_holds_all_classes():
    found = fit(*made(12, 0))
    assert found.limits[0.95] == 1.0 and found.limits[0.9] < 1.0  # 13 · 0.95 > 12 ≥ 13 · 0.9
    assert found.sets(found.probabilities(made(5, 1)[0]), 0.95).all()
    # Rounding takes the sum of probabilities beyond 1, where most of them are tiny more often than not.
    sharp = 6 * np.random.default_rng(0).normal(size=(20_000, 21)).astype(np.float32)
    assert found.sets(found.probabilities(sharp), 0.95).all()


def test_unknown_are_the_least_confident_and_the_unlike():
    logits, labels = made(4000, 3)
    found = fit(logits, labels)
    told = measure(found, *made(4000, 4))
    assert told["unknown"]["share"] == pytest.approx(trusting.DOUBTFUL + trusting.UNLIKE, abs=0.015)
    assert told["unknown"]["answered_top1"] > told["unknown"]["unknown_top1"] + 0.2
    # An image that excites no class at all has a high energy, whatever its confidence.
    strange = np.full((1, CLASSES), -30.0)
    strange[0, 0] = 0.0
    assert found.unlike(strange)[0] and not found.doubtful(found.probabilities(strange))[0]
    assert found.unlike(logits).mean() == pytest.approx(trusting.UNLIKE, abs=0.002)


def test_few_images_that_are_all_right_do_not_make_a_network_boast():
    """The most probable temperature given the prior, found on a grid; without the prior it would be near zero."""
    logits, labels = 4.0 * np.eye(10), np.arange(10)
    grid = np.linspace(-1.5, 0.5, 20_001)
    surprise = np.log1p(9 * np.exp(-4 / np.exp(grid)))  # of each of the ten
    expected = np.exp(grid[np.argmin(10 * surprise + (grid / 0.25) ** 2 / 2)])
    found = fit(logits, labels).temperature
    assert found == pytest.approx(expected, rel=1e-3) and 0.7 < found < 0.9


def test_few_images_are_told():
    assert fit(*made(99, 5)).warning.startswith("with 99 validation images, ")
    assert fit(*made(100, 5)).warning is None
    document = json.loads(fit(*made(12, 5)).metadata()["trust"])
    del document["images"]  # of an earlier version
    assert Trust.from_metadata({"trust": json.dumps(document)}).warning is None


def test_metadata_are_read_back_and_damaged_ones_refused():
    found = fit(*made(200, 5))
    held = found.metadata()
    assert Trust.from_metadata({"classes": "[]", **held}) == found
    assert Trust.from_metadata({"classes": "[]"}) is None
    document = json.loads(held["trust"])
    for change in ({"temperature": 0}, {"temperature": float("nan")}, {"limits": []}, {"limits": {"x": 1}},
                   {"limits": {"0.9": 1.5}}, {"limits": {"9": 0.5}}, {"least_confidence": 7},
                   {"images": "ten"}):  # fmt: skip
        with pytest.raises(ValueError):
            Trust.from_metadata({"trust": json.dumps({**document, **change})})
    for text in ("{", "[]", "{}"):
        with pytest.raises(ValueError):
            Trust.from_metadata({"trust": text})
