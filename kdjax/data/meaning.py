"""The kind of numbers, the bands and the size of a data set's tiles, and the check whether another image fits them."""

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
_RANGE_MARGIN = 0.1  # share of the value range by which values may lie outside it
_BYTES_SHARE = 0.05  # if 0..255 is a smaller share of the value range, an image of bytes would come out black
_SIZES = ("tile_px", "pixel_size_m", "ground_size_m")


def ranges_differ(theirs: Sequence[float] | None, ours: Sequence[float], *, named: bool) -> bool:
    """Whether two sets of images were mapped by different value ranges.

    Args:
        theirs: (low, high), or () for 8-bit images; None = not known, which counts as no difference.
        ours: (low, high), or () for 8-bit images.
        named: whether the images have named bands. If not, 8-bit images in red, green and blue agree with any range,
            because deeper images were stretched to look like them.
    """
    return theirs is not None and list(theirs) != list(ours) and (named or bool(theirs and ours))


class OutsideError(DecodeError):
    """Most values of an image lie outside the value range, so they would become black or white."""


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Properties of the training tiles. They are stored in an exported file, which then accepts only such images.

    Attributes:
        value_range: (low, high) by which 16-bit and float images were mapped; () = there were no such images.
        numbers: the kinds of numbers that occurred, of BYTES, INTEGERS, UNIT and FLOATS; () = not known.
        tile_px: median side of a tile in its file, px; None = not known.
        pixel_size_m: median side of a pixel on the ground, m; None = not known.
        ground_size_m: median side of a tile on the ground, m; None = not known.
        bands: bands of the tiles; None = red, green and blue.
    """

    value_range: tuple[float, ...] = ()
    numbers: tuple[str, ...] = ()
    tile_px: float | None = None
    pixel_size_m: float | None = None
    ground_size_m: float | None = None
    bands: Bands | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return self.bands.names if self.bands else RGB

    @property
    def dtype(self) -> np.dtype:
        """The dtype in which images are stored: uint16 for bands with a value range, otherwise uint8.

        In eight bits, reflectance × 10 000 would be quantized in steps of about 40, and dark water is only about 100.
        """
        return np.dtype(np.uint16 if self.bands and self.value_range else np.uint8)

    def to_stored(self, decoded: Decoded, *, outside: bool = False) -> np.ndarray:
        """Converts an image to the form in which it is stored: (H, W, channels) of `dtype`, 0 where there is no data.

        Args:
            decoded: the image.
            outside: whether most values may lie outside the range. True if the range was chosen from many images
                including this one: a snowy scene is bright, not of another kind.

        Raises:
            DecodeError: its numbers are of another kind than those of the training tiles.
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
        """Refuses values of another kind, and values most of which would become black or white.

        Args:
            values: (n,) values of an image's data, in their original dtype.

        Raises:
            DecodeError: names the values found and those expected; `OutsideError` if only the range does not fit.
        """
        expected = (
            f"where values {self.value_range[0]:g}..{self.value_range[1]:g} are expected" if self.value_range else ""
        )
        if values.dtype == np.uint8:
            if self.value_range and BYTES not in self.numbers:
                raise DecodeError(f"8-bit pixels, {expected}: convert it")
            return
        if not self.value_range:
            raise DecodeError(f"{values.dtype} pixels, and training had only 8-bit images: convert it")
        low, high = self.value_range
        if kind_of(values.dtype, self.value_range) == INTEGERS and high - low <= 2:
            raise DecodeError(f"{values.dtype} pixels, {expected}: convert it")
        if not values.size:
            return
        least, most = float(values.min()), float(values.max())
        if values.dtype.kind == "f" and -1 <= least < most <= 2 and high - low > 20:
            raise DecodeError(f"floats {least:g}..{most:g}, {expected}: convert it")
        # The range comes from percentiles, so training images lie a little outside it as well, such as dark water.
        margin = _RANGE_MARGIN * (high - low)
        outside = float(np.mean((values < low - margin) | (values > high + margin)))
        if outside > 0.5:
            share = f"{100 * outside:.0f} % of its values, {least:g}..{most:g}"
            raise OutsideError(f"{share}, lie outside of {low:g}..{high:g}")

    def are_bytes(self, most: float) -> bool:
        """Whether values up to `most` look like bytes in a wider type, which the value range would turn all black."""
        return bool(self.value_range) and 0 < most <= 255 < _BYTES_SHARE * (self.value_range[1] - self.value_range[0])

    def metadata(self) -> dict[str, str]:
        """The known attributes as strings for a file's metadata; `value_range` and `numbers` are always included."""
        sizes = {name: f"{getattr(self, name):.10g}" for name in _SIZES if getattr(self, name) is not None}
        bands = self.bands.metadata() if self.bands else {}
        return {"value_range": json.dumps(self.value_range), "numbers": json.dumps(self.numbers), **sizes, **bands}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Meaning:
        """Reads what `metadata` wrote.

        Raises:
            KeyError: there is no value_range.
            ValueError: a value is of another type.
        """
        value_range = json.loads(metadata["value_range"])
        if not isinstance(value_range, list) or (value_range and not is_range(value_range)):
            raise ValueError(f"value_range {metadata['value_range']}")
        numbers = json.loads(metadata.get("numbers", "[]"))
        if not isinstance(numbers, list) or not all(isinstance(kind, str) for kind in numbers):
            raise ValueError(f"numbers {metadata['numbers']}")
        sizes = {name: float(metadata[name]) for name in _SIZES if name in metadata}
        for name, size in sizes.items():
            if not (math.isfinite(size) and size > 0):
                raise ValueError(f"{name} {metadata[name]}")
        return cls(tuple(map(float, value_range)), tuple(numbers), **sizes, bands=Bands.from_metadata(metadata))


def kind_of(dtype: np.dtype, value_range: tuple[float, ...]) -> str:
    """The kind of numbers in an image with pixels of `dtype` that `value_range` maps."""
    if dtype == np.uint8:
        return BYTES
    if dtype.kind != "f":
        return INTEGERS
    return UNIT if value_range[1] - value_range[0] <= 2 else FLOATS


def is_range(value: Any) -> bool:
    """Whether a value is (low, high): two finite numbers, the first below the second."""
    return len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]
