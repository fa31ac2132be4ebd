"""What a safetensors file of weights says of itself, as JSON texts in its metadata: classes, bands and pixels."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kdjax.errors import InputError
from kdjax.networks import hub


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open to read. Raises InputError where it is none."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError(f"weights {path}: not a readable safetensors file ({error})") from None


def class_names(source: str | Path) -> list[str] | None:
    """Names of the classes in the order of the logits, under 'classes'; None where it does not say.

    Raises:
        InputError: no such file, or not safetensors.
    """
    return names(_field(source, "classes"))


def band_names(source: str | Path) -> list[str] | None:
    """Names of the bands that the network takes, under 'bands'; None where it does not say.

    Raises:
        InputError: no such file, or not safetensors.
    """
    return names(_field(source, "bands"))


def value_range(source: str | Path) -> list[float] | None:
    """The values that became black and white in its images, under 'value_range', [] of bytes; None if it does not say.

    Raises:
        InputError: no such file, or not safetensors.
    """
    return numbers(_field(source, "value_range"))


def statistics(source: str | Path) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of each band in [0, 1], under 'mean' and 'std'; None where it does not say both.

    Raises:
        InputError: no such file, or not safetensors.
    """
    mean, std = numbers(_field(source, "mean")), numbers(_field(source, "std"))
    return (mean, std) if mean and std and len(mean) == len(std) and min(std) > 0 else None


def _field(source: str | Path, name: str) -> Any:
    with opened(hub.locate(source)) as file:
        return field(file, name)


def field(file: Any, name: str) -> Any:
    """A JSON value in the metadata of an opened file; None where there is none."""
    try:
        return json.loads((file.metadata() or {}).get(name, "null"))
    except ValueError:
        return None


def names(value: Any) -> list[str] | None:
    """A JSON value that is a list of texts; None of any other."""
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else None


def numbers(value: Any) -> list[float] | None:
    """A JSON value that is a list of finite numbers; None of any other."""
    real = lambda one: isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
    return [float(one) for one in value] if isinstance(value, list) and all(map(real, value)) else None
