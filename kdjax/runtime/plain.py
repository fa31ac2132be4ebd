"""Converts whatever a run measures to Python values that JSON can represent."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any, name: str) -> Any:
    """Converts a value to Python's own types, with None for NaN and infinity, which JSON lacks.

    Args:
        value: mappings (including a ConfigDict), sequences, arrays of NumPy and JAX, paths, numbers, strings, None.
        name: the value's name in error messages.

    Raises:
        TypeError: it contains a value of another type, which the message names, as `results.config.seeds[0]`.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist(), name)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping) or hasattr(value, "items"):  # a ConfigDict is not a Mapping
        return {str(key): plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{name}: a {type(value).__name__} has no place in a JSON file")
