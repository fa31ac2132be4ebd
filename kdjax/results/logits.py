"""evaluation/logits.npz: logits of teacher and students on validation and test, with the images' labels and hashes."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdjax.errors import InputError


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of names, shapes, dtypes and values, in hexadecimal: `logits_sha256` of results.json.

    Two files cannot be replaced atomically; the digest shows a reader that both come from the same evaluation.
    """
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def read(
    path: Path, shapes: Mapping[str, tuple[int | None, ...]], fix: str, sha256: str | None = None
) -> dict[str, np.ndarray]:
    """Reads the arrays by name, and checks those that are needed.

    Args:
        path: the file.
        shapes: shapes of the needed arrays, such as teacher_test (N, C) and student_test (seeds, arms, N, C); None as a
            size = any.
        fix: how to repair a damaged file, for the message.
        sha256: their `digest` from results.json; None for an older version, which did not write it.

    Raises:
        InputError: the file is missing or cannot be read, an array is missing or has another shape, or the arrays are
            not those of results.json.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
    # AttributeError and TypeError: the file is a single array, not an archive.
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): {fix}") from error
    for name, shape in shapes.items():
        if name not in arrays:
            raise InputError(f"{path} has no array {name}: {fix}")
        actual = arrays[name].shape
        if len(actual) != len(shape) or any(b not in (None, a) for a, b in zip(actual, shape, strict=True)):
            expected = tuple("any" if size is None else size for size in shape)
            raise InputError(f"{path}: {name} has the shape {actual} in place of {expected}: {fix}")
    if sha256 is not None and digest(arrays) != sha256:
        raise InputError(f"{path} is not of the evaluation that wrote results.json: {fix}")
    return arrays
