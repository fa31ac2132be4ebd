"""What the value of one configuration field may be, each kind of check with its one message."""

import math
import operator
from collections.abc import Collection, Sequence
from typing import Any

from kdjax.errors import InputError

INT32_MAX = 2**31 - 1
"""Steps and seeds are int32 on the devices."""


def check_choice(field: str, value: Any, choices: Collection[str]) -> None:
    """Checks that a value is one of a few.

    Raises:
        InputError: it is another.
    """
    if value not in choices:
        raise InputError(f"{field} is {value!r}: choose one of {', '.join(choices)}")


def check_whole(field: str, value: Any, least: int, most: int = INT32_MAX) -> None:
    """Checks a whole number, both limits included.

    Raises:
        InputError: it is something else, or out of range.
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
    """Checks a finite number against those limits that are given; `least` and `most` are allowed themselves.

    Raises:
        InputError: it is something else, or out of range.
    """
    if not is_number(value):
        raise InputError(f"{field} is {value!r}: give a finite number")
    limits = (
        ("above", operator.gt, above),
        ("at least", operator.ge, least),
        ("below", operator.lt, below),
        ("at most", operator.le, most),
    )
    given = [(word, holds, limit) for word, holds, limit in limits if limit is not None]
    if not all(holds(value, limit) for _, holds, limit in given):
        raise InputError(f"{field} is {value!r}: must be {' and '.join(f'{word} {limit}' for word, _, limit in given)}")


def is_whole(value: Any) -> bool:
    """Whether it is an int; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_list(value: Any) -> bool:
    """Whether it is a list or tuple; a text is none."""
    return isinstance(value, Sequence) and not isinstance(value, str)
