"""What the numbers and the size of a data set's tiles were, and whether another image is of that kind."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data import pixels
from kdjax.data.bands import RGB, Bands
from kdjax.data.pixels import Decoded, DecodeError
from kdjax.fields import is_number

BYTES, INTEGERS, UNIT, FLOATS = "8-bit", "16-bit", "float 0..1", "float"
_MARGIN = 0.1  # share of the value range
_FEW = 0.05  # share of the value range that bytes would take, so that all of them would be black
_SIZES = ("tile_px", "pixel_size_m", "ground_size_m")


def ranges_differ(theirs: Sequence[float] | None, ours: Sequence[float], *, named: bool) -> bool:
    """Whether two sets of images became black and white by other values.

    Args:
        theirs: (low, high), () of bytes; None where that is not known, and then they do not.
        ours: the same.
        named: whether these are images of named bands. Red, green and blue in bytes go with those in other numbers,
            which were stretched to look like them.
    """
    return theirs is not None and list(theirs) != list(ours) and (named or bool(theirs and ours))


class OutsideError(DecodeError):
    """Most values would become black or white."""


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What training tiles were. It goes with an exported file, which takes only images of that kind.

    Attributes:
        value_range: (low, high) that 16-bit and float images were mapped by, () where there were none.
        numbers: kinds of numbers there were, of BYTES, INTEGERS, UNIT and FLOATS; () = not known.
        tile_px: median side of a tile in its file, px; None = not known.
        pixel_size_m: median side of a pixel on the ground, m; None = not known.
        ground_size_m: median side of a tile on the ground, m; None = not known.
        bands: its bands, None = red, green and blue.
    """

    value_range: tuple[float, ...] = ()
    numbers: tuple[str, ...] = ()
    tile_px: float | None = None
    pixel_size_m: float | None = None
    ground_size_m: float | None = None
    bands: Bands | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, in their order."""
        return self.bands.names if self.bands else RGB

    @property
    def dtype(self) -> np.dtype:
        """In which images are stored: bytes, or 16 bits where bands have a value range.

        Eight bits of a reflectance times 10 000 would make steps of 40, and dark water is 100.
        """
        return np.dtype(np.uint16 if self.bands and self.value_range else np.uint8)

    def stored(self, decoded: Decoded, *, outside: bool = False) -> np.ndarray:
        """The image as it is stored: (H, W, channels) of `dtype`, 0 where there is no data.

        Args:
            decoded: the image.
            outside: whether most values may lie outside of the range: it was chosen from many images, this one among
                them, and a snowy scene is no scene of another kind.

        Raises:
            DecodeError: its numbers are of another kind.
        """
        if not decoded.deep:
            self.check(np.empty(0, np.uint8))
            return pixels.blackened(decoded.pixels, decoded.valid)
        try:
            self.check(pixels.sample(decoded))
        except OutsideError:
            if not outside:
                raise
        result = pixels.to_levels(decoded.pixels, self.value_range, self.dtype)
        if decoded.valid is not None:
            result[~decoded.valid] = 0
        return result

    def check(self, values: np.ndarray) -> None:
        """Refuses another kind of numbers, and values of which most would become black or white.

        Args:
            values: (n,) of an image's data, in their dtype.

        Raises:
            DecodeError: says what was found and what is expected.
        """
        span = f"where values {self.value_range[0]:g}..{self.value_range[1]:g} are expected" if self.value_range else ""
        if values.dtype == np.uint8:
            if self.value_range and BYTES not in self.numbers:
                raise DecodeError(f"8-bit pixels, {span}: convert it")
            return
        if not self.value_range:
            raise DecodeError(f"{values.dtype} pixels, and training had only 8-bit images: convert it")
        low, high = self.value_range
        if kind_of(values.dtype, self.value_range) == INTEGERS and high - low <= 2:
            raise DecodeError(f"{values.dtype} pixels, {span}: convert it")
        if not values.size:
            return
        least, most = float(values.min()), float(values.max())
        if values.dtype.kind == "f" and -1 <= least < most <= 2 and high - low > 20:
            raise DecodeError(f"floats {least:g}..{most:g}, {span}: convert it")
        # Percentiles cut off the darkest water of a large set: a little outside is as in training.
        margin = _MARGIN * (high - low)
        outside = float(np.mean((values < low - margin) | (values > high + margin)))
        if outside > 0.5:
            share = f"{100 * outside:.0f} % of its values, {least:g}..{most:g}"
            raise OutsideError(f"{share}, lie outside of {low:g}..{high:g}")

    def are_bytes(self, most: float) -> bool:
        """Whether values up to `most` look like bytes in a wider type, which the value range would all make black."""
        return bool(self.value_range) and 0 < most <= 255 < _FEW * (self.value_range[1] - self.value_range[0])

    def metadata(self) -> dict[str, str]:
        """The facts that are known, as texts for a file's metadata; `value_range` and `numbers` always."""
        sizes = {name: f"{getattr(self, name):.10g}" for name in _SIZES if getattr(self, name) is not None}
        bands = self.bands.metadata() if self.bands else {}
        return {"value_range": json.dumps(self.value_range), "numbers": json.dumps(self.numbers), **sizes, **bands}

    @classmethod
    def from_metadata(cls, facts: Mapping[str, str]) -> Meaning:
        """Reads what `metadata` wrote.

        Raises:
            KeyError: there is no value_range.
            ValueError: a value is of another type.
        """
        value_range = json.loads(facts["value_range"])
        if not isinstance(value_range, list) or (value_range and not is_range(value_range)):
            raise ValueError(f"value_range {facts['value_range']}")
        numbers = json.loads(facts.get("numbers", "[]"))
        if not isinstance(numbers, list) or not all(isinstance(one, str) for one in numbers):
            raise ValueError(f"numbers {facts['numbers']}")
        sizes = {name: float(facts[name]) for name in _SIZES if name in facts}
        for name, size in sizes.items():
            if not (math.isfinite(size) and size > 0):
                raise ValueError(f"{name} {facts[name]}")
        return cls(tuple(map(float, value_range)), tuple(numbers), **sizes, bands=Bands.from_metadata(facts))


def kind_of(dtype: np.dtype, value_range: tuple[float, ...]) -> str:
    """The kind of numbers of an image whose pixels are of `dtype` and are mapped by `value_range`."""
    if dtype == np.uint8:
        return BYTES
    if dtype.kind != "f":
        return INTEGERS
    return UNIT if value_range[1] - value_range[0] <= 2 else FLOATS


def is_range(value: Any) -> bool:
    """Whether it is (low, high): two finite numbers, the first below the second."""
    return len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]
