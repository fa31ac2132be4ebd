"""Warns if the images given to `predict`, taken together, are unlike the training tiles.

Each image on its own could be a training tile; an image that could not is refused by `Classifier.prepare`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kdjax.data import pixels, sentinel2_offset
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import Decoded
from kdjax.results.text import printable

_FACTOR = 4.0  # the sides of tiles of one data set seldom differ from their median by a larger factor


@dataclasses.dataclass
class InputCheck:
    """Inspects images while they are classified, and collects what is suspicious.

    Attributes:
        meaning: what the numbers and the size of the training tiles were.
        sentinel: checks the offset of Sentinel-2 values; None = the model was not trained on a known sensor's files.
        image_count: number of images inspected.
        odd_sizes: a text for each image that shows much more or much less than a tile, with its name and side.
        largest_value: among the images that are not 8-bit; None = there were none.
        other_bands: a text for each image that describes its red, green and blue as other bands, with its name.
    """

    meaning: Meaning
    sentinel: sentinel2_offset.OffsetEvidence | None
    image_count: int = 0
    odd_sizes: list[str] = dataclasses.field(default_factory=list)
    largest_value: float | None = None
    other_bands: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def for_model(cls, meaning: Meaning) -> InputCheck:
        """A check for images of a model with this `Classifier.meaning`."""
        return cls(meaning, sentinel2_offset.OffsetEvidence.for_training(meaning))

    def inspect(self, name: str, decoded: Decoded) -> None:
        """Inspects a decoded image before it is resized."""
        self.image_count += 1
        side, unit, expected = math.sqrt(math.prod(decoded.pixels.shape[:2])), "px", self.meaning.tile_px
        if decoded.pixel_size_m and self.meaning.ground_size_m:
            side, unit, expected = side * decoded.pixel_size_m, "m", self.meaning.ground_size_m
        if expected and not 1 / _FACTOR <= side / expected <= _FACTOR:
            self.odd_sizes.append(f"{printable(name)} has {side:.4g} {unit} for {expected:.4g}")
        if decoded.other_names:
            self.other_bands.append(f"{printable(name)} calls them {printable(decoded.other_names)}")
        if decoded.deep:
            self.largest_value = max(self.largest_value or 0.0, float(pixels.sample(decoded).max()))

    def inspect_stored(self, images: np.ndarray) -> None:
        """Inspects images (n, size, size, bands) as the model gets them."""
        if self.sentinel is not None:
            self.sentinel.add_stored(images)

    def warnings(self) -> list[str]:
        """A sentence for each suspicion."""
        sentences = []
        if self.odd_sizes:
            sentences.append(
                f"{len(self.odd_sizes)} of {self.image_count} images show far more or less than a training tile: "
                f"{self.odd_sizes[0]}; each image gets a single answer, so map a scene with kdjax.deploy.landuse_map"
            )
        if self.other_bands:
            sentences.append(
                f"{len(self.other_bands)} of {self.image_count} images describe the bands taken as red, green and blue "
                f"as other bands: {self.other_bands[0]}; the classes are wrong if the training tiles were not like this"
            )
        if self.largest_value is not None and self.meaning.are_bytes(self.largest_value):
            low, high = self.meaning.value_range
            sentences.append(
                f"no value of the 16-bit and float images is above {self.largest_value:g}, as of bytes in a wider "
                f"type; the classes are wrong if so, as the model was trained on values {low:g}..{high:g}"
            )
        if self.sentinel is not None and self.sentinel.contradiction:
            low, high = self.sentinel.value_range
            sentences.append(
                f"{self.sentinel.contradiction}; the classes are wrong if so, as the model was trained on values "
                f"{low:g}..{high:g}"
            )
        elif self.sentinel is not None and self.sentinel.mixed:
            sentences.append(f"{self.sentinel.mixed}: their classes are wrong")
        return sentences
