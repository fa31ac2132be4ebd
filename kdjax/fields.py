"""Checks of the value of a configuration field, each with its one message."""

import math
import operator
from collections.abc import Collection, Sequence
from typing import Any

from kdjax.errors import InputError

INT32_MAX = 2**31 - 1
"""Steps and seeds are int32 on the devices."""


def check_choice(field: str, value: Any, choices: Collection[str]) -> None:
    """Checks that a value is one of `choices`.

    Raises:
        InputError: it is not.
    """
    if value not in choices:
        raise InputError(f"{field} is {value!r}: choose one of {', '.join(choices)}")


def check_whole(field: str, value: Any, least: int, most: int = INT32_MAX) -> None:
    """Checks that a value is a whole number from `least` to `most`, both included.

    Raises:
        InputError: the value is not a whole number or is out of range.
    """
    if not is_whole(value) or not least <= value <= most:
        limit = f" and at most {most}" if most < INT32_MAX or (is_whole(value) and value > most) else ""
        raise InputError(f"{field} is {value!r}: give a whole number of at least {least}{limit}")


def check_number(
    field: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Checks that a value is a finite number within the given limits; `least` and `most` are inclusive.

    Raises:
        InputError: the value is not a finite number or is out of range.
    """
    if not is_number(value):
        raise InputError(f"{field} is {value!r}: give a finite number")
    limits = (
        ("above", operator.gt, above),
        ("at least", operator.ge, least),
        ("below", operator.lt, below),
        ("at most", operator.le, most),
    )
    active = [(word, holds, limit) for word, holds, limit in limits if limit is not None]
    if not all(holds(value, limit) for _, holds, limit in active):
        raise InputError(
            f"{field} is {value!r}: must be {' and '.join(f'{word} {limit}' for word, _, limit in active)}"
        )


def is_whole(value: Any) -> bool:
    """Whether a value is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_list(value: Any) -> bool:
    """Whether a value is a list, a tuple or another sequence; a string is not."""
    return isinstance(value, Sequence) and not isinstance(value, str)
