"""Class weights from the configuration: against scikit-learn's formula, and what is refused."""

import unicodedata

import numpy as np
import pytest

from kdjax.config import base
from kdjax.data import check
from kdjax.data.class_weights import class_weights
from kdjax.errors import InputError
from kdjax.run.checks import validate

CLASSES = ("field", "lake", "a=b, c")
LABELS = np.repeat([0, 1, 2, -1], [60, 30, 10, 25])


def weights(value, labels=LABELS, **options):
    return class_weights("dataset.class_weights", value, CLASSES, labels, **options)


def test_balanced_is_n_over_k_and_the_count():
    found = weights(("balanced",))
    assert found == pytest.approx((100 / (3 * 60), 100 / (3 * 30), 100 / (3 * 10))) and weights("balanced") == found
    assert np.mean([found[label] for label in LABELS if label >= 0]) == pytest.approx(1)


def test_given_weights_keep_their_ratios_and_have_mean_1():
    for value in ((1, 2, 4.0), ("lake=2", "field=1", "a=b, c=4"), [0.5, 1, 2]):
        found = np.array(weights(value))
        assert found / found[0] == pytest.approx([1, 2, 4]) and (0.6, 0.3, 0.1) @ found == pytest.approx(1)
    found = np.array(weights(("a=b, c=3",)))
    assert found / found[0] == pytest.approx([1, 1, 3])
    found = np.array(weights((1, 2, 4), even=True))  # classes are drawn equally often
    assert found / found[0] == pytest.approx([1, 2, 4]) and found.mean() == pytest.approx(1)
    assert weights(()) == ()


@pytest.mark.parametrize("classes", [("1", "10", "2"), ("zone 1", "zone 10", "zone 9")])
def test_weights_in_an_order_that_may_be_mistaken_are_refused(classes):
    """Who numbers classes thinks of 2 before 10."""
    labels = np.repeat([0, 1, 2], 4)
    with pytest.raises(InputError, match=f"sorted as text, {', '.join(classes)}: give texts 'NAME=WEIGHT'"):
        class_weights("dataset.class_weights", (1, 2, 3), classes, labels)
    found = class_weights("dataset.class_weights", (f"{classes[1]}=3",), classes, labels)
    assert found[1] / found[0] == pytest.approx(3)
    for clear in (("1", "2", "10"), ("01", "02", "10"), ("1", "2", "3")):  # the first, a builder's own order
        assert class_weights("dataset.class_weights", (1, 2, 3), clear, labels) == pytest.approx((0.5, 1, 1.5))


def test_a_class_may_be_named_in_another_spelling_of_unicode():
    nfc, nfd = (unicodedata.normalize(form, "forêt") for form in ("NFC", "NFD"))
    for given, there in ((nfd, nfc), (nfc, nfd)):
        found = class_weights("dataset.class_weights", (f"{given}=5",), (there, "lake"), LABELS[:90])
        assert found[0] / found[1] == pytest.approx(5)
    with pytest.raises(InputError, match="each class once"):
        class_weights("dataset.class_weights", (f"{nfc}=5", f"{nfd}=2"), (nfc, "lake"), LABELS[:90])


def test_a_class_without_a_labeled_image_takes_no_part():
    labels = np.where(LABELS == 1, -1, LABELS)
    assert weights("balanced", labels) == pytest.approx((70 / (2 * 60), 1, 70 / (2 * 10)))
    found = np.array(weights((1, 2, 4), labels))
    assert (6 / 7, 0, 1 / 7) @ found == pytest.approx(1)
    assert np.isfinite(weights("balanced", np.full(3, -1))).all()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1.0, 0.0, 1.0), "0.0 is not a weight: give a finite number above 0"),
        ((1.0, -2, 1.0), "-2 is not a weight"),
        ((1.0, float("nan"), 1.0), "nan is not a weight"),
        ((1.0, True, 1.0), "True is not a weight"),
        ((1.0, "lake=2"), "'lake=2' is not a weight: give"),
        (("lake=0",), "'0' is not a weight"),
        (("lake=many",), "'many' is not a weight: give"),
        (("lake",), "give 'balanced'"),
        (("=2",), "give 'balanced'"),
        (("balanced", "lake=2"), "give 'balanced'"),
        (("lake=2", "lake=3"), "each class once"),
        (3.0, "is 3.0: give"),
    ],
)
def test_what_is_no_set_of_weights_is_refused_before_the_data_are_read(value, said):
    section = base().dataset.to_dict() | {"class_weights": value}
    with pytest.raises(InputError, match=said) as caught:
        check(section)
    assert str(caught.value).startswith("dataset.class_weights") and "\n" not in str(caught.value)
    config = base()
    config.arms.mine = {"ce": 1.0, "class_weights": value}
    with pytest.raises(InputError, match="arms.mine.class_weights.*"):
        validate(config)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (("sea=2",), "dataset.class_weights names 'sea', which is not a class; there are field, lake"),
        ((1.0, 2.0), "has 2 weights for 3 classes, field, lake"),
        ((1.0, 2.0, 3.0, 4.0), "has 4 weights for 3 classes"),
    ],
)
def test_what_does_not_fit_the_classes_is_refused(value, said):
    with pytest.raises(InputError, match=said):
        weights(value)


def test_the_classes_are_not_evened_out_twice():
    config = base()
    config.dataset.path, config.dataset.sampling = "tiles", "balanced"
    validate(config)
    config.dataset.class_weights = (1.0, 2.0)
    validate(config)
    config.arms.mine = {"ce": 1.0, "class_weights": "balanced"}
    with pytest.raises(InputError, match="arms.mine.class_weights and dataset.sampling are both 'balanced'"):
        validate(config)
    config.dataset.class_weights = ("balanced",)
    with pytest.raises(InputError, match="dataset.class_weights and dataset.sampling are both 'balanced'"):
        validate(config)
    config.dataset.sampling = "even"
    with pytest.raises(InputError, match="dataset.sampling is 'even': choose one of uniform, balanced"):
        validate(config)
