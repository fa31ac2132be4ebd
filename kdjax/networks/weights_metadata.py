"""Reads the metadata of a safetensors file of weights: JSON texts with its classes, bands and pixel statistics."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kdjax.errors import InputError
from kdjax.networks import hub


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Opens a safetensors file for reading. Raises InputError if it is not readable as one."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError(f"weights {path}: not a readable safetensors file ({error})") from None


def class_names(source: str | Path) -> list[str] | None:
    """Reads the class names in the order of the logits, from 'classes'; None if the file does not have them.

    Raises:
        InputError: there is no such file, or it is not safetensors.
    """
    return as_names(_field(source, "classes"))


def band_names(source: str | Path) -> list[str] | None:
    """Reads the names of the bands that the network takes, from 'bands'; None if the file does not have them.

    Raises:
        InputError: there is no such file, or it is not safetensors.
    """
    return as_names(_field(source, "bands"))


def value_range(source: str | Path) -> list[float] | None:
    """Reads the values that became black and white in its images, from 'value_range'; [] = bytes, None = not given.

    Raises:
        InputError: there is no such file, or it is not safetensors.
    """
    return as_numbers(_field(source, "value_range"))


def statistics(source: str | Path) -> tuple[list[float], list[float]] | None:
    """Reads mean and standard deviation of each band in [0, 1], from 'mean' and 'std'; None unless both are valid.

    Raises:
        InputError: there is no such file, or it is not safetensors.
    """
    mean, std = as_numbers(_field(source, "mean")), as_numbers(_field(source, "std"))
    return (mean, std) if mean and std and len(mean) == len(std) and min(std) > 0 else None


def _field(source: str | Path, name: str) -> Any:
    with open_weights(hub.locate(source)) as file:
        return read_field(file, name)


def read_field(file: Any, name: str) -> Any:
    """Reads a JSON value from the metadata of an open file; None if there is none."""
    try:
        return json.loads((file.metadata() or {}).get(name, "null"))
    except ValueError:
        return None


def as_names(value: Any) -> list[str] | None:
    """Returns a JSON value if it is a list of strings, else None."""
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else None


def as_numbers(value: Any) -> list[float] | None:
    """Returns a JSON value as floats if it is a list of finite numbers, else None."""
    # The comparison is false for NaN, and refuses whole numbers beyond a float's range, where isfinite would raise.
    is_number = lambda item: (
        isinstance(item, int | float) and not isinstance(item, bool) and abs(item) <= sys.float_info.max
    )
    return [float(item) for item in value] if isinstance(value, list) and all(map(is_number, value)) else None
