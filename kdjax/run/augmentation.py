"""Builds the augmentation from the fields of `config.dataset.augmentation`, and checks them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from kdjax.errors import InputError
from kdjax.inputs.augment import Augmentation


def augmentation(section: Mapping[str, Any]) -> Augmentation:
    """Returns the augmentation that a configuration section describes.

    Args:
        section: fields of `Augmentation`; absent ones have their defaults.

    Raises:
        InputError: a value is out of range; the message names its field.
    """
    prefix = "dataset.augmentation"
    defaults = {field.name: field.default for field in dataclasses.fields(Augmentation)}
    values: dict[str, Any] = {**defaults, **section}
    for name in ("scale", "ratio"):
        try:
            low, high = (float(bound) for bound in values[name])
        except (TypeError, ValueError):
            raise InputError(f"{prefix}.{name} is {values[name]!r}: give two numbers (low, high)") from None
        if not 0 < low <= high < math.inf or (name == "scale" and high > 1):
            bound = "0 < low <= high <= 1" if name == "scale" else "0 < low <= high"
            raise InputError(f"{prefix}.{name} is ({low:g}, {high:g}): give {bound}")
        values[name] = (low, high)
    # A crop that covers the share a of a square image has a ratio between a and 1 / a. Any other ratio cannot be drawn.
    largest, (narrow, wide) = values["scale"][1], values["ratio"]
    possible = min(largest, 1 / narrow, wide)
    if possible < largest * (1 - 1e-6):
        raise InputError(
            f"{prefix}.ratio is ({narrow:g}, {wide:g}), which a crop of {largest:g} of a square image cannot have: let "
            f"it hold 1, or give a {prefix}.scale of at most {possible:g}"
        )
    for name in ("brightness", "contrast", "saturation"):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"{prefix}.{name} is {value!r}: give a number from 0 (off) to 1")
    if isinstance(values["symmetries"], bool) or values["symmetries"] not in (1, 2, 4, 8):
        raise InputError(
            f"{prefix}.symmetries is {values['symmetries']!r}: choose 1 (none), 2 (up-down), 4 (both flips) or 8 (with "
            "rotations)"
        )
    return Augmentation(**values)
