"""Class weights: the weight of an example, by its class, in the loss terms that use its label."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.errors import InputError

BALANCED = "balanced"
FORMS = "give 'balanced', one weight a class in the order of the classes, or texts 'NAME=WEIGHT'"


def check(field: str, value: Any) -> None:
    """Checks class weights as far as possible without data.

    Args:
        field: name of the field, for messages.
        value: (), ('balanced',), numbers, or strings 'NAME=WEIGHT'; a single string need not be in a tuple.

    Raises:
        InputError: the value has another form, names a class twice, or has a weight that is not a finite number above
            0.
    """
    _parse(field, value)


def is_balanced(value: Any) -> bool:
    """Whether the weights are to be computed from the class counts."""
    return value == BALANCED or tuple(value) == (BALANCED,)


def class_weights(
    field: str, value: Any, classes: Sequence[str], labels: np.ndarray, *, even: bool = False
) -> tuple[float, ...]:
    """Computes the weight of each class, in the order of the classes.

    Only ratios matter: the weights are scaled so that their mean over the examples is 1, which keeps the weighted terms
    as large relative to the others as without weights.

    Args:
        field: name of the field, for messages.
        value: as for `check`. 'balanced' means n / (k · n_c), as in scikit-learn, for n labeled examples, n_c of them
            in the class, and k classes that have examples; a class without examples gets 1, which is never used. With
            strings 'NAME=WEIGHT', a class that is not named has weight 1 before the scaling.
        classes: names of the classes.
        labels: (N,) int, the training labels; -1 = unlabeled.
        even: whether the classes are drawn equally often; the mean is then over classes instead of examples.

    Returns:
        One weight per class; () if `value` is empty.

    Raises:
        InputError: a class is unknown, the number of weights is not that of the classes, or the order is likely to be
            mistaken, because as text 10 comes before 2.
    """
    parsed = _parse(field, value)
    if not parsed:
        return ()
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    if parsed == BALANCED:
        weights = np.divide(1.0, counts, out=np.zeros(len(classes)), where=counts > 0)
    elif isinstance(parsed, dict):
        normalized = [unicodedata.normalize("NFC", name) for name in classes]
        unknown = [name for name in parsed if name not in normalized]
        if unknown:
            raise InputError(f"{field} names {unknown[0]!r}, which is not a class; there are {', '.join(classes)}")
        weights = np.array([parsed.get(name, 1.0) for name in normalized])
    else:
        if len(parsed) != len(classes):
            raise InputError(
                f"{field} has {len(parsed)} weights for {len(classes)} classes, {', '.join(classes)}: give one each"
            )
        if sorted(classes) == list(classes) != sorted(classes, key=_natural_key):
            raise InputError(
                f"{field} has weights in the order of the classes, which are sorted as text, {', '.join(classes)}: "
                "give texts 'NAME=WEIGHT'"
            )
        weights = np.array(parsed)
    draws = (counts > 0).astype(float) if even else counts
    weight_sum = (weights * draws).sum()  # 0 if no example is labeled
    scaled = np.where((weights > 0) & (weight_sum > 0), weights * draws.sum() / (weight_sum or 1.0), 1.0)
    return tuple(scaled.tolist())


def _natural_key(name: str) -> list[Any]:
    """Sort key by which 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _parse(field: str, value: Any) -> str | tuple[float, ...] | dict[str, float]:
    """Parses the value into 'balanced', weights in order, or weights by class name."""
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        raise InputError(f"{field} is {value!r}: {FORMS}")
    if tuple(items) == (BALANCED,):
        return BALANCED
    if all(isinstance(item, str) for item in items):
        pairs = [unicodedata.normalize("NFC", item).rpartition("=") for item in items]
        weight_of = {name: _weight(field, text) for name, separator, text in pairs if separator and name}
        if len(weight_of) < len(items):
            raise InputError(f"{field} is {value!r}: {FORMS}, each class once")
        return weight_of if items else ()
    return tuple(_weight(field, item) for item in items)


def _weight(field: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{field}: {value!r} is not a weight: {FORMS}") from None
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{field}: {value!r} is not a weight: give a finite number above 0")
    return number
