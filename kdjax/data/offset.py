"""Sentinel-2's offset: whether values show that it was added, or was not, against what is expected of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.data.bands import OFFSET, SENSORS, canonical
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images
from kdjax.errors import InputError

_AT_ONCE = 16  # images, which may be of many bands
_SPARSE = 7  # every so many pixels along both sides of training images are looked at
_MOST_BELOW = 0.05  # share of values that may lie below the offset: noise over water
_DARK = ("b01", "b02", "b03", "b04", "b10")
"""Bands in which some pixel of nearly any land reflects less than 0.1; infrared light may find none."""


@dataclasses.dataclass
class Seen:
    """How many values were seen, and how many of these lie at most at the offset, in all bands and in the dark ones.

    Attributes:
        names: of the bands.
        value_range: the values that reflectance 0 and 1 are expected to have.
    """

    names: tuple[str, ...]
    value_range: tuple[float, ...]
    count: int = 0
    below: int = 0
    dark_below: int = 0

    @classmethod
    def by(cls, meaning: Meaning) -> Seen | None:
        """For images that are to be like those of a training on files of a known sensor; None for all others."""
        bands, held = meaning.bands, {frozenset(map(canonical, one.orders[0])) for one in SENSORS.values()}
        of_sensor = bands is not None and any(frozenset(map(canonical, order)) in held for order in bands.orders)
        if not of_sensor or meaning.value_range not in {one.value_range for one in SENSORS.values()}:
            return None
        return cls(meaning.names, meaning.value_range)

    @property
    def other_range(self) -> tuple[float, float]:
        """The range that the values would have with the offset, or without it."""
        low, high = self.value_range
        return (low - OFFSET, high - OFFSET) if low else (low + OFFSET, high + OFFSET)

    @property
    def shown(self) -> str | None:
        """What contradicts the expectation, in words."""
        if self.value_range[0]:
            share = self.below / self.count if self.count else 0.0
            if share > _MOST_BELOW:
                said = f"{100 * share:.0f} % of the values are at most {OFFSET:.0f}"
                return f"{said}, which is black where Sentinel-2's offset was added"
        elif self._dark and self.count and not self.dark_below:
            listed = ", ".join(self.names[k] for k in self._dark)
            return f"no value is below {OFFSET:.0f} in {listed}, as where Sentinel-2's offset was added"
        return None

    @property
    def _dark(self) -> list[int]:
        return [k for k, name in enumerate(self.names) if canonical(name) in _DARK]

    def see(self, pixels: np.ndarray) -> None:
        """Counts values of data, (n, bands) as files have them. Where all are 0 there is none."""
        below = pixels[pixels.any(-1)] <= OFFSET
        self.count, self.below = self.count + below.size, self.below + int(below.sum())
        self.dark_below += int(below[:, self._dark].sum())

    def see_stored(self, images: Images) -> None:
        """Counts values of (…, bands) images as they are stored, with their value range over that of their dtype."""
        (low, high), pixels = self.value_range, np.asarray(images).reshape(-1, images.shape[-1])
        self.see(low + pixels[pixels.any(-1)] * ((high - low) / np.iinfo(images.dtype).max))


def check(section: Mapping[str, Any], images: Images, meaning: Meaning) -> None:
    """Refuses images whose values show that 1000 was added to them, or was not, against what the sensor's name says.

    Args:
        section: reads `sensor` and `value_range` of config.dataset; where both are given, the user knows more.
        images: (N, S, S, bands) uint16.
        meaning: what their numbers are.

    Raises:
        InputError: names the other sensor, and the range that keeps this one.
    """
    sensor = section["sensor"]
    if not sensor or section["value_range"] or not meaning.value_range:
        return
    seen = Seen(meaning.names, meaning.value_range)
    for start in range(0, len(images), _AT_ONCE):
        seen.see_stored(images[start : start + _AT_ONCE][:, ::_SPARSE, ::_SPARSE])
    if seen.shown:
        low, high = meaning.value_range
        other = sensor.removesuffix("_offset") if low else f"{sensor}_offset"
        raise InputError(
            f"dataset.sensor is {sensor!r}, but {seen.shown}: set it to {other!r}, or, if that is right, give "
            f"dataset.value_range=({low:.0f}.0,{high:.0f}.0)"
        )
