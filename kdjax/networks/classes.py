"""Matches the logits of a network that was trained elsewhere with the classes of a data set."""

import collections
import unicodedata
from collections.abc import Sequence

import numpy as np

from kdjax.errors import InputError


def class_places(
    file: str, metadata_names: Sequence[str] | None, declared: Sequence[str | int], classes: Sequence[str]
) -> np.ndarray:
    """Returns the index of each of a data set's classes among the logits of such a network, (classes,) int.

    Args:
        file: the network, as an error message names it.
        metadata_names: class names in the file's own metadata, in the order of its logits; None if it has none.
        declared: class names that the user gives in `teacher.classes`, in the same order; () = use `metadata_names`. A
            number stands for the name that is written like it.
        classes: class names of the data set.

    Raises:
        InputError: the names are unknown, contradict each other, repeat, or lack a class.
    """
    normalized = lambda names: [unicodedata.normalize("NFC", str(name)) for name in names]  # as in the data set
    declared_names, file_names = normalized(declared), normalized(metadata_names or ())
    if file_names and declared_names and file_names != declared_names:
        raise InputError(
            f"teacher.classes: {file} itself says that its classes are {', '.join(file_names)}: leave teacher.classes "
            "out"
        )
    names = declared_names or file_names
    if not names:
        raise InputError(f"{file} does not say which logit is which class: give teacher.classes")
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    missing = [name for name in classes if name not in names]
    if repeated or missing:
        fault = f"names {', '.join(repeated)} twice" if repeated else f"lacks {', '.join(missing)}"
        source = "teacher.classes" if declared else "its own list of classes"
        raise InputError(f"{file} does not fit the data set: {source} {fault}; it has {', '.join(names)}")
    return np.array([names.index(name) for name in classes])
