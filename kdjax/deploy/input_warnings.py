"""What of the images that `predict` was given is unlike the training tiles, where each alone could be one of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kdjax.data import pixels, sentinel2_offset
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import Decoded
from kdjax.results.text import printable

_FACTOR = 4.0  # by which the sides of tiles of one data set differ from their median, and seldom more


@dataclasses.dataclass
class Unlike:
    """Looks at images as they are classified.

    Attributes:
        meaning: what the training tiles were.
        sentinel: sees the values of a known sensor; None = of another.
        count: images that were seen.
        sized: those that show much more or much less than a tile, each with its side.
        most: the highest value of those that are no bytes; None = there were none.
        called: those that call other bands by their names than red, green and blue, each with these names.
    """

    meaning: Meaning
    sentinel: sentinel2_offset.Seen | None
    count: int = 0
    sized: list[str] = dataclasses.field(default_factory=list)
    most: float | None = None
    called: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def by(cls, meaning: Meaning) -> Unlike:
        """For images of a model whose training tiles were so."""
        return cls(meaning, sentinel2_offset.Seen.by(meaning))

    def see(self, name: str, decoded: Decoded) -> None:
        """Looks at an image as its file has it."""
        self.count += 1
        side, unit, expected = math.sqrt(math.prod(decoded.pixels.shape[:2])), "px", self.meaning.tile_px
        if decoded.pixel_size_m and self.meaning.ground_size_m:
            side, unit, expected = side * decoded.pixel_size_m, "m", self.meaning.ground_size_m
        if expected and not 1 / _FACTOR <= side / expected <= _FACTOR:
            self.sized.append(f"{printable(name)} has {side:.4g} {unit} for {expected:.4g}")
        if decoded.called:
            self.called.append(f"{printable(name)} calls them {printable(decoded.called)}")
        if decoded.deep:
            self.most = max(self.most or 0.0, float(pixels.sample(decoded).max()))

    def see_stored(self, images: np.ndarray) -> None:
        """Looks at images (n, size, size, bands) as the model gets them."""
        if self.sentinel is not None:
            self.sentinel.see_stored(images)

    def warnings(self) -> list[str]:
        """A sentence for each thing that was found."""
        found = []
        if self.sized:
            found.append(
                f"{len(self.sized)} of {self.count} images show far more or less than a training tile: "
                f"{self.sized[0]}; each image gets a single answer, so map a scene with kdjax.deploy.landuse_map"
            )
        if self.called:
            found.append(
                f"{len(self.called)} of {self.count} images describe the bands taken as red, green and blue as other "
                f"bands: {self.called[0]}; the classes are wrong if the training tiles were not like this"
            )
        if self.most is not None and self.meaning.are_bytes(self.most):
            low, high = self.meaning.value_range
            found.append(
                f"no value of the 16-bit and float images is above {self.most:g}, as of bytes in a wider type; the "
                f"classes are wrong if so, as the model was trained on values {low:g}..{high:g}"
            )
        if self.sentinel is not None and self.sentinel.shown:
            low, high = self.sentinel.value_range
            found.append(
                f"{self.sentinel.shown}; the classes are wrong if so, as the model was trained on values "
                f"{low:g}..{high:g}"
            )
        elif self.sentinel is not None and self.sentinel.mixed:
            found.append(f"{self.sentinel.mixed}: their classes are wrong")
        return found
