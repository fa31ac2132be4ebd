"""Mean and spread of each band over the training images, which networks of such bands are normalized by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.data.bands import OFFSET, canonical
from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images
from kdjax.errors import InputError

_AT_ONCE = 256  # images
_SPARSE = 7  # every so many pixels along both sides are looked at for an offset
_MOST_BELOW = 0.05  # share of values that may lie below the offset: noise over water
_DARK = ("b01", "b02", "b03", "b04", "b10")
"""Bands in which some pixel of nearly any land reflects less than 0.1; infrared light may find none."""


def of(images: Images) -> Statistics:
    """Mean and standard deviation of each band of (N, S, S, bands) uint8 or uint16, in [0, 1].

    A band that has one value everywhere says nothing; its deviation is taken for 1, so that it becomes 0.
    """
    most, count = float(np.iinfo(images.dtype).max), math.prod(images.shape[:3])
    sums = np.zeros((2, images.shape[-1]))
    for start in range(0, len(images), _AT_ONCE):
        values = images[start : start + _AT_ONCE].astype(np.float64) / most
        sums += [values.sum((0, 1, 2)), np.square(values).sum((0, 1, 2))]
    mean, square = sums / count
    std = np.sqrt(np.maximum(square - np.square(mean), 0))
    return Statistics(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))


def notes(statistics: Statistics, meaning: Meaning) -> tuple[str, ...]:
    """What the log says of them, in the numbers of the files."""
    low, high = meaning.value_range or (0.0, 255.0)
    width = high - low
    listed = ", ".join(
        f"{name} {low + width * mean:.4g} ± {width * std:.3g}" if std < 1 else f"{name} {low + width * mean:.4g} always"
        for name, mean, std in zip(meaning.names, statistics.mean, statistics.std, strict=True)
    )
    return (f"bands, mean ± deviation over the training images: {listed}",)


def check_offset(section: Mapping[str, Any], images: Images, meaning: Meaning) -> None:
    """Refuses images whose values show that 1000 was added to them, or was not, against what the sensor's name says.

    Args:
        section: reads `sensor` and `value_range`; where both are given, the user knows more.
        images: (N, S, S, bands) uint16.
        meaning: what their numbers are.

    Raises:
        InputError: names the other sensor, and the range that keeps this one.
    """
    sensor = section["sensor"]
    if not sensor or section["value_range"] or not meaning.value_range:
        return
    low, high = meaning.value_range
    dark = [k for k, name in enumerate(meaning.names) if canonical(name) in _DARK]
    count = under = under_dark = 0
    for start in range(0, len(images), _AT_ONCE):
        pixels = images[start : start + _AT_ONCE][:, ::_SPARSE, ::_SPARSE].reshape(-1, images.shape[-1])
        values = low + pixels[pixels.any(-1)] * ((high - low) / np.iinfo(images.dtype).max)
        below = values <= OFFSET
        count, under, under_dark = count + values.size, under + int(below.sum()), under_dark + int(below[:, dark].sum())
    kept = f"or, if that is right, give dataset.value_range=({low:.0f}.0,{high:.0f}.0)"
    share = under / count if count else 0.0
    if low and share > _MOST_BELOW:
        raise InputError(
            f"dataset.sensor is {sensor!r}, but {100 * share:.0f} % of the values are at most {OFFSET:.0f}, which that "
            f"sensor's files have for black: set it to {sensor.removesuffix('_offset')!r}, {kept}"
        )
    if not low and count and dark and not under_dark:
        raise InputError(
            f"dataset.sensor is {sensor!r}, but no value is below {OFFSET:.0f} in "
            f"{', '.join(meaning.names[k] for k in dark)}, as where that was added: set it to "
            f"{sensor + '_offset'!r}, {kept}"
        )
