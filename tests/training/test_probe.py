"""The fitted head against SciPy's L-BFGS in float64, and the nearest neighbors against a loop."""

import functools

import jax
import numpy as np
import pytest
from helpers.products import precisions
from scipy.optimize import minimize
from scipy.special import log_softmax

from kdjax.training import probe as probing
from kdjax.training.probe import nearest, probe, regression

CLASSES, LENGTH = 3, 5


def material(count, seed, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centers = np.random.default_rng(0).normal(size=(CLASSES, LENGTH))
    return (centers[labels] + noise * rng.normal(size=(count, LENGTH))).astype(np.float32), labels


@pytest.mark.parametrize("strength", [1e-3, 0.1])
def test_the_regression_equals_scipy(strength):
    features, labels = material(60, 1)

    def loss(flat):
        kernel, bias = flat[:-CLASSES].reshape(LENGTH, CLASSES), flat[-CLASSES:]
        log_p = log_softmax(features @ kernel + bias, axis=1)
        return -log_p[np.arange(60), labels].mean() + strength / 2 * (kernel**2).sum()

    expected = minimize(loss, np.zeros((LENGTH + 1) * CLASSES), tol=1e-12).x
    kernel, bias = regression(features, labels, strength, classes=CLASSES)
    np.testing.assert_allclose(kernel, expected[:-CLASSES].reshape(LENGTH, CLASSES), atol=2e-3)
    # The bias has no penalty, so an offset common to all classes is free.
    np.testing.assert_allclose(bias - bias.mean(), expected[-CLASSES:] - expected[-CLASSES:].mean(), atol=2e-3)
    found = np.concatenate([np.ravel(kernel), bias])
    assert loss(found) < loss(expected) + 1e-6


def test_no_accelerator_rounds_the_factors_of_a_product():
    """With factors of bfloat16 the gradient's norm would stay above the tolerance."""
    program = jax.make_jaxpr(functools.partial(regression, classes=CLASSES))(*material(6, 1), 0.1)
    assert set(precisions(program)) == {2 * (jax.lax.Precision.HIGHEST,)}


@pytest.mark.slow
def test_a_weight_counts_as_so_many_copies(monkeypatch):
    """Three copies of each example of a class are one that weighs three times as much."""
    features, labels = material(60, 1)
    copies = np.repeat(np.arange(60), np.where(labels == 1, 3, 1))
    expected = regression(features[copies], labels[copies], 0.1, classes=CLASSES)
    weights = np.float32([1, 3, 1]) * 60 / len(copies)
    found = regression(features, labels, 0.1, classes=CLASSES, weights=weights)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            mine - mine.mean(-1, keepdims=True), theirs - theirs.mean(-1, keepdims=True), atol=2e-3
        )
    monkeypatch.setattr(probing, "STRENGTHS", (0.1,))
    plain, weighed = (probe((features, labels), (features, labels), classes=CLASSES, weights=w) for w in ((), weights))
    said = lambda one: (features @ one.kernel + one.bias).argmax(1) == 1
    assert said(weighed).sum() > said(plain).sum()


@pytest.mark.parametrize(("measure", "strength"), [("top1", 0.1), ("macro_recall", 1.0)])
def test_where_classes_are_unequal_macro_recall_chooses_the_strength(monkeypatch, measure, strength):
    """One head takes all eight for the first class, which has seven of them; the other is right on half of those."""
    heads = {0.1: (np.zeros((1, 2)), np.array([1.0, 0.0])), 1.0: (np.array([[-1.0, 1.0]]), np.zeros(2))}
    monkeypatch.setattr(probing, "STRENGTHS", tuple(heads))
    monkeypatch.setattr(probing, "regression", lambda features, labels, strength, **options: heads[strength])
    train = np.float32([[-1], [1]]), np.array([0, 1])
    validation = np.repeat(train[0], 4, axis=0), np.array([0] * 7 + [1])
    assert probe(train, validation, classes=2, selected_by=measure).strength == strength


def test_the_strength_is_chosen_on_validation_and_features_need_not_be_standardized(monkeypatch):
    train, validation = material(30, 1, noise=1.5), material(300, 2, noise=1.5)
    stretch, shift = np.array([1, 100, 0.01, 3, 0]), np.array([0, -500, 4, 1, 7])  # the last tells nothing
    scaled = lambda data: ((data[0] * stretch + shift).astype(np.float32), data[1])
    fitted = probe(scaled(train), scaled(validation), classes=CLASSES)
    logits = scaled(validation)[0] @ fitted.kernel + fitted.bias
    assert fitted.linear_top1 == pytest.approx((logits.argmax(1) == validation[1]).mean())
    each = {}
    for strength in probing.STRENGTHS:
        monkeypatch.setattr(probing, "STRENGTHS", (strength,))
        each[strength] = probe(scaled(train), scaled(validation), classes=CLASSES).linear_top1
    assert fitted.linear_top1 == max(each.values()) == each[fitted.strength]
    assert min(each.values()) < max(each.values()) and np.isfinite(fitted.kernel).all()


def test_nearest_neighbors_vote(monkeypatch):
    features, labels = material(40, 1)
    queries, truth = material(50, 2)
    for count in (1, 7, 100):
        expected = []
        for query in queries:
            cosine = features @ query / np.linalg.norm(features, axis=1)
            order = np.argsort(-cosine)[:count]
            votes = np.bincount(labels[order], minlength=CLASSES)
            tied = np.flatnonzero(votes == votes.max())
            expected.append(next(iter(tied)) if len(tied) == 1 else -1)
        found, expected = nearest(features, labels, queries, count), np.array(expected)
        np.testing.assert_array_equal(found[expected >= 0], expected[expected >= 0])
    whole = nearest(features, labels, queries, 7)
    monkeypatch.setattr(probing, "SIMILARITIES", 130)  # three queries at a time
    np.testing.assert_array_equal(nearest(features, labels, queries, 7), whole)
    assert (nearest(features, labels, features, 1) == labels).all()
    assert (nearest(features, labels, queries, 2) == nearest(features, labels, queries, 1)).all()
    assert (nearest(features, labels, queries, 7) == truth).mean() > 0.5


@pytest.mark.parametrize("constant", [0.37, 5.3, 0.0123])
def test_a_feature_that_is_the_same_for_many_examples_says_nothing(monkeypatch, constant):
    """A mean of thousands that is added up in float32 is off by more than rounding, and the feature seems to vary."""
    features = np.random.default_rng(0).normal(3, 0.1, (27_000, 4)).astype(np.float32)
    features[:, 0] = constant
    labels, seen = np.arange(27_000) % CLASSES, []

    def fitted(features, labels, strength, **options):
        seen.append(np.asarray(features))
        return np.ones((4, CLASSES), np.float32), np.zeros(CLASSES, np.float32)

    monkeypatch.setattr(probing, "STRENGTHS", (0.1,))
    monkeypatch.setattr(probing, "regression", fitted)
    head = probe((features, labels), (features[:9], labels[:9]), classes=CLASSES)
    exact = features[:, 1:].astype(np.float64)
    np.testing.assert_array_equal(seen[0][:, 0], 0)
    np.testing.assert_allclose(seen[0][:, 1:], (exact - exact.mean(0)) / exact.std(0), atol=2e-6)
    assert not head.kernel[0].any() and head.kernel.dtype == head.bias.dtype == seen[0].dtype == np.float32
    np.testing.assert_allclose(head.bias, -(exact.mean(0) / exact.std(0)).sum(), rtol=1e-6)
