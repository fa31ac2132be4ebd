"""evaluation/logits.npz: what teacher and students say of validation and test."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdjax.errors import InputError


def read(path: Path, shapes: Mapping[str, tuple[int | None, ...]], fix: str) -> dict[str, np.ndarray]:
    """Arrays by name.

    Args:
        path: the file.
        shapes: of the arrays that are needed, such as teacher_test (N, C) and student_test (seeds, arms, N, C); None
            for any size.
        fix: what to do where it is damaged, for the message.

    Raises:
        InputError: it is not there or cannot be read, or an array is missing or has another shape.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            found = {name: stored[name] for name in stored.files}
    # AttributeError and TypeError: a single array, which is no archive.
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): {fix}") from error
    for name, shape in shapes.items():
        if name not in found:
            raise InputError(f"{path} has no array {name}: {fix}")
        actual = found[name].shape
        if len(actual) != len(shape) or any(b not in (None, a) for a, b in zip(actual, shape, strict=True)):
            said = tuple("any" if size is None else size for size in shape)
            raise InputError(f"{path}: {name} has the shape {actual} in place of {said}: {fix}")
    return found
