"""Sentinel-2's offset: whether values show that it was added, or was not, against what is expected of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.ndimage import minimum_filter

from kdjax.data.bands import OFFSET, SENSORS, canonical
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images
from kdjax.errors import InputError

_AT_ONCE = 16  # images, which may be of many bands
_SPARSE = 7  # every so many pixels along both sides of training images are looked at
_BLURRED = 4  # pixels around those without data; Lanczos' filter reaches over three
_MOST_BELOW = 0.05  # share of values that may lie below the offset: noise over water
_DARK = ("b01", "b02", "b03", "b04", "b10")
"""Bands in which some pixel of nearly any land reflects less than 0.1; infrared light may find none."""
_CIRRUS = "b10"
"""Reflects next to nothing but for thick high clouds, so that each image shows by it whether the offset was added."""
_FEW, _HALF = 0.25, 0.5
"""Share of images that may contradict: those that show it by cirrus, and others, which may show bright land. Of a
handful of the others all may but one."""
_HANDFUL = 20


@dataclasses.dataclass
class Seen:
    """What images showed so far.

    Attributes:
        names: of the bands.
        value_range: the values that reflectance 0 and 1 are expected to have.
        count, below: values, and how many of these lie at most at the offset.
        images: how many there were.
        against: those that contradict the expectation on their own.
    """

    names: tuple[str, ...]
    value_range: tuple[float, ...]
    count: int = 0
    below: int = 0
    images: int = 0
    against: int = 0

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
        most = _FEW if self._cirrus is not None else _HALF if self.images >= _HANDFUL else 1 - 1 / _HANDFUL
        many = self.against > most * self.images
        if self.value_range[0]:
            share = self.below / self.count if self.count else 0.0
            if many or share > _MOST_BELOW:
                said = f"{100 * share:.0f} % of the values are at most {OFFSET:.0f}"
                return f"{said}, which is black where Sentinel-2's offset was added"
        elif many:
            listed = ", ".join(self.names[k] for k in self._telling)
            where = f"in {self.against} of {self.images} images " * (self.against < self.images)
            return f"{where}no value is below {OFFSET:.0f} in {listed}, as where Sentinel-2's offset was added"
        return None

    @property
    def mixed(self) -> str | None:
        """What the fewer images contradict that are sure to, in words."""
        if self._cirrus is None or not self.against or self.shown:
            return None
        was = "was not" if self.value_range[0] else "was"
        return f"in {self.against} of {self.images} images Sentinel-2's offset {was} added, unlike in the others"

    @property
    def _cirrus(self) -> int | None:
        return next((k for k, name in enumerate(self.names) if canonical(name) == _CIRRUS), None)

    @property
    def _telling(self) -> list[int]:
        """The bands by which an image shows that the offset was added."""
        dark = [k for k, name in enumerate(self.names) if canonical(name) in _DARK]
        return dark if self._cirrus is None else [self._cirrus]

    def see(self, pixels: np.ndarray) -> None:
        """Looks at the values of an image, (n, bands) as its file has them. Where all are 0 there are no data."""
        below = pixels[pixels.any(-1)] <= OFFSET
        if not below.size:
            return
        self.count, self.below, self.images = self.count + below.size, self.below + int(below.sum()), self.images + 1
        if self.value_range[0]:
            self.against += self._cirrus is not None and bool(below[:, self._cirrus].mean() > _HALF)
        else:
            self.against += bool(self._telling) and not below[:, self._telling].any()

    def see_stored(self, images: Images, every: int = 1) -> None:
        """Looks at (N, S, S, bands) images as they are stored: where all bands clip, data are 1 by `to_levels`.

        Of pixels beside those without data resizing has made something in between, so they do not count.

        Args:
            images: them.
            every: of so many pixels along both sides one is looked at.
        """
        (low, high), most = self.value_range, np.iinfo(images.dtype).max
        for image in np.asarray(images):
            known = image.any(-1)
            if not known.all():
                known = minimum_filter(known, 2 * _BLURRED + 1)
            data = image[::every, ::every][known[::every, ::every]]
            self.see(low + np.where(data > 1, data, 0) * ((high - low) / most))


def check(section: Mapping[str, Any], splits: Mapping[str, Images], meaning: Meaning) -> list[str]:
    """Refuses images whose values show that 1000 was added to them, or was not, against what the sensor's name says.

    Args:
        section: reads `sensor` and `value_range` of config.dataset; where both are given, the user knows more.
        splits: by what they are called, (N, S, S, bands) uint16; each is judged on its own.
        meaning: what their numbers are.

    Returns:
        A note where a few images contradict.

    Raises:
        InputError: names the other sensor, and the range that keeps this one.
    """
    sensor, notes = section["sensor"], []
    if not sensor or section["value_range"] or not meaning.value_range:
        return []
    for name, images in splits.items():
        seen = Seen(meaning.names, meaning.value_range)
        for start in range(0, len(images), _AT_ONCE):
            seen.see_stored(images[start : start + _AT_ONCE], _SPARSE)
        if seen.shown:
            low, high = meaning.value_range
            other = sensor.removesuffix("_offset") if low else f"{sensor}_offset"
            raise InputError(
                f"dataset.sensor is {sensor!r}, but of {name} {seen.shown}: set it to {other!r}, or, if "
                f"that is right, give dataset.value_range=({low:.0f}.0,{high:.0f}.0)"
            )
        if seen.mixed:
            notes.append(f"warning: of {name}, {seen.mixed}: bring them to one form")
    return notes
