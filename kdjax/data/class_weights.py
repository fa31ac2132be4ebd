"""Class weights: what an example counts for in the terms that ask for its label, by its class."""

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
    """Checks what can be checked of class weights without data.

    Args:
        field: its name, for the message.
        value: (), ('balanced',), numbers, or texts 'NAME=WEIGHT'; one text may stand for itself.

    Raises:
        InputError: it has another form, a class is named twice, or a weight is not a finite number above 0.
    """
    _parsed(field, value)


def is_balanced(value: Any) -> bool:
    """Whether the weights are to be drawn from the counts."""
    return value == BALANCED or tuple(value) == (BALANCED,)


def class_weights(
    field: str, value: Any, classes: Sequence[str], labels: np.ndarray, *, even: bool = False
) -> tuple[float, ...]:
    """The weight of each class, in their order.

    Only ratios count: weights are scaled so that their mean over the examples is 1, which keeps the terms that they
    weigh as large beside the others as without them.

    Args:
        field: the name of the field, for the message.
        value: as `check` takes it. 'balanced' is n / (k · n_c) of the n labeled examples, n_c of them of the class,
            and of the k classes that have some, as scikit-learn has it; a class that has none weighs 1, which nothing
            uses. A class that is not named weighs 1 beside those that are.
        classes: their names.
        labels: (N,) int of the training examples, -1 = unlabeled.
        even: whether the classes are drawn equally often. The mean is then over them.

    Returns:
        One weight a class; () where `value` is.

    Raises:
        InputError: a class is unknown, there are more or fewer weights than classes, or their order may be mistaken: 10
            comes before 2 as text.
    """
    parsed = _parsed(field, value)
    if not parsed:
        return ()
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    if parsed == BALANCED:
        weights = np.divide(1.0, counts, out=np.zeros(len(classes)), where=counts > 0)
    elif isinstance(parsed, dict):
        spelled = [unicodedata.normalize("NFC", name) for name in classes]
        unknown = [name for name in parsed if name not in spelled]
        if unknown:
            raise InputError(f"{field} names {unknown[0]!r}, which is not a class; there are {', '.join(classes)}")
        weights = np.array([parsed.get(name, 1.0) for name in spelled])
    else:
        if len(parsed) != len(classes):
            raise InputError(
                f"{field} has {len(parsed)} weights for {len(classes)} classes, {', '.join(classes)}: give one each"
            )
        if sorted(classes) == list(classes) != sorted(classes, key=_numbers):
            raise InputError(
                f"{field} has weights in the order of the classes, which are sorted as text, {', '.join(classes)}: "
                "give texts 'NAME=WEIGHT'"
            )
        weights = np.array(parsed)
    drawn = (counts > 0).astype(float) if even else counts
    total = (weights * drawn).sum()  # 0 without any label
    scaled = np.where((weights > 0) & (total > 0), weights * drawn.sum() / (total or 1.0), 1.0)
    return tuple(scaled.tolist())


def _numbers(name: str) -> list[Any]:
    """A key by which 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _parsed(field: str, value: Any) -> str | tuple[float, ...] | dict[str, float]:
    """'balanced', weights in order, or weights by name."""
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Sequence):
        raise InputError(f"{field} is {value!r}: {FORMS}")
    if tuple(given) == (BALANCED,):
        return BALANCED
    if all(isinstance(one, str) for one in given):
        pairs = [unicodedata.normalize("NFC", one).rpartition("=") for one in given]
        named = {name: _weight(field, text) for name, sign, text in pairs if sign and name}
        if len(named) < len(given):
            raise InputError(f"{field} is {value!r}: {FORMS}, each class once")
        return named if given else ()
    return tuple(_weight(field, one) for one in given)


def _weight(field: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{field}: {value!r} is not a weight: {FORMS}") from None
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{field}: {value!r} is not a weight: give a finite number above 0")
    return number
