"""Which logit of a network that was trained elsewhere is which class."""

from collections.abc import Sequence

import numpy as np

from kdjax.errors import InputError


def class_places(file: str, names: Sequence[str] | None, field: str, classes: Sequence[str]) -> np.ndarray:
    """Places of a data set's classes among the logits of a network that was trained elsewhere, (classes,) int.

    Args:
        file: that network, as an error names it.
        names: of its classes, in the order of its logits; None where they are not known.
        field: that takes them.
        classes: of the data set.

    Raises:
        InputError: the names are not known, repeat, or lack a class.
    """
    if not names:
        raise InputError(f"{file} does not say which logit is which class: give {field}")
    missing = [name for name in classes if name not in names]
    if missing or len(set(names)) < len(names):
        what = f"lacks {', '.join(missing)}" if missing else "names a class twice"
        raise InputError(f"{file}: its classes do not fit the data set: it {what}")
    return np.array([list(names).index(name) for name in classes])
