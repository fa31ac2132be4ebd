"""Checks whether the values of Sentinel-2 images contradict what is assumed about the offset added to them."""

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

_IMAGES_AT_ONCE = 16  # few, because they may have many bands
_TRAINING_STRIDE = 7  # of training images, one in so many pixels along both sides is examined
_EDGE_PIXELS = 4  # pixels this close to those without data do not count; the Lanczos filter reaches over three
_MOST_BELOW = 0.05  # share of values that may lie at or below the offset, as noise over water
_DARK_BANDS = ("b01", "b02", "b03", "b04", "b10")
"""Bands in which nearly every image of land has a pixel with a reflectance below 0.1; in infrared it may have none."""
_CIRRUS = "b10"
"""The cirrus band: only thick high clouds reflect in it, so every image shows by it whether the offset was added."""
_MOST_AGAINST_BY_CIRRUS, _MOST_AGAINST = 0.25, 0.5
"""Largest share of images that may contradict the assumption: of those with the cirrus band, and of others, which may
show bright land. In a small set of the others, all but one may."""
_SMALL_SET = 20
"""A set of fewer images is small."""


@dataclasses.dataclass
class OffsetEvidence:
    """Counts of what the images examined so far show.

    Attributes:
        names: names of the bands.
        value_range: the values expected for reflectance 0 and 1.
        count, below: number of values, and of those that lie at or below the offset.
        images: number of images.
        against: number of images that contradict the expectation by themselves.
    """

    names: tuple[str, ...]
    value_range: tuple[float, ...]
    count: int = 0
    below: int = 0
    images: int = 0
    against: int = 0

    @classmethod
    def for_training(cls, meaning: Meaning) -> OffsetEvidence | None:
        """Starts the counts, if the training images were files of a known sensor in its value range; otherwise None."""
        is_of_sensor = meaning.bands is not None and meaning.bands.of_sensor
        if not is_of_sensor or meaning.value_range not in {sensor.value_range for sensor in SENSORS.values()}:
            return None
        return cls(meaning.names, meaning.value_range)

    @property
    def other_range(self) -> tuple[float, float]:
        """The range that the values would have under the opposite assumption about the offset."""
        low, high = self.value_range
        return (low - OFFSET, high - OFFSET) if low else (low + OFFSET, high + OFFSET)

    @property
    def contradiction(self) -> str | None:
        """A description of what contradicts the expectation; None if nothing does."""
        if self._cirrus is not None:
            most = _MOST_AGAINST_BY_CIRRUS
        else:
            most = _MOST_AGAINST if self.images >= _SMALL_SET else 1 - 1 / _SMALL_SET
        many_against = self.against > most * self.images
        if self.value_range[0]:
            share = self.below / self.count if self.count else 0.0
            if many_against or share > _MOST_BELOW:
                observation = f"{100 * share:.0f} % of the values are at most {OFFSET:.0f}"
                return f"{observation}, which is black where Sentinel-2's offset was added"
        elif many_against:
            band_names = ", ".join(self.names[k] for k in self._telling)
            prefix = f"in {self.against} of {self.images} images " * (self.against < self.images)
            return f"{prefix}no value is below {OFFSET:.0f} in {band_names}, as where Sentinel-2's offset was added"
        return None

    @property
    def mixed(self) -> str | None:
        """A description of the few images that contradict by their cirrus band, a sure sign; None if there are none."""
        if self._cirrus is None or not self.against or self.contradiction:
            return None
        was = "was not" if self.value_range[0] else "was"
        return f"in {self.against} of {self.images} images Sentinel-2's offset {was} added, unlike in the others"

    @property
    def _cirrus(self) -> int | None:
        """Index of the cirrus band; None if there is none."""
        return next((k for k, name in enumerate(self.names) if canonical(name) == _CIRRUS), None)

    @property
    def _telling(self) -> list[int]:
        """Indices of the bands by which an image shows that the offset was added."""
        dark = [k for k, name in enumerate(self.names) if canonical(name) in _DARK_BANDS]
        return dark if self._cirrus is None else [self._cirrus]

    def add(self, pixels: np.ndarray) -> None:
        """Counts the values of an image, (n, bands) in the units of its file; skips pixels that are 0 in all bands."""
        below = pixels[pixels.any(-1)] <= OFFSET
        if not below.size:
            return
        self.count, self.below, self.images = self.count + below.size, self.below + int(below.sum()), self.images + 1
        if self.value_range[0]:
            self.against += self._cirrus is not None and bool(below[:, self._cirrus].mean() > 0.5)
        else:
            self.against += bool(self._telling) and not below[:, self._telling].any()

    def add_stored(self, images: Images, stride: int = 1) -> None:
        """Counts the values of images in their stored form, where `to_levels` makes data 1 that would clip to 0.

        Pixels next to those without data do not count, because resizing has mixed the two.

        Args:
            images: (N, S, S, bands) uint8 or uint16.
            stride: one in so many pixels along both sides is examined.
        """
        (low, high), most = self.value_range, np.iinfo(images.dtype).max
        for image in np.asarray(images):
            has_data = image.any(-1)
            if not has_data.all():
                has_data = minimum_filter(has_data, 2 * _EDGE_PIXELS + 1)
            data = image[::stride, ::stride][has_data[::stride, ::stride]]
            self.add(low + np.where(data > 1, data, 0) * ((high - low) / most))


def check(section: Mapping[str, Any], splits: Mapping[str, Images], meaning: Meaning) -> list[str]:
    """Refuses images whose values contradict the sensor's name on whether 1000 was added to them.

    Args:
        section: reads `sensor` and `value_range` of config.dataset. If both are set, nothing is checked, because the
            user has decided.
        splits: name for messages -> images (N, S, S, bands) uint16; each entry is judged separately.
        meaning: the meaning of their numbers.

    Returns:
        A note for each entry in which a few images contradict.

    Raises:
        InputError: names the other sensor, and the value range that keeps this one.
    """
    sensor, notes = section["sensor"], []
    if not sensor or section["value_range"] or not meaning.value_range:
        return []
    for name, images in splits.items():
        evidence = OffsetEvidence(meaning.names, meaning.value_range)
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            evidence.add_stored(images[start : start + _IMAGES_AT_ONCE], _TRAINING_STRIDE)
        if evidence.contradiction:
            low, high = meaning.value_range
            other = sensor.removesuffix("_offset") if low else f"{sensor}_offset"
            raise InputError(
                f"dataset.sensor is {sensor!r}, but of {name} {evidence.contradiction}: set it to {other!r}, or, if "
                f"that is right, give dataset.value_range=({low:.0f}.0,{high:.0f}.0)"
            )
        if evidence.mixed:
            notes.append(f"warning: of {name}, {evidence.mixed}: bring them to one form")
    return notes
