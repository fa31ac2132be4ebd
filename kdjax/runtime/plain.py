"""Python values that JSON knows, from whatever a run measures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any, where: str) -> Any:
    """`value` in Python's own types, with NaN and infinity as None: JSON knows neither.

    Args:
        value: mappings (a ConfigDict too), sequences, arrays of NumPy and JAX, paths, numbers, strings, None.
        where: its name in error messages.

    Raises:
        TypeError: a value of another type, named by its place, such as `results.config.seeds[0]`.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist(), where)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping) or hasattr(value, "items"):  # a ConfigDict is no Mapping
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where}: a {type(value).__name__} has no place in a JSON file")
