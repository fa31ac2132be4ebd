"""Measures against hand-computed cases, PyTorch and SciPy."""

import json

import numpy as np
import pytest
from scipy import special, stats

from kdjax.results import metrics


def sample(n=200, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (n, classes)), rng.integers(0, classes, n)


def test_a_case_by_hand():
    # Predictions 0, 0, 1, 1, 0 for labels 0, 0, 0, 1, -1.
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.05, 0.9, 0.05], [0.9, 0.05, 0.05]]))
    out = metrics.classification(logits, np.array([0, 0, 0, 1, -1]))
    assert out["count"] == 4
    assert out["top1"] == 0.75
    assert out["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert out["per_class_recall"] == [2 / 3, 1.0, None]
    assert out["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # the third class occurs nowhere
    assert out["nll"] == pytest.approx(-np.log([0.8, 0.6, 0.2, 0.9]).mean())
    # Each of the four confidences .8, .6, .7, .9 is alone in its bin.
    assert out["ece"] == pytest.approx((0.2 + 0.4 + 0.7 + 0.1) / 4)


def test_a_class_only_predicted_counts_as_zero_in_macro_f1():
    out = metrics.classification(np.array([[1.0, 0, 0], [0, 1.0, 0]]), np.array([0, 0]))
    assert out["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_against_torch_and_counting():
    torch = pytest.importorskip("torch")
    logits, labels = sample()
    out = metrics.classification(logits.astype(np.float32), labels)
    nll = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits.astype(np.float32)).double(), torch.from_numpy(labels)
    )
    assert out["nll"] == pytest.approx(nll.item(), rel=1e-12)
    predicted = logits.argmax(1)
    assert out["top1"] == np.mean(predicted == labels)
    for c in range(6):
        assert out["per_class_recall"][c] == np.mean(predicted[labels == c] == c)
        assert out["confusion"][c] == [np.sum((labels == c) & (predicted == d)) for d in range(6)]
    f1 = []
    for c in range(6):
        recall, precision = np.mean(predicted[labels == c] == c), np.mean(labels[predicted == c] == c)
        f1.append(stats.hmean([recall, precision]))
    assert out["macro_f1"] == pytest.approx(np.mean(f1))


def test_calibration_error_bin_by_bin():
    logits, labels = sample(500)
    probabilities = special.softmax(logits, axis=1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    wanted = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            wanted += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert metrics.classification(logits, labels)["ece"] == pytest.approx(wanted, abs=1e-12)


def test_a_confidence_on_the_edge_belongs_to_the_bin_below():
    # 0.15 and 0.2 share the bin (2/15, 3/15], so their errors meet before they are averaged.
    error = metrics._calibration_error(np.array([0.15, 0.2]), np.array([True, False]))
    assert error == pytest.approx(abs(1 - 0.35) / 2)


def test_unlabeled_rows_do_not_count():
    logits, labels = sample()
    padded = np.concatenate([logits, np.full((7, 6), np.nan)])
    assert metrics.classification(padded, np.append(labels, [-1] * 7)) == metrics.classification(logits, labels)


def test_agreement_against_scipy():
    (student, _), (teacher, _) = sample(seed=1), sample(seed=2)
    out = metrics.agreement(student, teacher)
    wanted = stats.entropy(special.softmax(teacher, axis=1), special.softmax(student, axis=1), axis=1).mean()
    assert out["kl"] == pytest.approx(wanted)
    assert out["agreement"] == np.mean(student.argmax(1) == teacher.argmax(1))
    same = metrics.agreement(student, student + 3)  # a common offset changes no probability
    assert same["agreement"] == 1 and same["kl"] == pytest.approx(0, abs=1e-12) and same["kl"] >= 0


def test_nothing_is_ever_nan():
    cases = [
        metrics.classification(np.zeros((0, 3)), np.zeros(0, int)),
        metrics.classification(np.zeros((2, 3)), np.array([-1, -1])),
        metrics.classification(np.array([[np.nan, 0.0], [1, 2]]), np.array([0, 1])),
        metrics.classification(np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([1, 1])),
        metrics.agreement(np.zeros((0, 3)), np.zeros((0, 3))),
        metrics.agreement(np.array([[np.inf, 0.0]]), np.zeros((1, 2))),
        metrics.agreement(np.array([[1e4, -1e4]]), np.array([[-1e4, 1e4]])),
        metrics.agreement(np.zeros((2, 3)), None),
    ]
    for case in cases:
        json.dumps(case, allow_nan=False)
    assert cases[0]["top1"] is None and cases[1]["count"] == 0 and cases[2]["top1"] is None
    assert cases[3]["nll"] == 1e4 and cases[6]["kl"] == 2e4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_of_any_value_that_is_not_finite_has_failed(value):
    found = metrics.classification(np.array([[0.0, 1.0], [value, 0.0]]), np.array([1, 0]))
    assert found["top1"] is found["nll"] is found["confusion"] is None


@pytest.mark.parametrize(
    "logits, labels",
    [
        (np.zeros((3, 2)), np.zeros(2, int)),
        (np.zeros(3), np.zeros(3, int)),
        (np.zeros((1, 2)), np.array([2])),
        (np.zeros((1, 2)), np.array([-2])),
    ],
)
def test_shapes_and_labels_are_checked(logits, labels):
    with pytest.raises(ValueError):
        metrics.classification(logits, labels)
    with pytest.raises(ValueError):
        metrics.agreement(np.zeros((2, 3)), np.zeros((3, 3)))
