"""evaluation/logits.npz: what teacher and students say of validation and test, and the labels and hashes of these."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdjax.errors import InputError


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and values, in hexadecimal: `logits_sha256` of results.json.

    Two files cannot be replaced at once. By this a reader knows that both are of one evaluation.
    """
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def read(
    path: Path, shapes: Mapping[str, tuple[int | None, ...]], fix: str, sha256: str | None = None
) -> dict[str, np.ndarray]:
    """Arrays by name.

    Args:
        path: the file.
        shapes: of the arrays that are needed, such as teacher_test (N, C) and student_test (seeds, arms, N, C); None
            for any size.
        fix: what to do where it is damaged, for the message.
        sha256: their `digest` by results.json; None of an older version, which did not write it.

    Raises:
        InputError: it is not there or cannot be read, an array is missing or has another shape, or they are not those
            of results.json.
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
    if sha256 is not None and digest(found) != sha256:
        raise InputError(f"{path} is not of the evaluation that wrote results.json: {fix}")
    return found
