"""Which logit of a network that was trained elsewhere is which class."""

import collections
import unicodedata
from collections.abc import Sequence

import numpy as np

from kdjax.errors import InputError


def class_places(
    file: str, told: Sequence[str] | None, declared: Sequence[str | int], classes: Sequence[str]
) -> np.ndarray:
    """Places of a data set's classes among the logits of a network that was trained elsewhere, (classes,) int.

    Args:
        file: that network, as an error names it.
        told: names of its classes by the file itself, in the order of its logits; None where it says nothing.
        declared: the same by the user, in `teacher.classes`; () = as the file says. A number there means the name that
            is written so.
        classes: of the data set.

    Raises:
        InputError: the names are not known, differ, repeat, or lack a class.
    """
    spelled = lambda names: [unicodedata.normalize("NFC", str(name)) for name in names]  # as in the data set
    given, told = spelled(declared), spelled(told or ())
    if told and given and told != given:
        raise InputError(
            f"teacher.classes: {file} itself says that its classes are {', '.join(told)}: leave teacher.classes out"
        )
    names = given or told
    if not names:
        raise InputError(f"{file} does not say which logit is which class: give teacher.classes")
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    missing = [name for name in classes if name not in names]
    if twice or missing:
        what = f"names {', '.join(twice)} twice" if twice else f"lacks {', '.join(missing)}"
        where = "teacher.classes" if declared else "what it says of its classes"
        raise InputError(f"{file} does not fit the data set: {where} {what}; it has {', '.join(names)}")
    return np.array([names.index(name) for name in classes])
